"""Rows of the table of kernels: what counts as a kernel that works, and that a failure says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.kernels import ROOT, Cell, measure, row_of

CELL = Cell("linux-source-6.1", "gcc", "x86_64")
ABOUT = {"tools": {"kernel": "6.1.192"}}


def report(verify: str = "ok", passed: int = 10) -> dict[str, Any]:
    return {
        "base": {"text_bytes": 2000, "image_bytes": 500},
        "pruned": {"text_bytes": 500, "image_bytes": 300},
        "validation": {"boots": 10, "passed": passed, "verify": verify},
        "heal": {"rounds": 2, "added": [{"function": "one"}, {"function": "two"}]},
    }


def test_a_row_has_what_its_folder_has() -> None:
    row = row_of(CELL, report(), ABOUT)
    assert str(row) == (
        "| 6.1.192 | gcc | x86_64 | 2,000 | 500 | -75.0% | 500 | 300 | -40.0% | 10 of 10 | 2 in 2 rounds |"
    )


def test_a_kernel_counts_only_if_it_was_proved_and_every_boot_passed() -> None:
    assert not row_of(CELL, report(), ABOUT).reason
    assert row_of(CELL, report(passed=9), ABOUT).reason
    assert row_of(CELL, report(verify="failed"), ABOUT).reason


def test_a_cell_that_fails_says_why(tmp_path: Path) -> None:
    row = measure(Cell(str(tmp_path / "no-kernel"), "gcc", "i386"), ROOT / "examples/micro", tmp_path, ())
    assert "no-kernel" in row.reason
    assert str(row).count("|") == 12
