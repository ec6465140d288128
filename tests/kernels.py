"""``python -m tests.kernels``: one workload on every kernel series, compiler and architecture, as a table.

Each cell is a whole ``kprune run`` in a folder of its own, ``OUT/SERIES-COMPILER-ARCH``: both kernels are
built, traced, pruned, proved, booted and healed. A cell that fails does not end the others; its row has the
reason, and the command exits 1. What is done is not done again. The table is Markdown, on standard output;
``OUT/kernels.json`` has the rows as data, ``OUT/SERIES-COMPILER-ARCH.log`` each cell's words.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
KPRUNE = Path(sys.executable).with_name("kprune")
SERIES = ("linux-source-6.1", "linux-source-6.12")
COMPILERS = ("gcc", "clang")
ARCHITECTURES = ("x86_64", "i386")
_HEAD = (
    "| kernel | compiler | architecture | text, bytes | pruned | change "
    "| boot image | pruned | change | boots | healed |"
)
_RULE = "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |"


@dataclass(frozen=True)
class Cell:
    """One kernel, as ``--kernel``, ``--toolchain`` and ``--arch`` name it."""

    series: str
    compiler: str
    arch: str

    @property
    def name(self) -> str:
        return f"{Path(self.series).name}-{self.compiler}-{self.arch}"

    def command(self, workload: Path, out: Path, more: Sequence[str]) -> list[str]:
        kernel = ["--kernel", self.series, "--toolchain", self.compiler, "--arch", self.arch]
        return [str(KPRUNE), "run", str(workload), *kernel, "--out", str(out / self.name), *more]


@dataclass(frozen=True)
class Row:
    """What came of a cell: ``version`` as its build has it; ``reason`` is empty when the pruned kernel was
    proved and every boot ran the whole workload; sizes in bytes, 0 where the run failed."""

    cell: Cell
    version: str = ""
    text: tuple[int, int] = (0, 0)
    image: tuple[int, int] = (0, 0)
    boots: tuple[int, int] = (0, 0)
    rounds: int = 0
    healed: int = 0
    reason: str = ""

    def __str__(self) -> str:
        kernel = (
            f"| {self.version or Path(self.cell.series).name} | {self.cell.compiler} | {self.cell.arch} |"
        )
        if not self.text[1]:
            return f"{kernel} {'| ' * 7}{self.reason} |"
        sizes = " ".join(f"{old:,} | {new:,} | {_change(old, new)} |" for old, new in (self.text, self.image))
        healed = (
            f"{self.healed} in {self.rounds} round{'s' * (self.rounds > 1)}" if self.rounds else "nothing"
        )
        return f"{kernel} {sizes} {self.boots[0]} of {self.boots[1]} | {self.reason or healed} |"


def _change(old: int, new: int) -> str:
    return f"{new / old - 1:+.1%}"


def measure(cell: Cell, workload: Path, out: Path, more: Sequence[str]) -> Row:
    """Run one cell, and read what it left."""
    log = out / f"{cell.name}.log"
    with log.open("w") as said:
        done = subprocess.run(
            cell.command(workload, out, more), cwd=ROOT, stdout=said, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode:  # a report that lies there may be an earlier run's
        return Row(cell, reason=_reason(log))
    return row_of(cell, _read(out / cell.name / "report.json"), _read(out / cell.name / "metadata.json"))


def row_of(cell: Cell, report: dict[str, Any], about: dict[str, Any]) -> Row:
    """A cell's row from what its folder has; proof and boots are read, not taken for granted."""
    checked, heal = report["validation"], report["heal"]
    well = checked["verify"] == "ok" and checked["passed"] == checked["boots"]
    reason = "" if well else f"verify: {checked['verify']}; {checked['passed']} of {checked['boots']} boots"
    return Row(
        cell,
        str(about["tools"]["kernel"]),
        (report["base"]["text_bytes"], report["pruned"]["text_bytes"]),
        (report["base"]["image_bytes"], report["pruned"]["image_bytes"]),
        (checked["passed"], checked["boots"]),
        heal["rounds"],
        len(heal["added"]),
        reason,
    )


def _read(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text())
    assert isinstance(value, dict), path
    return value


def _reason(log: Path) -> str:
    """The last thing that kprune said when it failed."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("kprune: ")]
    return lines[-1].removeprefix("kprune: ").replace("|", "/") if lines else "see the log"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workload", type=Path, default=Path("examples/micro"))
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "kernels")
    parser.add_argument("--series", nargs="+", default=SERIES, metavar="KERNEL", help="as for kprune run")
    parser.add_argument("--compilers", nargs="+", default=COMPILERS, metavar="TOOLCHAIN", help="likewise")
    parser.add_argument("--architectures", nargs="+", default=ARCHITECTURES, choices=ARCHITECTURES)
    parser.add_argument("more", nargs="*", help="words for each kprune run, after --")
    options = parser.parse_args()
    out: Path = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    print(_HEAD, _RULE, sep="\n", flush=True)
    for words in itertools.product(options.series, options.compilers, options.architectures):
        cell = Cell(*words)
        print(f"{cell.name}: kprune run ... (its words: {out / cell.name}.log)", file=sys.stderr)
        rows.append(measure(cell, options.workload, out, options.more))
        print(rows[-1], flush=True)
        (out / "kernels.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    failed = sum(bool(row.reason) for row in rows)
    print(f"{failed} of {len(rows)} kernels failed", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
