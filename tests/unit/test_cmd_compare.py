"""kprune compare: groups, totals, orders, and what it says of folders that hold nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prune.cli import main
from prune.ledger.ledger import COLUMNS


def row(object: str, section: str, base: int, pruned: int, resident: bool = True) -> list[object]:
    kind = "text" if section.startswith(".text") else "data"
    values = {
        "object": object, "section": section, "symbol": section.split(".")[-1], "output": f".{kind}",
        "kind": kind, "base": base, "pruned": pruned, "reason": "ran: web" if pruned else "cold",
        "removed_by": "" if base == pruned else "cold function", "resident": resident, "fixed": False,
    }  # fmt: skip
    return [values[name] for name in COLUMNS]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    rows = [
        row("net/ipv4/tcp.o", ".text.tcp_close", 100, 100), row("net/ipv4/tcp.o", ".text.tcp_cold", 300, 0),
        row("net/ipv6/tcp.o", ".text.tcp_close", 50, 50, resident=False), row("fs/a.o", ".data.x", 8, 8),
    ]  # fmt: skip
    (tmp_path / "ledger.json").write_text(
        json.dumps({"schema_version": 1, "columns": list(COLUMNS), "rows": rows})
    )
    return tmp_path


def cli(*words: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["compare", *map(str, words)])
    return int(ended.value.code or 0)


def compared(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, object]:
    assert cli(*words, "--json") == 0
    value: dict[str, object] = json.loads(capsys.readouterr().out)
    return value


def test_base_against_pruned_is_the_default(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = compared(capsys, out)
    assert value["totals"] == {
        "added": 0, "removed": 1, "grown": 0, "shrunk": 0, "up": 0, "down": -300, "before": 458, "after": 158,
    }  # fmt: skip
    rows = value["rows"]
    assert isinstance(rows, list) and rows[0]["name"] == "tcp_cold (net/ipv4/tcp.o)"


def test_functions_of_one_name_stay_apart(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [each["name"] for each in compared(capsys, out)["rows"]]  # type: ignore[attr-defined]
    assert {"tcp_close (net/ipv4/tcp.o)", "tcp_close (net/ipv6/tcp.o)"} <= set(names)


@pytest.mark.parametrize(
    ("by", "wanted"),
    [
        ("directory", {"net/ipv4", "net/ipv6", "fs"}), ("kind", {"text", "data"}),
        ("reason", {"ran", "cold"}), ("section", {".text", ".data"}), ("cause", {"nothing", "cold function"}),
    ],
)  # fmt: skip
def test_groups(out: Path, capsys: pytest.CaptureFixture[str], by: str, wanted: set[str]) -> None:
    value = compared(capsys, out, "--by", by)
    assert {each["name"] for each in value["rows"]} == wanted  # type: ignore[attr-defined]
    assert value["totals"]["before"] == 458  # type: ignore[index]


def test_resident_counts_what_is_not_freed(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compared(capsys, out, "--resident")["totals"]["after"] == 108  # type: ignore[index]


def test_the_table_says_how_many_rows_it_leaves_out(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(out / "base", out, "--by", "directory", "--top", 1) == 0
    text = capsys.readouterr().out
    assert "Total: Before=458, After=158, chg -65.50%" in text and "up/down: 0/-300 (-300)" in text


def test_csv_has_a_head(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(out, "--csv", "--sort", "name") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "function,old,new,delta" and len(lines) == 5


@pytest.mark.parametrize("text", [None, "{}", '{"schema_version": 1, "columns": ["object"], "rows": [[1]]}'])
def test_a_folder_without_a_kernel_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    if text is not None:
        (tmp_path / "ledger.json").write_text(text)
    assert cli(tmp_path, tmp_path) == 2
    said = capsys.readouterr().err.strip()
    assert str(tmp_path) in said and len(said.splitlines()) == 1
