"""Read everything that verify proves a pruned kernel by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from prune.verify.answers import Judge, read_option, read_planned, thunk_of
from prune.verify.apart import take_apart
from prune.verify.decode import Decoder
from prune.verify.elf import read_linked
from prune.verify.model import Model
from prune.verify.read import (
    Fates,
    LinkMap,
    read_facts,
    read_fates,
    read_map,
    read_stones,
    read_trimmed,
    relocation_widths,
)
from prune.verify.trim import Outcome, take_out
from prune.verify.wide import read_object
from tracer.host import say


def _with_own_names(link_map: LinkMap, fates: Fates) -> LinkMap:
    """The map with what is freed after boot called as in its object."""
    original = {}
    for name, section in fates.freed:
        for group in (".init.text", ".init.data"):
            original[name, group + section] = section
    pieces = tuple(
        replace(piece, section=original.get((piece.object, piece.section), piece.section))
        for piece in link_map.pieces
    )
    return replace(link_map, pieces=pieces)


def load_model(
    vmlinux: Path, link_map: Path, plan: Path, tombstones: Path, objtree: Path, arch: str
) -> Model:
    """Read everything.

    Raises:
        UserError: a file is missing or damaged.
    """
    linked = read_linked(vmlinux)
    facts = read_facts(arch, linked.word)
    placed = read_map(link_map, linked)
    fates = read_fates(plan)
    placed = _with_own_names(placed, fates)
    stones, planned = read_stones(tombstones), read_planned(plan)
    marked = bool(planned) and read_option(objtree / ".config", facts["answer"]["landing"]["option"])
    if len(fates.objects) > 100:
        say(f"verify: reading {len(fates.objects):,} objects")
    operands, widths, decoder = facts["relocations"]["pc32"], relocation_widths(facts), Decoder(facts)
    trimmed, outcome = read_trimmed(tombstones, fates), Outcome()
    objects = {
        name: take_out(
            take_apart(read_object(objtree, name, widths), fates.pieces.get(name, {}), operands, decoder),
            trimmed.get(name, {}), facts, outcome, decoder,
        )
        for name in fates.objects
    }  # fmt: skip
    thunk = thunk_of(objects.values(), facts["answer"]["thunk"]) if planned else ""
    checked = any(read_option(objtree / ".config", each) for each in facts["answer"]["refused"] if planned)
    places = frozenset(stone.address for stone in stones)
    judge = Judge(linked, decoder, facts, planned, marked, thunk, checked, places)
    model = Model(linked, placed, objects, fates, stones, facts, outcome, decoder, judge)
    for name, sections in trimmed.items():
        for section, each in sections.items():
            piece = model.piece_of.get((name, section))
            lies = piece is not None and piece.address == each.address
            outcome.expect(lies, f"{name}:{section} does not lie where its traps are said to be")
    return model
