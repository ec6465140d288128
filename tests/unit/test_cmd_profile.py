"""``kprune profile`` from the command line: data on stdout, talk on stderr, clear refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prune.cli import main
from tests.unit.test_algebra import KERNEL, profile
from tracer.profiles.profile import KernelId, load_profile, save_profile


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's folder with a profile and the kernel's symbols, and two profiles beside it."""
    rows = [[16 * i, 16, "a.o", f".text.{name}", name, True] for i, name in enumerate("fgh")]
    head = {"schema_version": 4, "kernel": "production", "build_id": "aa", "config": "c", "source": "s"}
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "symbols.json").write_text(
        json.dumps({**head, "options": "o", "version": "6.1", "entry": 0, "files": {}, "functions": rows})
    )
    save_profile(profile({"f": [("ps", 1), ("web", 1)], "g": [("web", 2)]}), tmp_path / "profile.json")
    save_profile(profile({"f": [("ps", 1)], "h": [("ps", 2)]}), tmp_path / "two.json")
    other = replace(profile({"f": [("ps", 1)]}), kernel=replace(KERNEL, build_id="zz"))
    save_profile(other, tmp_path / "other.json")
    return tmp_path


def kprune(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["profile", *map(str, words)])
    return int(caught.value.code or 0)


def said(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_what_each_app_brings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kprune("show", folder, "--json") == 0
    rows = {row["app"]: row for row in said(capsys)["shares"]}
    assert (rows["web"]["functions"], rows["web"]["bytes"]) == (2, 32)
    assert (rows["web"]["marginal_functions"], rows["web"]["marginal_bytes"]) == (1, 16)
    assert (rows["ps"]["marginal_functions"], rows[""]["functions"]) == (0, 2)
    assert kprune("show", folder) == 0
    assert "only it" in capsys.readouterr().out
    assert kprune("show", folder, "--app", "web", "--json") == 0
    assert [row["symbol"] for row in said(capsys)] == ["g"]
    assert kprune("show", folder, "--app", "wed") == 2
    assert "it has ps, web" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (("merge", ".", "two.json"), "fgh"), (("intersect", ".", "two.json"), "f"),
        (("subtract", ".", "two.json"), "g"), (("without", ".", "--app", "web"), "f"),
    ],
)  # fmt: skip
def test_profiles_are_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...], left: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    assert kprune(*words, "-o", "made.json") == 0
    assert [function.symbol for function in load_profile(Path("made.json")).functions] == list(left)
    assert "next: kprune plan" in capsys.readouterr().err
    assert kprune(*words) == 0
    assert [function["symbol"] for function in said(capsys)["functions"]] == list(left)


def test_differences(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kprune("diff", folder, folder / "two.json") == 0
    out = capsys.readouterr().out
    assert "- g (a.o)" in out and "+ h (a.o)" in out
    assert kprune("diff", folder, folder / "two.json", "--json") == 0
    assert said(capsys)["apps"]["ps"] == [0, 1, 1]


def test_how_much_fits_another_build(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In this folder's build there are f, g and h of a.o, and not what the profile has besides."""
    theirs = profile({"f.isra.0": [("ps", 1)], "inlined": [("ps", 1)]})
    theirs = replace(theirs, kernel=KernelId("zz", "c2", "s", "6.1", "o"))
    save_profile(theirs, folder / "theirs.json")
    assert kprune("match", folder / "theirs.json", folder) == 0
    out = capsys.readouterr().out
    assert out.startswith(
        "the same source and options, another compiler or linker: "
        "1 of the 2 functions that ran are functions here\n"
    )
    assert "does not say what functions of its build refer to" in out and "unmatched: inlined (a.o)" in out
    assert kprune("match", folder / "theirs.json", folder, "--json") == 0
    assert (value := said(capsys))["lost"] == ["a.o:inlined"] and value["carried"] == 1
    assert kprune("match", folder, folder) == 0
    assert "of this very build" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("merge", "two.json", "other.json"), "of build zz"), (("diff", "two.json"), "give two"),
        (("show", "two.json", "other.json"), "kprune profile merge"),
        (("show", "none.json"), "does not exist"),
        (("show", "other.json"), "name the right ones with --symbols"),
    ],
)  # fmt: skip
def test_refusals_are_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...], says: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    assert kprune(*words) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
