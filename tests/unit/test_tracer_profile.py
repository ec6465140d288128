"""The profile file: round trip, hostile input; and the carrying of functions to production."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.host import UserError
from tracer.profiles.identity import Carrier, base_symbol
from tracer.profiles.profile import (
    BlindSpot,
    FunctionRecord,
    KernelId,
    Profile,
    Run,
    Seen,
    load_profile,
    save_profile,
)
from tracer.profiles.references import References
from tracer.profiles.symbols import Identity, make_symbols

PROFILE = Profile(
    kernel=KernelId("aa", "config", "source", "6.1"),
    traced_build_id="bb",
    workload_name="micro",
    workload_hash="cc",
    apps=("web",),
    sources=("ftrace", "blocks", "heal"),
    files=(("net/a.o", "0123"),),
    functions=(
        FunctionRecord(
            "net/a.o", ".text.f", "f", (Seen("boot", "blocks", 3), Seen("web", "ftrace", 10)), 0b1
        ),
        FunctionRecord("net/a.o", ".text.g", "g", (Seen("web", "ftrace", None),)),
        FunctionRecord("net/a.o", ".text.m", "m", (Seen("web", "heal", 2, "g"),)),
    ),
    blind_spots=(BlindSpot("ftrace", "no site", (Identity("net/a.o", ".text.h", "h"),)),),
    ambiguous=("init_once",),
    unmatched=("net/a.o:gone",),
    runs=(Run("blocks-1", "blocks", 128 << 20, 7, ("-icount", "1"), "powered off", 4.5, 2, 2, 0),),
    references=References(
        (("mm/b.o", ("x",)), ("net/a.o", ("f",)), ("net/a.o", ("g", "h"))), ((), (0, 2), (1,))
    ),
    moved_from=("dd",),
)


def test_round_trip_and_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    save_profile(PROFILE, path)
    first = path.read_bytes()
    assert load_profile(path) == PROFILE
    save_profile(load_profile(path), path)
    assert path.read_bytes() == first


def test_a_file_of_an_older_kprune_is_read(tmp_path: Path) -> None:
    value = as_json(tmp_path)
    del value["references"], value["moved_from"], value["kernel"]["options"]
    (tmp_path / "old.json").write_text(json.dumps({**value, "schema_version": 4}))
    assert load_profile(tmp_path / "old.json") == replace(PROFILE, references=None, moved_from=())


@pytest.mark.parametrize(
    "change",
    [
        {"refers": ["", "0", "3"]},  # there is no function 3
        {"refers": ["", "-1", ""]},
        {"refers": ["", ""]},
        {"functions": {"net/a.o": ["f"], "mm/b.o": ["x"], "z.o": ["y"]}},  # numbers would mean others
        {"functions": {"mm/b.o": ["x", "", "y"]}},
    ],
)
def test_references_that_lead_nowhere_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    value = as_json(tmp_path)
    value["references"] |= change
    (tmp_path / "bad.json").write_text(json.dumps(value))
    with pytest.raises(UserError, match="is damaged"):
        load_profile(tmp_path / "bad.json")


def as_json(tmp_path: Path) -> Any:
    save_profile(PROFILE, tmp_path / "good.json")
    return json.loads((tmp_path / "good.json").read_text())


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(path for key, item in items for path in paths(item, (*at, key)))]


@pytest.mark.parametrize("hostile", [None, True, -1, {}, [[]], "x" * 5])
def test_every_field_is_checked(tmp_path: Path, hostile: Any) -> None:
    """Put something wrong at every place of the file; it is refused or it is another valid profile."""
    good = as_json(tmp_path)
    bad = tmp_path / "bad.json"
    for path in paths(good)[1:]:
        value = copy.deepcopy(good)
        place = value
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = hostile
        bad.write_text(json.dumps(value))
        try:
            save_profile(load_profile(bad), tmp_path / "again.json")
        except UserError as error:
            assert "bad.json" in str(error)
            assert "\n" not in str(error)


@given(st.binary(max_size=200))
def test_noise_is_a_user_error(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    path = tmp_path_factory.mktemp("noise") / "profile.json"
    path.write_bytes(noise)
    with pytest.raises(UserError):
        load_profile(path)


def test_missing_and_extra_keys(tmp_path: Path) -> None:
    good = as_json(tmp_path)
    path = tmp_path / "profile.json"
    for change in ({"extra": 1}, {"functions": [*good["functions"], good["functions"][0]]}):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(UserError, match="damaged"):
            load_profile(path)


@pytest.mark.parametrize(
    ("symbol", "base"),
    [
        ("foo", "foo"),
        ("foo.isra.0", "foo"),
        ("foo.constprop.0.isra.12", "foo"),
        ("foo.part.0.cold", "foo"),
        ("foo.cold.3", "foo"),
        ("foo.isra", "foo"),
        ("cold", "cold"),
        ("foo.island", "foo.island"),
    ],
)
def test_base_symbol(symbol: str, base: str) -> None:
    assert base_symbol(symbol) == base


def test_variants_follow_their_function() -> None:
    names = ["foo", "foo.isra.0", "foo.cold", "foobar"]
    rows: list[list[Any]] = [[i, 1, "a.o", f".text.{n}", n, True] for i, n in enumerate(names)]
    rows.append([9, 1, "b.o", ".text.foo", "foo", True])
    carrier = Carrier(make_symbols("production", "id", rows))
    carried = carrier.carry(Identity("a.o", ".text.foo.part.0", "foo.part.0"))
    assert [function.symbol for function in carried] == ["foo", "foo.isra.0", "foo.cold"]
    assert {function.object for function in carried} == {"a.o"}
    assert carrier.carry(Identity("a.o", ".text.gone", "gone")) == []
    missing = carrier.missing_from([Identity("a.o", "", "foo"), Identity("b.o", "", "foo")])
    assert [function.symbol for function in missing] == ["foobar"]
