"""Laws of the profiles' algebra: who saw what survives it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.host import UserError
from tracer.profiles.algebra import by_app, diff, function_sizes, intersect, merge, shares, subtract, without
from tracer.profiles.profile import FunctionRecord, KernelId, Profile, Run, Seen, load_profile, save_profile
from tracer.profiles.symbols import Identity, make_symbols

KERNEL = KernelId("aa", "c", "s", "6.1")
RUN = Run("blocks-1", "blocks", 1 << 20, 0, (), "powered off", 1.0, 0, 0, 0)
APPS = ("boot", "ps", "web", "shutdown")


def profile(functions: dict[str, list[tuple[str, int | None]]], runs: int = 1) -> Profile:
    """Functions f of a.o, each seen by (app, count) in block coverage and by every run."""
    made = tuple(
        FunctionRecord(
            "a.o",
            f".text.{name}",
            name,
            tuple(sorted(Seen(app, "blocks", n) for app, n in seen)),
            (1 << runs) - 1,
        )
        for name, seen in sorted(functions.items())
    )
    return Profile(
        KERNEL, "bb", "w", "h", ("ps", "web"), ("blocks",), (("a.o", "1"),), made, (), (), (), (RUN,) * runs
    )


counts = st.one_of(st.none(), st.integers(0, 9))
seen = st.dictionaries(st.sampled_from(APPS), counts, min_size=1).map(lambda found: sorted(found.items()))
profiles = st.builds(
    profile, st.dictionaries(st.sampled_from("fghijk"), seen, max_size=6), st.integers(1, 3)
)  # fmt: skip


def names(made: Profile) -> set[str]:
    return {function.symbol for function in made.functions}


def test_merge_adds_up() -> None:
    one = profile({"f": [("boot", 3), ("web", None)]})
    merged = merge([one, one])
    assert merged.functions[0].seen == (Seen("boot", "blocks", 6), Seen("web", "blocks", None))
    assert merged.functions[0].runs == 0b11
    assert [run.new for run in merged.runs] == [1, 0]


def test_profiles_of_other_builds_do_not_mix() -> None:
    one = profile({"f": [("web", 1)]})
    other = replace(one, kernel=replace(KERNEL, build_id="zz"))
    for work in (
        lambda: merge([one, other]), lambda: intersect([one, other]), lambda: subtract(one, [other]),
        lambda: diff(one, other),
    ):  # fmt: skip
        with pytest.raises(UserError, match="of build zz"):
            work()
    with pytest.raises(UserError, match="there are none"):
        merge([])


@given(profiles, profiles, profiles)
def test_laws(a: Profile, b: Profile, c: Profile) -> None:
    assert merge([a, b, c]).functions == merge([merge([a, b]), c]).functions
    assert names(merge([a, b])) == names(merge([b, a])) == names(a) | names(b)
    assert names(intersect([a, b])) == names(a) & names(b)
    assert names(subtract(a, [b])) == names(a) - names(b)
    assert names(subtract(a, [b])) | names(intersect([a, b])) == names(a)
    found = diff(a, b)
    assert {f.symbol for f in found.only_first} == names(a) - names(b)
    assert {f.symbol for f in found.both} == names(a) & names(b)
    for function in subtract(a, [b]).functions:
        assert function in a.functions


@given(profiles, profiles)
def test_runs_follow_their_functions(a: Profile, b: Profile) -> None:
    merged = merge([a, b])
    assert len(merged.runs) == len(a.runs) + len(b.runs)
    masks = {function.symbol: function.runs for function in merged.functions}
    for function in a.functions:
        assert masks[function.symbol] & ((1 << len(a.runs)) - 1) == function.runs
    for function in b.functions:
        assert masks[function.symbol] >> len(a.runs) == function.runs
    assert sum(run.new for run in merged.runs) == len(merged.functions)


@given(profiles)
def test_dropping_an_app_buys_its_marginal_functions(a: Profile) -> None:
    share = {row.app: row for row in shares(a, None)}
    for app in a.apps:
        left = without(a, [app])
        lost = len(a.functions) - len(left.functions)
        assert lost == (share[app].marginal_functions if app in share else 0)
        assert app not in by_app(left) and app not in left.apps


@given(profiles)
def test_what_is_made_can_be_written_and_read(tmp_path_factory: pytest.TempPathFactory, a: Profile) -> None:
    path: Path = tmp_path_factory.mktemp("profiles") / "p.json"
    for made in (merge([a, a]), without(a, ["web"]), subtract(a, [])):
        save_profile(made, path)
        assert load_profile(path) == made


def test_bytes_of_aliases_count_once() -> None:
    rows = [
        [0, 8, "a.o", ".text.f", "f", True],
        [0, 8, "a.o", ".text.f", "g", True],
        [8, 4, "a.o", ".t", "h", True],
    ]
    sizes = function_sizes(make_symbols("production", "aa", rows))
    assert sizes[Identity("a.o", ".text.f", "f")] + sizes[Identity("a.o", ".text.f", "g")] == 8
    found = shares(profile({"f": [("web", 1)], "g": [("web", 1), ("boot", 1)]}), sizes)
    assert [(row.app, row.functions, row.bytes, row.marginal_functions) for row in found] == [
        ("boot", 1, 0, 0), ("web", 2, 8, 1), ("", 2, 8, 2),
    ]  # fmt: skip


def test_an_app_that_is_not_there() -> None:
    with pytest.raises(UserError, match="no such app; it has ps, web"):
        without(profile({"f": [("web", 1)]}), ["wed"])
