"""Folders of runs for what reads them again, and logs of their kernels.

``logs/NAME.log`` is the end of what a pruned kernel printed in QEMU (examples/micro, Linux 6.1.192), with its
first lines, as it came from the serial port; ``NAME.map`` and ``NAME.json`` are what its System.map,
tombstones.json, symbols.json and plan.json have of the functions in it. Of ``freed``, which is of an older
link, nobody has the addresses any more: there the log's own are those of the kernel.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

LOGS = Path(__file__).parent / "logs"
#: What ``freed`` was asked for after boot, with the address that the log has.
FREED_ROW = {
    "symbol": "neigh_rand_reach_time", "object": "net/core/neighbour.o", "size": 27,
    "section": ".text.neigh_rand_reach_time", "placed": ".init.text.text.neigh_rand_reach_time",
    "address": 0xFFFFFFFF815260E9,
}  # fmt: skip
FREED_MAP = "ffffffff815260e9 t neigh_rand_reach_time\n"


def log(name: str) -> str:
    """A real console log, its lines ended as the serial port did."""
    return (LOGS / f"{name}.log").read_bytes().decode()


def addresses(name: str) -> dict[str, int]:
    """The functions in a log."""
    rows = [line.split() for line in (LOGS / f"{name}.map").read_text().splitlines()]
    return {row[2]: int(row[0], 16) for row in rows}


def without_kallsyms(name: str, slide: int = 0) -> str:
    """The log as a kernel prints it that has no names, and that was moved."""
    where = addresses(name)
    width = 8 if name == "i386" else 16

    def number(found: re.Match[str]) -> str:
        return f"0x{where[found[1]] + int(found[2], 16) + slide:0{width}x}"

    said = re.sub(r"([\w.]+)\+0x([0-9a-f]+)/0x[0-9a-f]+", number, log(name))
    if slide:
        moved = f"Kernel Offset: 0x{slide:x} from 0xffffffff81000000 (relocation range: 0x0-0x1)"
        said = said.replace("Kernel Offset: disabled", moved)
    return said


def write_run(
    folder: Path, name: str = "", *, tombstones: list[dict[str, Any]] | None = None,
    freed: list[dict[str, Any]] | None = None, trimmed: list[dict[str, Any]] | None = None,
    functions: list[list[Any]] | None = None, system_map: str = "", start: int | None = None,
    build_id: str = "aa",
) -> Path:  # fmt: skip
    """What ``kprune decode`` reads of a run: of a log's kernel, with changes, or of one that is made up."""
    known: dict[str, Any] = json.loads((LOGS / f"{name}.json").read_text()) if name else {}
    lines = (LOGS / f"{name}.map").read_text() if name else ""
    stones = known.get("tombstones", []) if tombstones is None else tombstones
    rows = [*known.get("functions", []), *(functions or [])]
    units = known.get("units") or [[row[2], row[3], row[1], "keep", "ran"] for row in rows]
    (folder / "base").mkdir(parents=True, exist_ok=True)
    (folder / "pruned").mkdir(exist_ok=True)
    (folder / "pruned" / "System.map").write_text(lines + system_map)
    _write(
        folder / "pruned" / "tombstones.json",
        {
            "schema_version": 5,
            "tombstones": [{"size": 1, "answer": "", "call": False, **stone} for stone in stones],
            "freed": freed or [], "trimmed": trimmed or [],
            "start": known.get("start", 0) if start is None else start,
        },
    )  # fmt: skip
    _write(
        folder / "base" / "symbols.json",
        {
            "schema_version": 4, "kernel": "production", "build_id": build_id, "config": "c", "source": "s",
            "options": "o", "version": known.get("version", "6.1"), "entry": 0, "files": {},
            "functions": sorted(rows),
        },
    )  # fmt: skip
    _write(
        folder / "plan.json",
        {
            "schema_version": 5, "arch": known.get("arch", "x86_64"), "build_id": build_id, "width": "ran",
            "unused_rules": [], "named": False, "objects": {}, "pieces": [], "cold": [], "stops": [],
            "answers": [], "units": units,
            "columns": ["object", "section", "size", "fate", "reason"],
        },
    )  # fmt: skip
    return folder


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))
