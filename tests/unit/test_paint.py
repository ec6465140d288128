"""Rows of a link map are counted once, byte by byte, whatever ld says of constants that it merged."""

from __future__ import annotations

from prune.ledger.paint import true_sizes
from prune.model.linkmap import Fill, LinkMap, Output, Placed


def sizes(*rows: Placed, fills: tuple[Fill, ...] = ()) -> tuple[list[int], list[int]]:
    made = true_sizes(LinkMap(rows, ("a.o",), frozenset(), (Output(".rodata", 0x1000, 0x100),), fills))
    return [row.size for row in made.placed], [each.size for each in made.fills]


def test_a_merged_row_that_overlaps_what_follows_counts_what_is_left() -> None:
    merged = Placed("a.o", ".rodata.str1.1", 0x1000, 0x40, ".rodata")
    assert sizes(merged, Placed("a.o", ".rodata.x", 0x1010, 0x10, ".rodata")) == ([0x30, 0x10], [])


def test_two_copies_of_one_constant_are_one() -> None:
    one, other = (Placed(name, ".rodata.cst8", 0x1000, 8, ".rodata") for name in ("a.o", "b.o"))
    assert sizes(one, other) == ([8, 0], [])


def test_alignment_comes_before_what_was_merged() -> None:
    merged = Placed("a.o", ".rodata.str1.8", 0x1000, 0x20, ".rodata")
    assert sizes(merged, fills=(Fill(".rodata", 0x1018, 8, False),)) == ([0x18], [8])


def test_what_lies_in_no_section_of_the_image_stays_as_it_is() -> None:
    assert sizes(Placed("a.o", ".comment", 0, 0x20, ".comment")) == ([0x20], [])


def test_a_row_beyond_its_section_counts_what_is_inside() -> None:
    assert sizes(Placed("a.o", ".rodata.x", 0x10F8, 0x10, ".rodata")) == ([8], [])
