"""Healing: what a boot missed is kept from then on.

``OUT/heal.json`` lists the missed functions of one build, with the caller and the round in which each was
missed. It stays beside the profile instead of in it, so that a profile says only what was traced.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from tracer.host import UserError, read_json, write_json

SCHEMA = 1


@dataclass(frozen=True)
class Healed:
    """One function that a boot in round ``round`` (from 1) asked for and did not find."""

    function: str
    object: str
    section: str
    caller: str
    round: int


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
        return tuple(Healed(**row) for row in value["healed"])
    except (KeyError, TypeError) as error:
        raise UserError(f"reading the healed misses: {path}: {error!r}", f"remove {path}") from error


def save_healed(healed: Iterable[Healed], path: Path, build_id: str) -> None:
    """Write ``heal.json``."""
    rows = [asdict(each) for each in healed]
    write_json(path, {"schema_version": SCHEMA, "build_id": build_id, "healed": rows})


def add_misses(healed: tuple[Healed, ...], misses: Iterable[tuple[str, str, str, str]]) -> tuple[Healed, ...]:
    """``healed`` with the (function, object, section, caller) of one more round's misses."""
    known = {(each.object, each.section) for each in healed}
    number = max((each.round for each in healed), default=0) + 1
    new = {row[1:3]: Healed(*row, number) for row in misses if row[1:3] not in known}
    return (*healed, *new.values())
