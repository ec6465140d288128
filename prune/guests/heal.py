"""Healing: what a boot of the pruned kernel missed is kept from then on.

``OUT/heal.json`` lists the missed functions of one build, with who called each, in which phase of the
workload, and in which round. To the plan they are one more profile, whose source is ``heal``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from prune.guests.misses import Miss
from tracer.host import MISSHAPEN, UserError, read_json, write_json
from tracer.phase_names import BOOT
from tracer.phase_names import HEALED as SOURCE
from tracer.profiles.profile import KernelId, Profile, Seen, records
from tracer.profiles.symbols import Identity

SCHEMA = 3
#: What a workload always does and no trace saw, every boot misses, and repeating some tells as much as all.
#: They are of different speeds, for neighbours are (:mod:`tracer.sessions.jitter`).
ALIKE = 4


@dataclass(frozen=True)
class Healed:
    """One function that boots in round ``round`` (from 1) asked for and did not find; ``app``: the phase
    in which the first of the ``boots`` that missed it did; ``offset``: of the cold block that was missed, -1
    when it was all of the function. Either way it is whole from then on."""

    function: str
    object: str
    section: str
    caller: str
    app: str
    boots: int
    round: int
    offset: int = -1

    @property
    def identity(self) -> Identity:
        return Identity(self.object, self.section, self.function)


def load_healed(path: Path, build_id: str) -> tuple[Healed, ...]:
    """What was healed of this build so far; nothing when the file is of another build or is not there.

    Raises:
        UserError: the file is damaged.
    """
    if not path.is_file():
        return ()
    value = read_json(path, "healed misses", SCHEMA)
    try:
        if value["build_id"] != build_id:
            return ()
        return msgspec.convert(value["healed"], tuple[Healed, ...])
    except (*MISSHAPEN, msgspec.ValidationError) as error:
        raise UserError(f"reading the healed misses: {path}: {error!r}", f"remove {path}") from error


def save_healed(healed: Iterable[Healed], path: Path, build_id: str) -> None:
    """Write ``heal.json``."""
    rows = [asdict(each) for each in healed]
    write_json(path, {"schema_version": SCHEMA, "build_id": build_id, "healed": rows})


def rounds(healed: Iterable[Healed]) -> int:
    """How many rounds of boots have had something to heal."""
    return max((each.round for each in healed), default=0)


def add_misses(healed: tuple[Healed, ...], misses: Iterable[Miss]) -> tuple[Healed, ...]:
    """``healed`` with one more round's misses, one for each boot that missed a function.

    What was missed in boot, and kept for booting alone from then on, may be missed once more after that.
    """
    known = {(each.object, each.section, each.app == BOOT) for each in healed}
    by_place: dict[tuple[str, str], list[Miss]] = {}
    for miss in misses:
        by_place.setdefault((miss.object, miss.section), []).append(miss)
    number = rounds(healed) + 1
    new = []
    for place, each in by_place.items():
        phase = next((miss.phase for miss in each if miss.phase != BOOT), BOOT)
        if (*place, False) not in known and (phase != BOOT or (*place, True) not in known):
            caller = next((miss.caller for miss in each if miss.caller), "")
            new.append(Healed(each[0].function, *place, caller, phase, len(each), number, each[0].offset))
    return (*healed, *new)


def boots_to_repeat(boots: Iterable[Mapping[str, Any]]) -> list[int]:
    """The numbers of those boots (``each`` of boots.json) to repeat on the whole kernel, for what else they
    run: that missed something, and of those that missed the same at most :data:`ALIKE`."""
    alike: dict[frozenset[tuple[str, str]], list[int]] = {}
    for boot in boots:
        if boot["misses"]:
            missed = frozenset((miss["object"], miss["section"]) for miss in boot["misses"])
            alike.setdefault(missed, []).append(boot["number"])
    return sorted(number for numbers in alike.values() for number in numbers[:ALIKE])


def healed_profile(healed: Iterable[Healed], kernel: KernelId, files: dict[str, str]) -> Profile:
    """The healed functions as a profile. ``files``: object -> hash of its source file."""
    seen: dict[Identity, list[Seen]] = {}
    for each in healed:
        how = Seen(each.app or SOURCE, SOURCE, each.boots, each.caller)
        seen.setdefault(each.identity, []).append(how)
    objects = sorted({identity.object for identity in seen})
    return Profile(
        kernel=kernel,
        traced_build_id="",
        workload_name=SOURCE,
        workload_hash="",
        apps=(),
        sources=(SOURCE,),
        files=tuple((name, files[name]) for name in objects if name in files),
        functions=records(seen),
        blind_spots=(),
        ambiguous=(),
        unmatched=(),
        runs=(),
    )
