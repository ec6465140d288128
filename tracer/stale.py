"""A profile of another build than the one at hand: refused, or carried over when the user insists.

Functions are carried by object and base symbol, as between the traced and the production build; what the
build at hand has no function for is counted and named, and so are the source files that changed since.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace

from tracer.accumulate import files_of, kernel_id
from tracer.host import UserError
from tracer.identity import Carrier
from tracer.profile import BlindSpot, Profile, Seen, records
from tracer.symbols import Identity, Symbols

OVERRIDE = "--accept-stale-profile"


@dataclass(frozen=True)
class Staleness:
    """How a profile's kernel differs. ``config`` and ``source``: "same", "differs" or "unknown".
    ``changed``: objects whose source file differs; ``lost``: functions, "object:symbol", that this build has
    not.
    """

    workload: str
    build_id: str
    version: str
    config: str
    source: str
    changed: tuple[str, ...]
    carried: int
    lost: tuple[str, ...]

    def __str__(self) -> str:
        config = {"same": "the same config", "differs": "another config", "unknown": "an unknown config"}
        source = {"same": "the same source", "differs": "another source", "unknown": "an unknown source"}
        said = f"{source[self.source]}, {config[self.config]}"
        if self.changed:
            said += f", {len(self.changed)} source files that ran have changed ({self.changed[0]} among them)"
        return said


def accept(
    profile: Profile, symbols: Symbols, stale_too: bool, doing: str
) -> tuple[Profile, Staleness | None]:
    """The profile, named after the build at hand; what differs, when it was not made with it.

    Raises:
        UserError: it is of another build, and ``stale_too`` is not given.
    """
    if profile.kernel.build_id == symbols.build_id:
        return profile, None
    made, stale = carry_over(profile, symbols)
    if not stale_too:
        raise UserError(
            f"{doing}: it is of build {profile.kernel.build_id[:12]} ({stale}), "
            f"this kernel is {symbols.build_id[:12]}",
            f"trace this build, or take it all the same: {OVERRIDE}",
        )
    return made, stale


def carry_over(profile: Profile, symbols: Symbols) -> tuple[Profile, Staleness]:
    """The profile in terms of another build."""
    carrier = Carrier(symbols)
    seen: dict[Identity, list[Seen]] = defaultdict(list)
    runs: dict[Identity, int] = defaultdict(int)
    lost = []
    for function in profile.functions:
        targets = carrier.carry(function.identity)
        if not targets:
            lost.append(f"{function.object}:{function.symbol}")
        for target in targets:
            # Two variants of one function may have become one.
            seen[target] += [each for each in function.seen if each not in seen[target]]
            runs[target] |= function.runs
    made = replace(
        profile,
        kernel=kernel_id(symbols),
        files=files_of(seen, symbols),
        functions=records(seen, runs),
        blind_spots=tuple(_carried_spot(spot, carrier) for spot in profile.blind_spots),
        unmatched=tuple(sorted({*profile.unmatched, *lost})),
    )
    return made, _staleness(profile, symbols, len(profile.functions) - len(lost), lost)


def _carried_spot(spot: BlindSpot, carrier: Carrier) -> BlindSpot:
    functions = {target for function in spot.functions for target in carrier.carry(function)}
    return replace(spot, functions=tuple(sorted(functions)))


def _staleness(profile: Profile, symbols: Symbols, carried: int, lost: list[str]) -> Staleness:
    def compared(theirs: str, ours: str) -> str:
        return "unknown" if not theirs or not ours else "same" if theirs == ours else "differs"

    changed = [name for name, digest in profile.files if symbols.files.get(name, digest) != digest]
    kernel = profile.kernel
    return Staleness(
        profile.workload_name,
        kernel.build_id,
        kernel.version,
        compared(kernel.config, symbols.config),
        compared(kernel.source, symbols.source),
        tuple(changed),
        carried,
        tuple(lost),
    )
