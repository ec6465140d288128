"""The grid's table says what was measured, and of the rest that it was not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from prune.cli import main
from prune.grid.grid import COLUMNS, COSTS, FIRST, ROWS, RUNS, SPEEDS, chosen, make_column, needs_first
from prune.grid.table import CSV_HEAD, GROUPS, WIDTH, csv_rows, table
from prune.measure.cell import Cell
from prune.model.knowledge import read_knowledge
from prune.security.security import find_gadgets
from prune.settings import Settings
from tracer.host import UserError

SIDE = {
    "text_bytes": 1000, "resident_text_bytes": 900, "init_text_bytes": 10, "rodata_bytes": 20,
    "data_bytes": 30, "bss_bytes": 40, "image_bytes": 500, "functions": 7,
}  # fmt: skip
REPORT = {
    "base": SIDE, "pruned": {**SIDE, "text_bytes": 300}, "memory": {"base": 4096, "pruned": None},
    "ledger": {"by_kind": {"text": [1000, 300], "bss": [40, 40]}}, "validation": {"boots": 4, "passed": 3},
}  # fmt: skip
X86 = read_knowledge("x86_64")


def test_every_column_is_a_side_of_a_known_run() -> None:
    assert all(column.run in RUNS and column.side in ("base", "pruned") for column in COLUMNS)


def test_kernels_of_other_compilers_take_no_traced_kernel(tmp_path: Path) -> None:
    others = [name for name in RUNS if needs_first(name)]
    assert len(others) == 3 and FIRST not in others
    for name in others:
        settings = Settings(tmp_path, tmp_path, **RUNS[name])
        assert settings.needs_traced  # but for the profile that says where tasks sleep
        assert not replace(settings, sleepers=tmp_path / "p").needs_traced
        assert not replace(settings, profile=tmp_path / "p").needs_traced
    assert all(Settings(tmp_path, tmp_path, **RUNS[name]).needs_traced for name in ("gcc", "gcc-block"))


def test_without_a_first_profile_the_others_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[Settings] = []

    class Pipeline:
        def __init__(self, settings: Settings) -> None:
            made.append(settings)

        def run(self) -> dict[str, object]:
            raise UserError("building: no compiler")

    monkeypatch.setattr("prune.run.pipeline.Pipeline", Pipeline)
    words = ["compare", "--grid", "examples/micro", "--out", str(tmp_path), "--columns", "clang"]
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2 and [s.out.name for s in made] == ["gcc"]
    assert "tracing clang: the run gcc has left no profile" in capsys.readouterr().out
    (tmp_path / "gcc").mkdir()
    (tmp_path / "gcc/profile.json").touch()
    for more, folder, taken in (([], "clang", "sleepers"), (["--one-profile"], "clang-one", "profile")):
        with pytest.raises(SystemExit):
            main([*words, *more])
        assert made[-1].out == tmp_path / folder
        assert getattr(made[-1], taken) == tmp_path / "gcc/profile.json"


def test_each_side_has_its_numbers() -> None:
    gcc, pruned = (next(c for c in COLUMNS if c.name == name) for name in ("gcc", "pruned (gcc)"))
    cells = make_column(pruned, REPORT, {"gadgets": 5, "indirect_targets": 7, "system_calls": 6})
    assert tuple(cells) == ROWS
    assert cells["text, bytes"].value == 300 and cells["memory image, bytes"].value == 340
    assert cells["boots"].value == 0.75 and cells["left when booted, KiB"].value is None
    assert make_column(gcc, REPORT, None)["left when booted, KiB"].value == 4


def test_what_failed_says_why() -> None:
    column = COLUMNS[0]
    cells = {column.name: make_column(column, "building: no clang", None)}
    text = table(cells)
    assert text == "gcc: nothing was measured: building: no clang"


def test_an_unknown_column_is_refused() -> None:
    assert chosen([]) == COLUMNS and [c.name for c in chosen(["clang"])] == ["clang"]
    with pytest.raises(UserError, match="there is no icc"):
        chosen(["icc"])
    with pytest.raises(UserError, match="there is no optimisation 3; config, s, 2"):
        chosen([], ["3"])
    with pytest.raises(UserError, match="there is no gcc -O2"):
        chosen(["gcc -O2"], ["s"])


def test_columns_of_every_optimisation() -> None:
    both = chosen([], ["config", "2"])
    assert len(both) == 2 * len(COLUMNS) and both[: len(COLUMNS)] == COLUMNS
    assert len({(column.folder, column.side) for column in both}) == len(both)
    some = chosen(["gcc", "pruned (gcc) -O2"], ["config", "2", "2"])
    assert [(c.name, c.folder, c.opt) for c in some] == [
        ("gcc", "gcc", "config"), ("gcc -O2", "gcc-O2", "2"), ("pruned (gcc) -O2", "gcc-O2", "2"),
    ]  # fmt: skip


MEASURED = {
    "boot to ready, s": Cell(2.5, "", 2.25, 2.75, 8),
    "boot to ready, of its base": Cell(0.875, "", 0.8, 0.95, 8),
    "requests per second": Cell(None, "missed tcp_close (net/ipv4/tcp.o), called by inet_release"),
    "build, s": Cell(209.8), "link peak memory, MiB": Cell(115.3, "", 115.2, 115.3, 3),
}  # fmt: skip


def every_column() -> dict[str, dict[str, Cell]]:
    return {
        column.name: make_column(column, REPORT, {"gadgets": 94724, "system_calls": 6}, MEASURED)
        for column in chosen([], ["config", "2"])
    }


def test_rows_that_were_not_measured_say_so() -> None:
    cells = make_column(
        COLUMNS[0], REPORT, {"gadgets": 5, "system_calls": 6, "indirect_targets": 7}, MEASURED
    )
    assert tuple(cells) == ROWS and {*SPEEDS, *COSTS} <= {*ROWS}
    assert cells["indirect-call targets"] == Cell(7)
    assert cells["build, s"] == MEASURED["build, s"]
    assert cells["link, s"] == Cell(None, "not measured")


def test_the_table_is_readable() -> None:
    text = table(every_column())
    *tables, notes = text.split("\n\n")
    assert sorted(row for rows in GROUPS.values() for row in rows) == sorted(ROWS)
    assert max(len(line) for block in tables for line in block.splitlines()) <= WIDTH
    assert "2.50 (2.25..2.75)" in text and "0.875 (0.800..0.950)" in text and "94,724" in text
    assert "pruned on full LTO -O2" in text
    assert notes.count("missed tcp_close") == 1  # once for all twenty columns


def test_csv_has_a_line_for_every_cell() -> None:
    cells = every_column()
    rows = [dict(zip(CSV_HEAD, row, strict=True)) for row in csv_rows(cells)]
    assert len(rows) == len(cells) * len(ROWS)
    found = next(row for row in rows if (row["kernel"], row["row"]) == ("clang", "boot to ready, s"))
    assert (found["value"], found["low"], found["high"], found["n"], found["why"]) == (2.5, 2.25, 2.75, 8, "")
    missed = next(row for row in rows if row["row"] == "requests per second")
    assert missed["value"] is None and missed["n"] == 0


@pytest.mark.parametrize(
    ("code", "count"),
    [
        (b"\xc3", 1),
        (b"\x58\xc3", 2),  # pop %rax; ret, and ret
        (b"\xc3\xc3", 1),  # nothing goes on behind a return
        (
            b"\xeb\x00\xc3",
            1,
        ),  # a jump leaves; and add %al, %bl, which its last byte makes of it, does not return
        (b"\xc2\xc3\x00", 2),  # ret $0xc3, and the ret in it
        (b"\x0f\x0b", 0),
    ],
)
def test_gadgets_are_whole_instructions_up_to_a_return(code: bytes, count: int) -> None:
    assert len(set(find_gadgets(code, X86))) == count
