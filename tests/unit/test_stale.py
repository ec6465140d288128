"""Profiles of other builds: refused by name, or carried over with everything that does not fit counted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tracer.host import UserError
from tracer.profile import BlindSpot, FunctionRecord, KernelId, Profile, Seen
from tracer.stale import accept
from tracer.symbols import Identity, Symbols, make_symbols

SEEN = (Seen("web", "blocks", 2),)
PROFILE = Profile(
    kernel=KernelId("old" * 10, "config", "source", "6.1.1"),
    traced_build_id="",
    workload_name="micro",
    workload_hash="",
    apps=("web",),
    sources=("blocks",),
    files=(("a.o", "1"), ("b.o", "2")),
    functions=(
        FunctionRecord("a.o", ".text.f.isra.0", "f.isra.0", SEEN, 0b1),
        FunctionRecord("a.o", ".text.gone", "gone", SEEN, 0b1),
        FunctionRecord("b.o", ".text.g", "g", SEEN, 0b1),
    ),
    blind_spots=(BlindSpot("ftrace", "no site", (Identity("b.o", ".text.g", "g"),)),),
    ambiguous=(),
    unmatched=(),
    runs=(),
)


def symbols(build_id: str = "new" * 10) -> Symbols:
    rows = [[i, 1, obj, f".text.{n}", n, True] for i, (obj, n) in enumerate([("a.o", "f"), ("b.o", "g")])]
    made = make_symbols("production", build_id, rows)
    return replace(made, config="config", source="other", version="6.1.2", files={"a.o": "1", "b.o": "3"})


def test_the_same_build_is_taken_as_it_is() -> None:
    assert accept(PROFILE, symbols("old" * 10), False, "planning") == (PROFILE, None)


def test_another_build_is_refused_with_what_differs_and_the_way_out() -> None:
    with pytest.raises(UserError) as caught:
        accept(PROFILE, symbols(), False, "reading the profile p.json")
    said = str(caught.value)
    assert said.startswith("reading the profile p.json: it is of build oldoldoldold")
    assert "another source, the same config, 1 source files that ran have changed (b.o" in said
    assert "--accept-stale-profile" in said and "\n" not in said


def test_carried_over_by_object_and_base_symbol() -> None:
    made, stale = accept(PROFILE, symbols(), True, "planning")
    assert [(f.object, f.symbol) for f in made.functions] == [("a.o", "f"), ("b.o", "g")]
    assert all(f.seen == SEEN and f.runs == 1 for f in made.functions)
    assert made.kernel.build_id == "new" * 10 and made.unmatched == ("a.o:gone",)
    assert made.files == (("a.o", "1"), ("b.o", "3"))
    assert stale is not None
    assert (stale.carried, stale.lost, stale.changed) == (2, ("a.o:gone",), ("b.o",))
    assert (stale.config, stale.source) == ("same", "differs")


def test_what_is_not_known_is_not_called_the_same() -> None:
    foreign = replace(PROFILE, kernel=KernelId("x", "", "", ""))
    _, stale = accept(foreign, symbols(), True, "planning")
    assert stale is not None and (stale.config, stale.source) == ("unknown", "unknown")
