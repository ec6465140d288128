"""``kprune import`` from end to end: real formats from the command line, to what the plan is made of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prune.folder import Folder
from prune.plan.evidence import knows_blocks
from prune.run.profiling import carried, gather
from prune.settings import Settings
from tests.unit.test_collected import board
from tests.unit.test_imported import LONG, folder, kprune
from tests.unit.test_read_trace_cmd import X86_64, small_dat
from tests.unit.test_read_trace_stat import table
from tracer.host import UserError
from tracer.profiles.algebra import by_app
from tracer.profiles.profile import load_profile, save_profile
from tracer.profiles.references import References

__all__ = ["folder"]  # fixture


def imported(folder: Path, name: str) -> dict[str, set[str]]:
    """App, or "" for all -> symbols."""
    found = by_app(load_profile(folder / "imports" / name))
    return {app: {function.symbol for function in functions} for app, functions in found.items()}


def test_trace_cmd_knows_the_apps_itself(folder: Path) -> None:
    (folder / "six.dat").write_bytes(small_dat(X86_64).v6())
    (folder / "seven.dat").write_bytes(small_dat(X86_64).v7("zstd"))
    assert kprune(folder / "six.dat", folder / "seven.dat", "--into", folder) == 0
    assert imported(folder, "six.json") == {"": {"schedule"}, "sh": {"schedule"}, "<idle>": {"schedule"}}
    assert load_profile(folder / "imports/six.json").unmatched == ("0x82000000", "do_exit")
    assert imported(folder, "seven.json") == imported(folder, "six.json")


def test_lost_events_are_exit_1_and_nothing_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lossy = small_dat(X86_64, stats=("CPU: 0\noverrun: 7\n",))
    (folder / "lossy.dat").write_bytes(lossy.v6())
    (folder / "function0").write_bytes(table([("schedule", 3)]))
    assert kprune(folder / "function0", folder / "lossy.dat", "--into", folder, "--app", "web") == 1
    err = capsys.readouterr().err
    assert "lossy.dat" in err and "overrun 7" in err and err.count("\n") == 1
    assert not (folder / "imports").exists()


def test_a_tar_of_a_board_has_apps_runs_and_failures(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "board.tar").write_bytes(board(keep="yes", last="ran 1 0 its check exited with status 9\n"))
    assert kprune(folder / "board.tar", "--into", folder, "--json") == 0
    said = capsys.readouterr()
    (row,) = json.loads(said.out)
    assert (row["apps"], row["runs"], row["version"]) == ({"ps": 2, "web": 1}, 1, "Linux version 6.1.0")
    assert row["failed"] == ["web: its check exited with status 9"]
    assert "warning" in said.err and "collected without web" in said.err
    assert (row["build_id"], row["kernel"]) == ("0badcafe", "another")


def test_a_failed_app_is_exit_1(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "board.tar").write_bytes(board(last="ran 1 0 its check exited with status 9\n"))
    assert kprune(folder / "board.tar", "--into", folder) == 1
    err = capsys.readouterr().err
    assert "running app web: its check exited" in err and "--keep-going" in err


def test_one_file_may_go_elsewhere(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "function0").write_bytes(table([("schedule", 3)]))
    made = folder / "deep" / "mine.json"
    assert kprune(folder / "function0", "--into", folder, "--app", "web", "--output", made) == 0
    assert [function.symbol for function in load_profile(made).functions] == ["schedule"]
    # It is not taken into account by itself, so that no next step is right.
    assert not (folder / "imports").exists() and "next:" not in capsys.readouterr().err


def test_a_trace_of_something_else_is_warned_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("schedule", 3), ("NtCreateFile", 1), ("KiSwapThread", 1)]
    (folder / "function0").write_bytes(table(rows))
    assert kprune(folder / "function0", "--into", folder, "--app", "web") == 0
    assert "only 33% of its names are functions of this kernel" in capsys.readouterr().err


def test_the_same_trace_is_the_same_profile(folder: Path) -> None:
    (folder / "board.tar").write_bytes(board())
    path = folder / "imports/board.json"
    assert kprune(folder / "board.tar", "--into", folder) == 0
    first = path.read_bytes()
    assert kprune(folder / "board.tar", "--into", folder) == 0
    assert path.read_bytes() == first


def test_the_plan_takes_imports_into_account(folder: Path) -> None:
    (folder / "function0").write_bytes(table([("schedule", 3), (LONG, 2)]))
    (folder / "board.tar").write_bytes(board())
    assert kprune(folder / "function0", folder / "board.tar", "--into", folder, "--app", "cat") == 0
    settings = Settings(workload=folder / "w", out=folder)
    alone = by_app(gather(settings, Folder(folder)))
    assert {app: len(functions) for app, functions in alone.items()} == {"": 3, "cat": 2, "ps": 2, "web": 1}
    # What was traced here comes first, and stays.
    own = load_profile(folder / "imports/function0.json")
    save_profile(replace(own, apps=("here",), functions=own.functions[:1]), folder / "trace/profile.json")
    both = gather(settings, Folder(folder))
    assert both.apps == ("here", "ps", "web", "cat") and len(both.functions) == 3


def test_imports_of_a_kernel_that_was_built_again_are_stale(folder: Path) -> None:
    (folder / "function0").write_bytes(table([("schedule", 3)]))
    assert kprune(folder / "function0", "--into", folder, "--app", "cat") == 0
    symbols: dict[str, Any] = json.loads((folder / "base/symbols.json").read_text())
    (folder / "base/symbols.json").write_text(json.dumps({**symbols, "build_id": "rebuilt"}))
    settings = Settings(workload=folder / "w", out=folder)
    with pytest.raises(UserError, match=r"function0\.json: it is of build production-i"):
        gather(settings, Folder(folder))
    assert gather(replace(settings, accept_stale=True), Folder(folder)).kernel.build_id == "rebuilt"


def test_a_profile_takes_along_what_its_build_refers_to_unless_it_was_carried(folder: Path) -> None:
    (folder / "function0").write_bytes(table([("schedule", 3)]))
    assert kprune(folder / "function0", "--into", folder, "--app", "cat") == 0
    settings = Settings(workload=folder / "w", out=folder)
    references = References((("k.o", ("schedule",)),), ((),))
    assert gather(settings, Folder(folder), lambda: references).references == references
    assert carried(settings, Folder(folder), "production-id") == []
    symbols: dict[str, Any] = json.loads((folder / "base/symbols.json").read_text())
    (folder / "base/symbols.json").write_text(json.dumps({**symbols, "build_id": "rebuilt"}))
    moved = gather(replace(settings, accept_stale=True), Folder(folder), lambda: references)
    assert moved.references is None and moved.moved_from == ("production-id",)
    assert [each.kernel.build_id for each in carried(settings, Folder(folder), "rebuilt")] == [
        "production-id"
    ]
    with pytest.raises(UserError, match="blocks of other builds are not those of this one"):
        knows_blocks(moved, carried(settings, Folder(folder), "rebuilt"))


def test_addresses_alone_need_the_kernel_to_be_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without kallsyms, or with zeros in it, trace-cmd has nothing but addresses."""
    (folder / "hidden.dat").write_bytes(small_dat(X86_64, kallsyms=b"").v6())
    assert kprune(folder / "hidden.dat", "--into", folder) == 2
    assert "say --of traced or --of production" in capsys.readouterr().err
