"""``kprune import``: a trace's functions are found in this build, or it is refused and nothing is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prune.cli import main
from prune.plan.closure import watched
from tests.unit.test_read_drcov import drcov
from tests.unit.test_read_lcov import OLD as LCOV
from tests.unit.test_read_trace_stat import table
from tracer.elsewhere.matching import Kernels, Matched, match
from tracer.host import UserError
from tracer.profiles.profile import load_profile
from tracer.profiles.signatures import signatures
from tracer.profiles.symbols import Identity, Symbols, load_symbols
from tracer.readers.sightings import ForeignTrace, Sighting

BASE = 0xFFFFFFFF81000000
LONG = "a_function_whose_name_is_too_long"
#: (object, symbol, traceable), 16 bytes each.
PRODUCTION = [
    ("fs/open.o", "do_sys_open", True), ("fs/a.o", "init_once", True), ("fs/b.o", "init_once", True),
    ("k/t.o", "schedule", True), ("k/t.o", LONG, True), ("k/t.o", "leaf", False), ("k/t.o", "split", True),
    ("k/t.o", "split.cold", False), ("k/t.o", "kthreadd", True),
]  # fmt: skip
TRACED = [
    ("fs/open.o", "do_sys_open", True), ("fs/a.o", "init_once", True), ("k/t.o", "schedule", True),
    ("k/t.o", "split.isra.0", True), ("k/t.o", "only_traced", True),
]  # fmt: skip


def write_symbols(path: Path, kernel: str, rows: list[tuple[str, str, bool]]) -> None:
    functions = [
        [BASE + 16 * i, 16, obj, f".text.{name}", name, traceable]
        for i, (obj, name, traceable) in enumerate(rows)
    ]
    head = {"schema_version": 4, "kernel": kernel, "build_id": f"{kernel}-id", "config": "c", "source": "s"}
    path.parent.mkdir(parents=True)
    path.write_text(
        json.dumps({**head, "options": "", "version": "6.1", "entry": 0, "files": {}, "functions": functions})
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_symbols(tmp_path / "base/symbols.json", "production", PRODUCTION)
    write_symbols(tmp_path / "traced/symbols.json", "traced", TRACED)
    return tmp_path


@pytest.fixture
def kernels(folder: Path) -> Kernels:
    def load(side: str, kernel: str) -> Symbols:
        return load_symbols(folder / side / "symbols.json", kernel)

    return Kernels(load("base", "production"), load("traced", "traced"))


def found(kernels: Kernels, *sightings: Sighting, source: str = "ftrace", **more: Any) -> Matched:
    build_id = more.pop("build_id", "")
    return match(ForeignTrace(source, ("a",), sightings, build_id), kernels, **more)


def symbols(matched: Matched) -> dict[str, int | None]:
    return {f"{function.object}:{function.symbol}": hits for (function, _), hits in matched.hits.items()}


def kprune(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["import", *map(str, words)])
    return int(caught.value.code or 0)


# ---- matching


def test_names_of_another_kernel_are_matched_without_the_compilers_suffixes(kernels: Kernels) -> None:
    matched = found(kernels, Sighting("a", 3, "split.constprop.0"), Sighting("a", 1, "elsewhere"))
    assert symbols(matched) == {"k/t.o:split": 3, "k/t.o:split.cold": 3}
    assert (matched.kernel, matched.unmatched, matched.ambiguous) == ("another", {"elsewhere"}, frozenset())


def test_a_name_of_several_functions_keeps_them_all_and_is_counted(kernels: Kernels) -> None:
    matched = found(kernels, Sighting("a", 3, "init_once"))
    assert symbols(matched) == {"fs/a.o:init_once": None, "fs/b.o:init_once": None}
    assert matched.ambiguous == {"init_once"}
    both = found(kernels, Sighting("a", 3, "init_once"), Sighting("a", 1, "init_once"))
    assert not both.ambiguous  # as many rows as functions


def test_a_name_that_was_cut_is_completed(kernels: Kernels) -> None:
    assert symbols(found(kernels, Sighting("a", 3, LONG[:30], cut=True))) == {f"k/t.o:{LONG}": 3}


def test_the_traced_build_is_carried_to_production(kernels: Kernels) -> None:
    matched = found(
        kernels, Sighting("a", 3, "split.isra.0"), Sighting("a", 1, "only_traced"), build_id="traced-id"
    )
    assert symbols(matched) == {"k/t.o:split": 3, "k/t.o:split.cold": 3}
    assert matched.lost == {"k/t.o:only_traced"}


def test_addresses_need_a_kernel_and_find_the_function_around(kernels: Kernels) -> None:
    inside = Sighting("a", 1, address=BASE + 52)
    assert symbols(found(kernels, inside, of="production")) == {"k/t.o:schedule": 1}
    assert symbols(found(kernels, inside, of="traced")) == {"k/t.o:split": 1, "k/t.o:split.cold": 1}
    with pytest.raises(UserError, match="does not say of which kernel"):
        found(kernels, inside)
    with pytest.raises(UserError, match="none of its 1 names"):
        found(kernels, Sighting("a", 1, address=BASE + 4096), Sighting("a", 1, "nobody"), of="production")


def test_what_the_user_says_of_the_kernel_must_be_so(kernels: Kernels) -> None:
    with pytest.raises(UserError, match="is of build production"):
        found(kernels, Sighting("a", 1, "schedule"), build_id="production-id", of="traced")
    with pytest.raises(UserError, match="no traced kernel"):
        found(Kernels(kernels.production), Sighting("a", 1, "schedule"), of="traced")


def test_a_file_tells_functions_of_one_name_apart(kernels: Kernels) -> None:
    in_b = Sighting("a", 2, "init_once", file="/usr/src/linux-6.1/fs/b.c")
    matched = found(kernels, in_b, source="lcov")
    assert symbols(matched) == {"fs/b.o:init_once": 2} and not matched.ambiguous


# ---- from the command line


def test_formats_are_recognised_and_every_file_becomes_a_profile(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "function0").write_bytes(table([("schedule", 3), (LONG, 2)]))
    (folder / "kernel.info").write_text(LCOV)
    assert kprune(folder / "function0", folder / "kernel.info", "--into", folder, "--app", "web") == 0
    said = capsys.readouterr()
    assert "next: kprune plan" in said.err and "all apps" in said.out
    profile = load_profile(folder / "imports/function0.json")
    assert [(f.symbol, f.seen[0].app, f.seen[0].count) for f in profile.functions] == [
        (LONG, "web", 2), ("schedule", "web", 3)
    ]  # fmt: skip
    assert profile.kernel.build_id == "production-id" and profile.sources == ("trace_stat",)
    # The traced build speaks for a kernel that does not say what it cannot trace.
    assert {f.symbol for spot in profile.blind_spots for f in spot.functions} >= {"leaf"}
    assert [f.symbol for f in load_profile(folder / "imports/kernel.json").functions] == ["do_sys_open"]


def test_blocks_of_qemu_have_the_low_half_of_addresses(folder: Path) -> None:
    blocks = [(0x81000000 + 16 * i, 0) for i in (0, 3)]
    (folder / "blocks.drcov").write_bytes(drcov([(0, "system")], blocks, version=2))
    words = (folder / "blocks.drcov", "--into", folder, "--app", "web", "--of", "production")
    assert kprune(*words) == 0
    assert [f.symbol for f in load_profile(folder / "imports/blocks.json").functions] == [
        "do_sys_open", "schedule"
    ]  # fmt: skip


def test_a_boot_that_ftrace_watched_is_said_to_be_one(folder: Path) -> None:
    for rows, whole in (([("schedule", 3), ("kthreadd", 1)], True), ([("schedule", 3)], False)):
        (folder / "boot").write_bytes(table(rows))
        assert kprune(folder / "boot", "--into", folder, "--app", "boot") == 0
        profile = load_profile(folder / "imports/boot.json")
        assert profile.apps == () and profile.functions[0].seen[0].app == "boot"
        what = watched(profile, signatures(profile))
        assert what is not None and what.boot == whole and not what.complete


def test_json_is_for_scripts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "function0").write_bytes(table([("init_once", 3), ("gone", 2)]))
    assert kprune(folder / "function0", "--into", folder, "--app", "web", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["functions"], row["ambiguous"], row["unmatched"]) == (2, 1, 1)
    assert (row["kernel"], row["apps"], row["source"]) == ("another", {"web": 2}, "trace_stat")


def test_nothing_is_written_when_one_of_several_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "function0").write_bytes(table([("schedule", 3)]))
    (folder / "junk").write_text("what is this\n")
    assert kprune(folder / "function0", folder / "junk", "--into", folder, "--app", "web") == 2
    assert "junk: recognising the trace: it is none of" in capsys.readouterr().err
    assert not (folder / "imports").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("function0", "x/function0", "--into", "."), "another file would be"),
        (("function0", "other", "--into", ".", "--output", "p.json"), "cannot all become"),
        (("function0", "--into", "nowhere"), "it has no kernel"),
        (("gone", "--into", "."), "No such file"),
        (("function0", "--into", ".", "--format", "magic"), "no format 'magic'"),
    ],
)
def test_mistakes_are_one_clear_line(
    folder: Path, words: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    (folder / "x").mkdir()
    for name in ("function0", "x/function0", "other"):
        (folder / name).write_bytes(table([("schedule", 3)]))
    assert kprune(*words, "--app", "web") == 2
    assert says in capsys.readouterr().err
    assert not (folder / "imports").exists()


def test_a_name_cannot_lead_elsewhere(folder: Path) -> None:
    (folder / "..sneaky name.txt").write_bytes(table([("schedule", 3)]))
    assert kprune(folder / "..sneaky name.txt", "--into", folder, "--app", "web") == 0
    assert [path.name for path in (folder / "imports").iterdir()] == ["_sneaky_name.json"]


def test_identity_is_that_of_production(kernels: Kernels) -> None:
    matched = found(kernels, Sighting("a", 1, "do_sys_open"), build_id="traced-id")
    assert matched.hits == {(Identity("fs/open.o", ".text.do_sys_open", "do_sys_open"), "a"): 1}
