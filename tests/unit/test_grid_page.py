"""The grid's page: what it is given, and that nothing from outside is more than text in it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from prune.grid.grid import COLUMNS, ROWS
from prune.grid.page import grid_data, grid_page, write_grid_page
from prune.grid.words import GROUPS, KERNELS, MEASURES, kernel_words, measure_of, title_of, unit_of
from tests.page.made_up_grid import FAILED, made_up_grid

HOSTILE = "</script><img src=x onerror=alert(1)>@JS@\u2028"


def grid(rows: dict[str, Any], name: str = "gcc") -> dict[str, Any]:
    return {"schema_version": 2, "workload": "made up", "columns": {name: rows}}


def test_what_the_grid_measures_is_described() -> None:
    assert {column.name for column in COLUMNS} <= set(KERNELS) and set(ROWS) <= set(MEASURES)
    assert {measure.group for measure in MEASURES.values()} == set(GROUPS) - {"Others"}


@pytest.mark.parametrize(
    ("label", "title", "unit"),
    [
        ("text, bytes", "text", "B"),
        ("left when booted, KiB", "left for others", "KiB"),
        ("requests per second", "requests per second", "/s"),
        ("requests per second, of its base", "requests per second, of its base", "\N{MULTIPLICATION SIGN}"),
        ("latency p99, ms", "latency p99", "ms"),
        ("boots", "boots", "%"),
        ("functions", "functions", ""),
        ("heat, W", "heat", "W"),
    ],
)
def test_a_label_is_a_title_and_a_unit(label: str, title: str, unit: str) -> None:
    assert (title_of(label), unit_of(label)) == (title, unit)


def test_a_row_that_nobody_described_is_shown_without_a_judgement() -> None:
    data = grid_data(grid({"heat, W": {"value": 3.0, "why": ""}, "functions": {"value": 7, "why": ""}}))
    assert [measure["label"] for measure in data["measures"]] == ["functions", "heat, W"]
    assert data["measures"][1]["better"] == "" and GROUPS[data["measures"][1]["group"]] == "Others"
    assert measure_of("heat, W").counted is False


def test_what_was_not_measured_is_no_zero() -> None:
    value = grid({"functions": {"value": None, "why": "no clang"}, "gadgets": {"value": float("nan")}})
    value["columns"]["clang"] = {}
    cells = grid_data(value)["cells"]
    assert [cell["value"] for row in cells for cell in row] == [None] * 4
    assert [cell["why"] for cell in cells[0]] == ["no clang", "it is not in grid.json"]


def test_half_an_interval_is_none() -> None:
    cell = grid_data(grid({"link, s": {"value": 3.0, "low": 2.0, "high": None, "n": 4}}))["cells"][0][0]
    assert cell == {"value": 3.0, "low": None, "high": None, "n": 4, "why": ""}


def test_kernels_have_words_their_base_and_the_report_of_their_run() -> None:
    kernels = {each["name"]: each for each in grid_data(made_up_grid())["kernels"]}
    assert list(kernels) == [column.name for column in COLUMNS]
    assert kernels["pruned (clang)"]["report"] == "clang/report.html"
    assert kernels["pruned (clang)"]["own"] == "clang" and kernels["clang"]["own"] == ""
    assert kernels["pruned on full LTO"]["report"] == "", "a run that failed has none"
    value = grid({"functions": {"value": 7, "why": ""}}, "pruned (gcc) -Os")
    assert grid_data(value)["kernels"][0]["own"] == "gcc -Os"
    assert kernel_words("gcc -O2") == "as configured, by GCC; -O2" and kernel_words("icc") == ""


def test_a_grid_of_before_there_were_intervals_has_a_page() -> None:
    value = grid({label: {"value": 3, "why": ""} for label in ROWS}) | {"schema_version": 1}
    data = grid_data(value)
    assert data["facts"] == [] and data["command"] == "" and len(data["measures"]) == len(ROWS)


def test_facts_and_command_are_words() -> None:
    value = grid({}) | {"kernel": {"version": "6.1", "cpus": 2, "none": None}, "command": ["a", "b c"]}
    data = grid_data(value)
    assert data["facts"] == ["Linux 6.1", "cpus: 2"] and data["command"] == "a 'b c'"


def test_the_page_is_one_file_and_names_are_text_in_it() -> None:
    value = grid({HOSTILE: {"value": None, "why": HOSTILE}}, HOSTILE) | {
        "workload": HOSTILE, "kernel": {HOSTILE: HOSTILE}, "command": [HOSTILE],
    }  # fmt: skip
    page = grid_page(value)
    assert "<img" not in page and page.count("</script>") == 2 and "\u2028" not in page
    assert not re.search(r"""(src|href)=["']?https?:|@import|url\(""", page)
    held = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert held and json.loads(held[1])["kernels"][0]["name"] == HOSTILE


def test_the_page_is_made_of_the_file_alone(tmp_path: Path) -> None:
    (tmp_path / "grid.json").write_text(json.dumps(made_up_grid()))
    write_grid_page(tmp_path)
    assert (tmp_path / "report.html").read_text() == grid_page(made_up_grid())
    assert FAILED in (tmp_path / "report.html").read_text()
