"""``plan.json``: the fate of every unit of one image, a row a unit: plans can be compared with diff."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from json.encoder import encode_basestring_ascii
from pathlib import Path

import numpy as np

from prune.model.apart import Piece
from prune.model.elf import Rows
from prune.plan import SCHEMA
from prune.plan.policy import PANIC, REFUSE, RETURN, STOP
from tracer.host import MISSHAPEN, UserError, read_json, whole_file

KEEP, BOOT, DROP = "keep", "boot", "drop"


@dataclass(frozen=True)
class Answer:
    """What a dropped function does when it is called: ``on_miss`` is ``return``, with ``number``, which the
    policy calls ``value``, or ``panic``, or ``stop``; or ``refuse``, for a system call, with ``value``.
    ``policy``: which one, or the builtin family, says so, or for a system call the function that answers."""

    function: str
    on_miss: str
    number: int
    value: str
    policy: str


@dataclass(frozen=True)
class Plan:
    """``keep[u]`` and ``reason[u]`` for every unit of one image; nothing else decides.

    ``boot``: mask of the kept units that go with the memory which the kernel frees when it has booted.
    ``named``: kallsyms has the names of tombstones. ``cold``: (object, section) -> the ranges of kept code
    that go. ``pieces``: what shared sections were taken apart into (:attr:`prune.model.image.Image.pieces`).
    ``answers``: (object, section) -> what the dropped function there does instead of trapping. ``stops``:
    (object, section) -> the places in cold ranges at which a lock may be held: the trap for such a one stops
    the machine.
    """

    arch: str
    build_id: str
    width: str
    objects: tuple[tuple[str, str], ...]
    units: Sequence[tuple[str, str, int]]
    keep: Rows
    boot: Rows
    reason: Sequence[str]
    pieces: Mapping[tuple[str, str], tuple[Piece, ...]]
    unused_rules: tuple[str, ...] = ()
    named: bool = False
    cold: Mapping[tuple[str, str], tuple[tuple[int, int], ...]] = field(default_factory=dict)
    answers: Mapping[tuple[str, str], Answer] = field(default_factory=dict)
    stops: Mapping[tuple[str, str], tuple[int, ...]] = field(default_factory=dict)


def save_plan(plan: Plan, path: Path) -> None:
    """Write ``plan.json``."""
    fates = np.where(plan.boot, BOOT, np.where(plan.keep, KEEP, DROP)).tolist()
    # As json.dumps() does it, in a fifth of the time.
    text = encode_basestring_ascii
    rows = [
        f"[{text(name)}, {text(section)}, {size}, {text(fate)}, {text(why)}]"
        for (name, section, size), fate, why in zip(plan.units, fates, plan.reason, strict=True)
    ]
    pieces = [
        json.dumps([*place, [[piece.name, piece.start, piece.size] for piece in parts]])
        for place, parts in plan.pieces.items()
    ]
    cold = [json.dumps([*place, ranges]) for place, ranges in plan.cold.items()]
    stops = [json.dumps([*place, offsets]) for place, offsets in plan.stops.items()]
    answers = [json.dumps([*place, *astuple(answer)]) for place, answer in plan.answers.items()]
    head = {
        "schema_version": SCHEMA, "arch": plan.arch, "build_id": plan.build_id, "width": plan.width,
        "unused_rules": list(plan.unused_rules), "named": plan.named,
        "columns": ["object", "section", "size", "fate", "reason"],
    }  # fmt: skip
    with whole_file(path) as stream:
        stream.write(json.dumps(head)[:-1])
        stream.write(
            ',\n"objects": {\n' + ",\n".join(json.dumps(o) + ": " + json.dumps(d) for o, d in plan.objects)
        )
        stream.write('\n},\n"pieces": [\n' + ",\n".join(pieces))
        stream.write('\n],\n"cold": [\n' + ",\n".join(cold))
        stream.write('\n],\n"stops": [\n' + ",\n".join(stops))
        stream.write('\n],\n"answers": [\n' + ",\n".join(answers))
        stream.write('\n],\n"units": [\n' + ",\n".join(rows) + "\n]}\n")


def load_plan(path: Path) -> Plan:
    """Read ``plan.json``.

    Raises:
        UserError: not a plan of this schema.
    """
    value = read_json(path, "plan", SCHEMA)
    try:
        rows = value["units"]
        return Plan(
            str(value["arch"]),
            str(value["build_id"]),
            str(value["width"]),
            tuple((name, str(digest)) for name, digest in value["objects"].items()),
            tuple((str(row[0]), str(row[1]), int(row[2])) for row in rows),
            np.array([{KEEP: True, BOOT: True, DROP: False}[row[3]] for row in rows], bool),
            np.array([row[3] == BOOT for row in rows], bool),
            tuple(str(row[4]) for row in rows),
            {
                (str(row[0]), str(row[1])): tuple(
                    Piece(str(n), int(start), int(size)) for n, start, size in row[2]
                )
                for row in value["pieces"]
            },
            tuple(map(str, value["unused_rules"])),
            bool(value["named"]),
            {
                (str(row[0]), str(row[1])): tuple((int(start), int(end)) for start, end in row[2])
                for row in value["cold"]
            },
            {(str(row[0]), str(row[1])): _answer(row[2:]) for row in value["answers"]},
            {(str(row[0]), str(row[1])): tuple(map(int, row[2])) for row in value["stops"]},
        )
    except MISSHAPEN as error:
        raise UserError(f"reading the plan: {path}: {error!r}", "make it again: kprune plan") from error


def _answer(row: Sequence[object]) -> Answer:
    function, on_miss, number, value, policy = row
    if on_miss not in (RETURN, PANIC, STOP, REFUSE) or not isinstance(number, int):
        raise ValueError(f"nothing answers like this: {on_miss} {number}")
    return Answer(str(function), str(on_miss), number, str(value), str(policy))
