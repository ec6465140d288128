"""The grid's ``report.html``, from ``grid.json`` alone.

What the page knows of a row is in ``grid_words.py``; here cells are put in the order in which the page shows
them, and what is no number is said to be none.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from prune.grid.grid import COLUMNS, SCHEMA
from prune.grid.words import (
    GROUPS,
    MEASURES,
    OF_BASE,
    kernel_words,
    measure_of,
    split_level,
    title_of,
    unit_of,
)
from prune.report.page import fill
from tracer.host import MISSHAPEN, UserError, read_json, say, whole_file

_SCRIPTS = ("dom.js", "grid_model.js", "grid_cards.js", "grid_tables.js", "grid.js")


def grid_page(value: Mapping[str, Any]) -> str:
    """The page as HTML.

    Args:
        value: what ``grid.json`` holds.
    """
    return fill("grid.html", ("page.css", "grid.css"), _SCRIPTS, grid_data(value))


def write_grid_page(home: Path) -> None:
    """Write ``report.html`` of the ``grid.json`` in a folder.

    Raises:
        UserError: it is missing or damaged.
    """
    path = home / "grid.json"
    value = read_json(path, "grid", SCHEMA)
    try:
        page = grid_page(value)
    except MISSHAPEN as error:
        raise UserError(f"reading the grid: {path}: {error!r}", "make it again: kprune grid") from error
    with whole_file(home / "report.html") as stream:
        stream.write(page)
    say(f"the grid to look at: {home / 'report.html'}")


def grid_data(value: Mapping[str, Any]) -> dict[str, Any]:
    """The page's data: kernels, measures, and a cell for each pair of them."""
    columns: Mapping[str, Mapping[str, Any]] = value["columns"]
    labels = _labels(columns)
    return {
        "workload": str(value["workload"]),
        "facts": _facts(value.get("kernel") or {}),
        "command": shlex.join(str(word) for word in value.get("command") or ()),
        "groups": list(GROUPS),
        "kernels": [_kernel(name, rows, value.get("runs") or {}) for name, rows in columns.items()],
        "measures": [_measure(label) for label in labels],
        "cells": [[_cell(rows.get(label)) for rows in columns.values()] for label in labels],
    }


def _labels(columns: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Rows that are there, those that are described first, by group."""
    there = list(dict.fromkeys(label for rows in columns.values() for label in rows))
    place = {label: number for number, label in enumerate(MEASURES)}
    return sorted(there, key=lambda label: place.get(label, len(place)))


def _facts(kernel: Mapping[str, Any]) -> list[str]:
    """Words for the head of the page: the version, and whatever else is said of the kernel."""
    version = [f"Linux {kernel['version']}"] if kernel.get("version") else []
    others = [f"{key}: {each}" for key, each in kernel.items() if key != "version"]
    return version + [text for text in others if not text.endswith((": ", ": None"))]


def _kernel(name: str, rows: Mapping[str, Any], runs: Mapping[str, Any]) -> dict[str, str]:
    run, base = _origin(name)
    run = str(runs[name][0]) if name in runs else run
    # A run that failed has no report to look at.
    measured = any(_cell(cell)["value"] is not None for cell in rows.values())
    return {
        "name": name,
        "words": kernel_words(name),
        "report": f"{quote(run).lstrip('/')}/report.html" if run and measured else "",
        "own": base,
    }


def _origin(name: str) -> tuple[str, str]:
    """Folder of the run that a column is of, and the column that is its base; nothing where nobody knows."""
    column = next((column for column in COLUMNS if column.name == name), None)
    plain, level = split_level(name)
    if not column and level:
        base = _origin(plain)[1]
        return "", base + level if base else ""
    if not column:
        return "", ""
    if column.side == "base":
        return column.run, ""
    own = (other.name for other in COLUMNS if (other.run, other.side) == (column.run, "base"))
    return column.run, next(own, "")


def _measure(label: str) -> dict[str, Any]:
    known = measure_of(label)
    return {
        "label": label,
        "title": title_of(label),
        "unit": unit_of(label),
        "scale": 100 if label == "boots" else 1,
        "ratio": label.endswith(OF_BASE),
        "group": GROUPS.index(known.group),
        "better": known.better,
        "note": known.note,
        "counted": known.counted,
    }


def _cell(cell: Mapping[str, Any] | None) -> dict[str, Any]:
    cell = cell or {"why": "it is not in grid.json"}
    value, low, high = (_finite(cell.get(key)) for key in ("value", "low", "high"))
    # Half an interval is none.
    if value is None or low is None or high is None:
        low = high = None
    return {
        "value": value,
        "low": low,
        "high": high,
        "n": cell.get("n") or 0,
        "why": str(cell.get("why") or ""),
    }


def _finite(number: Any) -> float | None:
    """JSON has no infinity, and what is none of a measurement is no value."""
    return number if isinstance(number, int | float) and math.isfinite(number) else None
