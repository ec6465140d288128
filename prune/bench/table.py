"""The numbers of ``make bench`` put together: rows of a kernel, growth with its size, tables."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from prune.bench.run import ratios
from prune.bench.vmlinux import Linked
from prune.measure.cost import Cost
from prune.measure.estimate import Estimate, spread

BASE, OURS, FULL = "ld", "kprune", "full LTO"
SAME_OBJECTS = ("ld", "ld --gc-sections", "lld")


def make_rows(
    costs: Mapping[str, Sequence[Cost]], made: Mapping[str, Linked], lost: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Label -> ``wall`` and ``cpu`` (seconds), ``ratio`` and ``cpu_ratio`` (to the plain link of the same
    round), each with ``median``, ``least`` and ``most``; ``peak_mib``, the most of all rounds; ``rounds``;
    ``text_bytes`` and ``functions``; ``emptied``: sections that the plain link has and this one has not.
    ``why`` alone: not measured."""
    rows: dict[str, dict[str, Any]] = {}
    for label, each in costs.items():
        wall, cpu = [cost.seconds for cost in each], [cost.cpu_seconds for cost in each]
        rows[label] = {
            "rounds": len(each),
            "wall": _told(spread(wall)),
            "cpu": _told(spread(cpu)),
            "ratio": _told(ratios(wall, [cost.seconds for cost in costs[BASE]])),
            "cpu_ratio": _told(ratios(cpu, [cost.cpu_seconds for cost in costs[BASE]])),
            "peak_mib": max(cost.peak_mib for cost in each),
            "text_bytes": made[label].text,
            "functions": made[label].functions,
            "emptied": _emptied(made[BASE], made[label]),
        }
    return rows | {label: {"why": why} for label, why in lost.items()}


def _told(found: Estimate) -> dict[str, float | None]:
    return {"median": found.value, "least": found.low, "most": found.high}


def _emptied(plain: Linked, other: Linked) -> list[str]:
    return [name for name, size in plain.sections.items() if size and not other.sections.get(name)]


def growth(kernels: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """How the seconds of ld and kprune grow with the functions of the kernel.

    ``exponent``: of the power of the number of functions that fits the medians best (1: twice the functions,
    twice the seconds); None for less than two kernels.
    """
    found: dict[str, Any] = {}
    for label in (BASE, OURS):
        points = [(rows[BASE]["functions"], rows[label]["wall"]["median"]) for rows in kernels.values()]
        exponent = None
        if len(points) > 1:
            x, y = np.log(np.array(points)).T
            exponent = float(np.polyfit(x, y, 1)[0])
        found[label] = {
            "exponent": exponent,
            "ms_per_1000_functions": {
                name: 1e6 * seconds / functions
                for name, (functions, seconds) in zip(kernels, points, strict=True)
            },
        }
    return found


def kernel_table(name: str, kernel: Mapping[str, Any]) -> Iterator[str]:
    """A line for each contender, and what they come to."""
    rows = kernel["rows"]
    yield (
        f"{name}: {kernel['functions']:,} functions, {kernel['objects']:,} objects, "
        f"{kernel['sections']:,} sections, {kernel['relocations']:,} relocations; profile {kernel['profile']}"
    )
    yield (
        f"{'':18}{'rounds':>7}{'seconds':>9}{'(least..most)':>17}{'times ld':>10}{'(least..most)':>17}"
        f"{'cpu s':>9}{'times ld':>10}{'peak MiB':>10}{'text':>12}{'functions':>11}"
    )
    for label, row in rows.items():
        yield f"{label:18}{'-':>7}  {row['why']}" if "why" in row else _line(label, row)
    for label, row in rows.items():
        # kprune drops what is empty on purpose, and clang's objects have other sections.
        if label in SAME_OBJECTS and row.get("emptied"):
            yield f"{label}: no kernel that is meant to boot: nothing is left of {', '.join(row['emptied'])}"
    if "why" not in rows.get(FULL, {"why": ""}):
        ours, full = rows[OURS], rows[FULL]
        share = ours["wall"]["median"] / full["wall"]["median"]
        memory = ours["peak_mib"] / full["peak_mib"]
        yield f"kprune over full LTO: {share:.3f} of the seconds, {memory:.2f} of the memory"


def _line(label: str, row: Mapping[str, Any]) -> str:
    wall, ratio = row["wall"], row["ratio"]
    return (
        f"{label:18}{row['rounds']:>7}{wall['median']:>9.2f}{_range(wall):>17}{ratio['median']:>10.2f}"
        f"{_range(ratio):>17}{row['cpu']['median']:>9.2f}{row['cpu_ratio']['median']:>10.2f}"
        f"{row['peak_mib']:>10,.0f}{row['text_bytes']:>12,}{row['functions']:>11,}"
    )


def _range(value: Mapping[str, float]) -> str:
    return f"({value['least']:.2f}..{value['most']:.2f})"


def growth_table(result: Mapping[str, Any]) -> Iterator[str]:
    """A line for each kernel, from the smallest: seconds, also for every 1,000 functions, and the power."""
    kernels = sorted(result["kernels"].items(), key=lambda each: each[1]["functions"])
    found = result["growth"]
    head = "".join(f"{text:>12}" for text in ("functions", "sections", "relocations"))
    yield f"{'growth':18}{head}{'ld s':>9}{'per 1,000':>11}{'kprune s':>10}{'per 1,000':>11}{'times ld':>10}"
    for name, kernel in kernels:
        rows = kernel["rows"]
        sizes = "".join(f"{kernel[key]:>12,}" for key in ("functions", "sections", "relocations"))
        each = [found[label]["ms_per_1000_functions"][name] for label in (BASE, OURS)]
        yield (
            f"{name:18}{sizes}{rows[BASE]['wall']['median']:>9.2f}{each[0]:>8.1f} ms"
            f"{rows[OURS]['wall']['median']:>10.2f}{each[1]:>8.1f} ms{rows[OURS]['ratio']['median']:>10.2f}"
        )
    powers = [found[label]["exponent"] for label in (BASE, OURS)]
    if all(power is not None and math.isfinite(power) for power in powers):
        yield (
            f"seconds grow with the number of functions to the power of {powers[0]:.2f} (ld), "
            f"{powers[1]:.2f} (kprune)"
        )
