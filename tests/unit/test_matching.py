"""Matching where it is not plain: cut names, aliases, odd addresses, and nothing is ever lost unsaid."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_imported import found, symbols
from tracer.elsewhere.matching import Kernels, match
from tracer.host import UserError
from tracer.profiles.symbols import Symbols, make_symbols
from tracer.readers.sightings import ForeignTrace, Sighting

BASE = 0xFFFFFFFF81000000
LONG = "begins_with_thirty_characters_"
INNER = LONG[:26]
#: (offset, size, object, symbol, traceable)
PRODUCTION = [
    (0, 0x10, "a.o", "first", True), (0x10, 0x10, "a.o", f"{LONG}one", True),
    (0x20, 0x10, "b.o", f"{LONG}two.isra.0", True), (0x30, 0x10, "b.o", f"{INNER}.constprop.0", True),
    # One place: an alias, and a symbol within a function of assembly.
    (0x40, 0x20, "c.o", "memcpy", False), (0x40, 0x20, "c.o", "__memcpy", False),
    (0x50, 0x10, "c.o", "memcpy_tail", False),
    # A static function with the name of a traceable one.
    (0x60, 0x10, "d.o", "twin", False), (0x70, 0x10, "e.o", "twin", True),
    (0x80, 0x10, "kernel/fork.o", "copy", True), (0x90, 0x10, "drivers/x/fork.o", "copy", True),
]  # fmt: skip


def build(kernel: str, rows: list[tuple[int, int, str, str, bool]]) -> Symbols:
    made = [[BASE + at, size, where, f".text.{name}", name, flag] for at, size, where, name, flag in rows]
    return make_symbols(kernel, f"{kernel}-id", made)


OURS = Kernels(build("production", PRODUCTION))
BOTH = Kernels(OURS.production, build("traced", [(0, 16, "a.o", "inlined", True), *PRODUCTION[1:3]]))


def names(*sightings: Sighting, kernels: Kernels = OURS, **more: object) -> set[str]:
    return {name.partition(":")[2] for name in symbols(found(kernels, *sightings, **more))}


CUT = Sighting("a", 1, LONG[:30], cut=True)


def test_a_cut_name_stands_for_all_that_begin_so() -> None:
    matched = found(OURS, CUT)
    assert symbols(matched) == {f"a.o:{LONG}one": None, f"b.o:{LONG}two.isra.0": None}
    assert matched.ambiguous == {LONG[:30]}
    assert names(CUT, build_id="production-id") == {f"{LONG}one", f"{LONG}two.isra.0"}


def test_the_full_names_of_the_kernel_that_ran_complete_a_cut_one() -> None:
    matched = found(OURS, CUT, full_names=["first", f"{LONG}two"])
    assert symbols(matched) == {f"b.o:{LONG}two.isra.0": 1} and not matched.ambiguous
    assert names(CUT, full_names=["something_else"]) == {f"{LONG}one", f"{LONG}two.isra.0"}


def test_a_name_that_was_cut_within_its_suffix_is_whole() -> None:
    assert names(Sighting("a", 1, f"{INNER}.part", cut=True)) == {f"{INNER}.constprop.0"}


def test_aliases_are_one_place() -> None:
    matched = found(OURS, Sighting("a", 5, address=BASE + 0x44), source="perf", of="production")
    assert symbols(matched) == {"c.o:memcpy": 5, "c.o:__memcpy": 5} and not matched.ambiguous
    inside = Sighting("a", 1, address=BASE + 0x54)
    assert names(inside, source="perf", of="production") == {"memcpy", "__memcpy", "memcpy_tail"}


def test_ftrace_cannot_have_seen_what_it_cannot_trace() -> None:
    twin = Sighting("a", 1, "twin")
    assert symbols(found(OURS, twin, build_id="production-id")) == {"e.o:twin": 1}
    # Of another kernel we do not know what it could trace; and perf sees everything.
    assert set(symbols(found(OURS, twin))) == {"d.o:twin", "e.o:twin"}
    assert len(symbols(found(OURS, twin, source="perf", build_id="production-id"))) == 2


@pytest.mark.parametrize(
    ("file", "objects"),
    [
        ("/src/linux/kernel/fork.c", {"kernel/fork.o"}), ("drivers/x/fork.c", {"drivers/x/fork.o"}),
        ("/src/include/linux/fork.h", {"kernel/fork.o", "drivers/x/fork.o"}),
        ("..", {"kernel/fork.o", "drivers/x/fork.o"}), ("/", {"kernel/fork.o", "drivers/x/fork.o"}),
    ],
)  # fmt: skip
def test_a_source_file_says_which_object(file: str, objects: set[str]) -> None:
    matched = found(OURS, Sighting("a", 1, "copy", file=file), source="lcov")
    assert {function.object for function, _ in matched.hits} == objects
    assert bool(matched.ambiguous) == (len(objects) > 1)


def test_an_odd_address_among_names_is_counted_not_fatal() -> None:
    """Trampolines have no symbol: trace-cmd has them by address, and one of them refused the whole trace."""
    matched = found(
        OURS, Sighting("a", 1, "first"), Sighting("a", 1, address=BASE + 0x44), source="trace-cmd"
    )
    assert symbols(matched) == {"a.o:first": 1}
    assert matched.unmatched == {hex(BASE + 0x44)}


def test_only_blocks_have_half_an_address() -> None:
    low = Sighting("a", 1, address=0x81000004)
    assert names(low, source="drcov", of="production") == {"first"}
    with pytest.raises(UserError, match="none of its"):
        found(OURS, low, source="perf", of="production")


def test_blocks_of_a_kernel_that_was_loaded_elsewhere_are_refused() -> None:
    many = build("production", [(16 * i, 16, "a.o", f"f{i}", True) for i in range(40)])
    blocks = [Sighting("a", None, address=BASE + 16 * i) for i in range(30)]
    assert len(names(*blocks, kernels=Kernels(many), source="drcov", of="production")) == 30
    moved = [Sighting("a", None, address=each.address + 4) for each in blocks]
    with pytest.raises(UserError, match=r"first block of only 0; .*nokaslr"):
        found(Kernels(many), *moved, source="drcov", of="production")


def test_what_only_the_traced_build_has_is_no_profile() -> None:
    with pytest.raises(UserError, match="is in this kernel"):
        found(BOTH, Sighting("a", 1, "inlined"), build_id="traced-id")


def test_counts_are_added_over_the_rows_of_a_name() -> None:
    assert symbols(found(OURS, Sighting("a", 2, "first"), Sighting("a", 3, "first"))) == {"a.o:first": 5}
    matched = match(
        ForeignTrace("ftrace", ("a", "b"), (Sighting("a", 2, "first"), Sighting("b", None, "first"))), OURS
    )
    assert {app: hits for (_, app), hits in matched.hits.items()} == {"a": 2, "b": None}


LABELS = st.sampled_from([row[3] for row in PRODUCTION] + ["unknown", "x.", ".", LONG[:30], "copy.cold.7"])
ADDRESSES = st.one_of(
    st.integers(BASE - 8, BASE + 0xA8), st.sampled_from([1, 1 << 32, (1 << 64) - 1, 1 << 64, 1 << 80])
)
SIGHTINGS = st.one_of(
    st.builds(
        Sighting,
        st.just("a"),
        st.integers(0, 9),
        LABELS,
        st.sampled_from(["", "a.c", "//"]),
        cut=st.booleans(),
    ),
    st.builds(Sighting, st.just("a"), st.none(), address=ADDRESSES),
)
SOURCES = st.sampled_from(["ftrace", "trace-cmd", "perf", "drcov", "lcov"])


@given(st.lists(SIGHTINGS, max_size=8), SOURCES, st.sampled_from(["", "production", "traced"]))
def test_every_name_is_matched_or_said_to_be_unmatched(
    sightings: list[Sighting], source: str, of: str
) -> None:
    try:
        matched = match(ForeignTrace(source, ("a",), tuple(sightings)), BOTH, of)
    except UserError as error:
        assert str(error).startswith("matching the trace") and "\n" not in str(error)
        return
    assert matched.hits and {function for function, _ in matched.hits} <= set(BOTH.production.functions)
    assert matched.names >= {each.name for each in sightings if each.name}
    assert matched.unmatched <= matched.names and matched.ambiguous <= matched.names - matched.unmatched
    whole = {function.symbol for function in BOTH.production.functions}
    for each in sightings:
        if each.name in whole and not of and not each.cut:
            assert any(function.symbol == each.name for function, _ in matched.hits)


def test_a_trace_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="none of its 0 names"):
        match(ForeignTrace("perf", (), ()), OURS)
