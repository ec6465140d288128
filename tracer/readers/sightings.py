"""What a trace made elsewhere says: places in some kernel that ran, before they are matched to a build.

Readers of foreign formats make these; :mod:`tracer.elsewhere.matching` finds the functions that they stand
for.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sighting:
    """One place that ran while ``app`` did.

    A reader fills in what its format has: ``name``, a symbol (``cut``: perhaps only its beginning);
    ``file``, the source file as the format gives it; ``address``, a virtual one of the kernel that ran, when
    there is no name. ``count``: how often, None when the format does not say.
    """

    app: str
    count: int | None
    name: str = ""
    file: str = ""
    address: int = 0
    cut: bool = False


@dataclass(frozen=True)
class ForeignTrace:
    """One file's content.

    ``source``: the profile's word for what saw it (``trace-cmd``, ``perf``, ``trace_stat``, ``drcov``,
    ``lcov``). ``apps``: in order of first appearance, also those that ran nothing.
    ``build_id``: of the kernel that ran, in hex, "" when the format does not carry it.
    """

    source: str
    apps: tuple[str, ...]
    sightings: tuple[Sighting, ...]
    build_id: str = ""
