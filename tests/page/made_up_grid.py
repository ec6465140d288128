"""A grid.json to look at and to test with. Sizes are near those of a real run; every speed is MADE UP."""

from __future__ import annotations

from typing import Any

COLUMNS = (
    "gcc", "gcc+gc", "clang", "clang ThinLTO", "clang full LTO", "pruned (gcc)", "pruned (clang)",
    "pruned on ThinLTO", "pruned on full LTO", "by the block (gcc)",
)  # fmt: skip
COUNTED = {
    "text, bytes": (3005508, 2719162, 3434935, 3449527, 3665695, 1027551, 1162544, 1187704, 1254311, 763283),
    "resident text, bytes": (
        3005508, 2719162, 3434935, 3449527, 3665695, 725687, 835336, 865248, 915142, 548511,
    ),
    "init text, bytes": (193188, 180020, 201300, 200100, 205400, 137983, 141000, 190200, 195300, 98729),
    "rodata, bytes": (
        1173728, 1044693, 1133128, 1158875, 1168263, 550836, 480224, 545089, 539918, 442480,
    ),
    "data, bytes": (402100, 380200, 398700, 399100, 399400, 260700, 255100, 262000, 263000, 250100),
    "bss, bytes": (731334, 700100, 730000, 731000, 731000, 720500, 719000, 719500, 719700, 718000),
    "boot image, bytes": (
        2008064, 1831936, 2147328, 2151424, 2241536, 844800, 877568, 947200, 975872, 648192,
    ),
    "functions": (22351, 18986, 20647, 21147, 21100, 7686, 6586, 6938, 6498, 7425),
    "memory image, bytes": (
        9570500, 5871384, 9562816, 9600335, 9590940, 3394993, 3467522, 3551749, 5691526, 3113515,
    ),
    "left when booted, KiB": (
        116908, 120400, 116700, 116600, 116500, 123168, 123000, 122900, 120900, 123308,
    ),
    "gadgets": (94724, 83594, 87366, 88006, 91946, 39853, 35987, 39040, 38866, 32035),
    "system calls": (436, 347, 436, 436, 436, 62, 62, 59, 38, 62),
}  # fmt: skip
# Row -> value, half of its interval, samples; for each column.
TIMED: dict[str, tuple[tuple[float, float, int] | None, ...]] = {
    "boot to ready, s": (
        (1.91, 0.05, 20), (1.78, 0.05, 20), (1.95, 0.06, 20), (1.93, 0.05, 20), (1.97, 0.06, 20),
        (1.22, 0.04, 20), (1.25, 0.04, 20), (1.24, 0.03, 20), None, (1.19, 0.05, 20),
    ),
    "boot to ready, of its base": (
        None, (0.93, 0.02, 20), None, None, None, (0.64, 0.02, 20), (0.64, 0.02, 20), (0.64, 0.02, 20), None,
        (0.62, 0.03, 20),
    ),
    "requests per second": (
        (1510, 42, 12), (1525, 40, 12), (1496, 44, 12), (1540, 39, 12), (1561, 45, 12), (1533, 38, 12),
        (1472, 41, 12), (1580, 37, 12), None, (1391, 47, 12),
    ),
    "requests per second, of its base": (
        None, (1.01, 0.02, 12), None, None, None, (1.015, 0.022, 12), (0.984, 0.021, 12), (1.026, 0.019, 12),
        None, (0.921, 0.026, 12),
    ),
    "latency p50, ms": (
        (0.61, 0.02, 12), (0.6, 0.02, 12), (0.62, 0.02, 12), (0.6, 0.02, 12), (0.59, 0.02, 12),
        (0.6, 0.02, 12), (0.63, 0.02, 12), (0.59, 0.02, 12), None, (0.67, 0.02, 12),
    ),
    "latency p99, ms": (
        (1.71, 0.2, 12), (1.69, 0.2, 12), (1.75, 0.2, 12), (1.7, 0.3, 12), (1.68, 0.2, 12), (1.66, 0.2, 12),
        (1.78, 0.2, 12), (1.64, 0.2, 12), None, (2.31, 0.3, 12),
    ),
    "latency p99, of its base": (
        None, (0.99, 0.07, 12), None, None, None, (0.97, 0.08, 12), (1.02, 0.08, 12), (0.96, 0.07, 12), None,
        (1.35, 0.11, 12),
    ),
    "build, s": (
        (212, 0, 1), (212, 0, 1), (287, 0, 1), (342, 0, 1), (511, 0, 1), (212, 0, 1), (287, 0, 1),
        (342, 0, 1), None, (212, 0, 1),
    ),
    "link, s": (
        (5.0, 0.2, 5), (8.1, 0.3, 5), (6.1, 0.2, 5), (58.2, 2, 5), (221.3, 6, 5), (10.1, 0.3, 5),
        (13.9, 0.4, 5), (71.0, 2, 5), None, (14.7, 0.4, 5),
    ),
    "link peak memory, MiB": (
        (412, 3, 5), (690, 4, 5), (498, 3, 5), (1204, 9, 5), (3822, 20, 5), (702, 5, 5), (799, 6, 5),
        (1311, 9, 5), None, (744, 5, 5),
    ),
}  # fmt: skip
FAILED = (
    "validation: the guest panicked in 4 of 10 boots: free_area_init+0x1c4, see pruned-on-full/boots.json"
)


def made_up_grid(fails: bool = True) -> dict[str, Any]:
    """``fails``: the ninth kernel was not measured at all."""
    columns: dict[str, dict[str, Any]] = {}
    for k, name in enumerate(COLUMNS):
        rows = {label: _cell(values[k]) for label, values in COUNTED.items()}
        rows["boots"] = _cell(1.0, 0.72, 1.0, 10) if "(" in name or "on" in name else _cell(1.0)
        rows |= {label: _timed(label, values[k]) for label, values in TIMED.items()}
        rows["indirect-call targets"] = _cell(None, why="not looked at")
        if fails and name == "pruned on full LTO":
            rows = {label: _cell(None, why=FAILED) for label in rows}
        columns[name] = rows
    return {
        "schema_version": 2,
        "workload": "micro (made up)",
        "kernel": {"version": "6.1.192", "architecture": "x86_64"},
        "command": ["kprune", "compare", "--grid", "examples/micro"],
        "columns": columns,
    }


def _timed(label: str, value: tuple[float, float, int] | None) -> dict[str, Any]:
    if value is None:
        return _cell(None, why="it is a base itself" if "of its base" in label else "not asked")
    middle, half, samples = value
    return _cell(middle, middle - half, middle + half, samples) if half else _cell(middle)


def _cell(
    value: float | None, low: float | None = None, high: float | None = None, n: int = 1, why: str = ""
) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n if value is not None else 0, "why": why}
