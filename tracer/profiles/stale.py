"""A profile of another build than the one at hand: carried over, or refused.

Another compiler, another linker or link-time optimisation make another build of the same program: where
source and configuration are the same, a profile may move. Where they differ it is stale, and taken only when
the user insists. Either way functions are carried as :mod:`tracer.profiles.identity` says; what the build at
hand has no function for is counted and named, and so are the source files that changed since. What the
profile cannot know of the build at hand is reasoned from the call graphs of both (``prune.plan.carried``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from tracer.host import UserError
from tracer.profiles.builds import files_of, kernel_id
from tracer.profiles.identity import Carrier, base_symbol, copies
from tracer.profiles.profile import BlindSpot, FunctionRecord, Profile, Seen, records
from tracer.profiles.symbols import Identity, Symbols

OVERRIDE = "--accept-stale-profile"


@dataclass(frozen=True)
class Staleness:
    """How a profile's kernel differs, and what became of its functions. ``config``, ``source`` and
    ``options`` (the configuration without what the compiler decides): "same", "differs" or "unknown".
    ``changed``: objects whose source file differs.

    ``functions`` ran there, in ``ran_bytes`` of instructions (0: not known); ``carried`` of them are here,
    with ``carried_bytes``; ``lost``, "object:symbol", are not. ``ambiguous``: names that stand for more
    functions here than ran there. ``references``: the profile says what the functions of its build refer to.
    """

    workload: str
    build_id: str
    version: str
    config: str
    source: str
    options: str
    changed: tuple[str, ...]
    functions: int
    carried: int
    ran_bytes: int
    carried_bytes: int
    ambiguous: int
    references: bool
    lost: tuple[str, ...]

    @property
    def moved(self) -> bool:
        """The same program, only built in another way."""
        return self.source == self.options == "same"

    def __str__(self) -> str:
        config = {"same": "the same config", "differs": "another config", "unknown": "an unknown config"}
        source = {"same": "the same source", "differs": "another source", "unknown": "an unknown source"}
        said = f"{source[self.source]}, {config[self.config]}"
        if self.moved and self.config == "differs":
            said = "the same source and options, another compiler or linker"
        if self.changed:
            said += f", {len(self.changed)} source files that ran have changed ({self.changed[0]} among them)"
        return said

    def matched(self) -> str:
        """How much of the profile fits, for a person."""
        said = f"{self.carried:,} of the {self.functions:,} functions that ran are functions here"
        if self.ran_bytes:
            said += f", {self.carried_bytes / self.ran_bytes:.1%} of the bytes that ran"
        return said


def accept(
    profile: Profile, symbols: Symbols, stale_too: bool, doing: str
) -> tuple[Profile, Staleness | None]:
    """The profile, named after the build at hand; what differs, when it was not made with it.

    Raises:
        UserError: it was carried over itself, or it is stale and ``stale_too`` is not given.
    """
    if profile.moved_from:
        raise UserError(
            f"{doing}: functions in it were carried over from build {profile.moved_from[0][:12]}, "
            "and what that cannot say of other builds is not in it",
            "take the profile that was made with that build",
        )
    if profile.kernel.build_id == symbols.build_id:
        return profile, None
    made, stale = carry_over(profile, symbols)
    if not stale_too and not stale.moved:
        raise UserError(
            f"{doing}: it is of build {profile.kernel.build_id[:12]} ({stale}), "
            f"this kernel is {symbols.build_id[:12]}",
            f"trace this build, or take it all the same: {OVERRIDE}",
        )
    return made, stale


def carry_over(profile: Profile, symbols: Symbols) -> tuple[Profile, Staleness]:
    """The profile in terms of another build."""
    carrier = Carrier(symbols, profile.objects)
    seen: dict[Identity, list[Seen]] = defaultdict(list)
    runs: dict[Identity, int] = defaultdict(int)
    sources: dict[tuple[Identity, ...], list[FunctionRecord]] = defaultdict(list)
    lost = []
    for function in profile.functions:
        targets = carrier.carry(function.identity)
        sources[tuple(targets)].append(function)
        if not targets:
            lost.append(function)
        for target in targets:
            # Two variants of one function may have become one.
            seen[target] += [each for each in function.seen if each not in seen[target]]
            runs[target] |= function.runs
    ambiguous = {
        base_symbol(targets[0].symbol)
        for targets, functions in sources.items()
        if targets and copies(targets) > copies(function.identity for function in functions)
    }
    names = sorted(f"{function.object}:{function.symbol}" for function in lost)
    made = replace(
        profile,
        kernel=kernel_id(symbols),
        files=files_of(seen, symbols),
        functions=records(seen, runs),
        blind_spots=tuple(_carried_spot(spot, carrier) for spot in profile.blind_spots),
        ambiguous=tuple(sorted({*profile.ambiguous, *ambiguous})),
        unmatched=tuple(sorted({*profile.unmatched, *names})),
        references=None,
        moved_from=(profile.kernel.build_id,),
    )
    return made, _staleness(profile, symbols, lost, len(ambiguous), names)


def _carried_spot(spot: BlindSpot, carrier: Carrier) -> BlindSpot:
    functions = {target for function in spot.functions for target in carrier.carry(function)}
    return replace(spot, functions=tuple(sorted(functions)))


def _staleness(
    profile: Profile, symbols: Symbols, lost: Collection[FunctionRecord], ambiguous: int, names: list[str]
) -> Staleness:
    def compared(theirs: str, ours: str) -> str:
        return "unknown" if not theirs or not ours else "same" if theirs == ours else "differs"

    changed = [name for name, digest in profile.files if symbols.files.get(name, digest) != digest]
    kernel, ran = profile.kernel, _bytes(profile.functions)
    return Staleness(
        workload=profile.workload_name,
        build_id=kernel.build_id,
        version=kernel.version,
        config=compared(kernel.config, symbols.config),
        source=compared(kernel.source, symbols.source),
        options=compared(kernel.options, symbols.options),
        changed=tuple(changed),
        functions=len(profile.functions),
        carried=len(profile.functions) - len(lost),
        ran_bytes=ran,
        carried_bytes=ran - _bytes(lost),
        ambiguous=ambiguous,
        references=profile.references is not None,
        lost=tuple(names),
    )


def _bytes(functions: Iterable[FunctionRecord]) -> int:
    """Of instructions that ran, as far as somebody saw them."""
    return sum(end - start for function in functions for start, end in function.ran)
