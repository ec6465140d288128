"""What the phases of a session are called that are no apps."""

from __future__ import annotations

#: Until the kernel frees its init memory; from then to the first app; from the last app on.
BOOT, START, SHUTDOWN = "boot", "start", "shutdown"
#: What no app may be called: these, and that of what an oops runs (:mod:`tracer.profiles.phases`).
RESERVED = frozenset({BOOT, START, SHUTDOWN, "miss"})
#: The source, and for want of an app the app, of what boots missed.
HEALED = "heal"
