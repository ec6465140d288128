"""Profiles of other builds: refused by name, or carried over with everything that does not fit counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tracer.host import UserError
from tracer.profiles.profile import BlindSpot, FunctionRecord, KernelId, Profile, Seen
from tracer.profiles.stale import accept
from tracer.profiles.symbols import Identity, Symbols, make_symbols

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


NAMES = (("a.o", "f"), ("b.o", "g"))


def symbols(build_id: str = "new" * 10, names: Sequence[tuple[str, str]] = NAMES) -> Symbols:
    rows = [[i, 1, obj, f".text.{n}", n, True] for i, (obj, n) in enumerate(names)]
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


def test_another_compiler_s_profile_of_the_same_program_is_taken() -> None:
    theirs = replace(PROFILE, kernel=KernelId("old" * 10, "gcc's config", "source", "6.1.1", "options"))
    ours = replace(symbols(), source="source", files={}, options="options")
    made, stale = accept(theirs, ours, False, "planning")
    assert stale is not None and stale.moved and stale.config == "differs" and stale.carried == 2
    assert str(stale) == "the same source and options, another compiler or linker"
    assert stale.matched() == "2 of the 3 functions that ran are functions here"
    assert made.moved_from == ("old" * 10,) and made.references is None
    with pytest.raises(UserError, match="another source"):
        accept(theirs, replace(ours, source="newer"), False, "planning")
    with pytest.raises(UserError, match="--accept-stale-profile"):
        accept(theirs, replace(ours, options=""), False, "planning")


def test_what_was_carried_over_once_is_not_carried_on() -> None:
    made, _ = accept(PROFILE, symbols(), True, "planning")
    for build in ("third", "new" * 10):  # not even to where it was carried
        with pytest.raises(UserError, match="carried over from build oldoldoldold"):
            accept(made, symbols(build), True, "planning")


def test_bytes_that_ran_are_counted_where_they_are_known() -> None:
    ran = tuple(f._replace(ran=((0, 10 * i),)) for i, f in enumerate(PROFILE.functions, 1))
    _, stale = accept(replace(PROFILE, functions=ran), symbols(), True, "planning")
    assert stale is not None and (stale.ran_bytes, stale.carried_bytes) == (60, 40)
    assert stale.matched().endswith("functions here, 66.7% of the bytes that ran")


@pytest.mark.parametrize("suffix", ["", ".1234", ".llvm.5678901234", ".llvm.5678901234.9"])
def test_with_lto_all_code_is_in_one_object_and_names_decide(suffix: str) -> None:
    made, stale = accept(PROFILE, symbols(names=[("vmlinux.o", f"f{suffix}"), ("vmlinux.o", "x")]), True, "p")
    assert [(f.object, f.symbol) for f in made.functions] == [("vmlinux.o", f"f{suffix}")]
    assert stale is not None and stale.lost == ("a.o:gone", "b.o:g") and stale.ambiguous == 0


def test_of_an_ambiguous_name_all_are_kept_and_it_is_counted() -> None:
    made, stale = accept(PROFILE, symbols(names=[("vmlinux.o", n) for n in ("f", "f.7", "g")]), True, "p")
    assert [f.symbol for f in made.functions] == ["f", "f.7", "g"]
    assert made.ambiguous == ("f",) and stale is not None and stale.ambiguous == 1


def test_parts_of_one_function_are_not_ambiguous() -> None:
    names = [("a.o", n) for n in ("f", "f.cold", "f.part.0.cold")]
    made, stale = accept(PROFILE, symbols(names=names), True, "p")
    assert len(made.functions) == 3 and stale is not None and stale.ambiguous == 0


def test_from_one_object_to_many_names_decide_too() -> None:
    theirs = replace(PROFILE, functions=(FunctionRecord("vmlinux.o", ".text.f.9", "f.9", SEEN),))
    made, _ = accept(theirs, symbols(), True, "p")
    assert [(f.object, f.symbol) for f in made.functions] == [("a.o", "f")]


def test_an_object_that_both_builds_have_decides() -> None:
    """A static function of the same name in another object is another function."""
    made, _ = accept(PROFILE, symbols(names=[("a.o", "x"), ("b.o", "f"), ("b.o", "g")]), True, "p")
    assert [(f.object, f.symbol) for f in made.functions] == [("b.o", "g")]


def test_what_is_not_known_is_not_called_the_same() -> None:
    foreign = replace(PROFILE, kernel=KernelId("x", "", "", ""))
    _, stale = accept(foreign, symbols(), True, "planning")
    assert stale is not None and (stale.config, stale.source) == ("unknown", "unknown")
