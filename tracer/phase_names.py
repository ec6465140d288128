"""What the phases of a session are called that are no apps."""

from __future__ import annotations

#: Until the kernel frees its init memory; from then to the first app; from the last app on.
BOOT, START, SHUTDOWN = "boot", "start", "shutdown"
#: The source, and for want of an app the app, of what boots missed.
HEALED = "heal"
