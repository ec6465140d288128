"""``make bench``: what kprune costs, against other linkers and link-time optimisation, and as kernels grow.

``python -m prune.bench [--kernels "tiny micro defconfig"] [--lto "micro defconfig"] [--rounds N] [--json]``.
For every kernel, all contenders link the same objects once, without kallsyms, in rounds that take turns; with
LTO they are clang's of the same configuration. The table goes to stdout, with everything behind it to
``out/bench/bench.json``. What is not built is built first, which takes hours for defconfig with LTO.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prune.bench.kernels import KERNELS, BenchKernel, Kernels
from prune.bench.links import Contender, lto_link, plain_links, pruned_links
from prune.bench.run import run_rounds
from prune.bench.table import growth, growth_table, kernel_table, make_rows
from prune.bench.vmlinux import read_vmlinux
from prune.build.doctor import require
from prune.build.toolchain import version_of
from tracer.host import KpruneError, command_line, say, write_json

SCHEMA = 1
_LTO = (("ThinLTO", "thin"), ("full LTO", "full"))
#: Rounds of the links with LTO, which take minutes: no noise matters there.
_LTO_ROUNDS = 1


def main(words: Sequence[str] | None = None) -> None:
    """Command line."""
    options = _options(words)
    with command_line():
        result = bench(options)
    print(json.dumps(result, indent=1) if options.json else text_of(result))


def _options(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--kernels", default=" ".join(KERNELS), help="of tiny, micro, defconfig")
    parser.add_argument("--lto", default="micro defconfig", help='of which with LTO, too ("" for none)')
    parser.add_argument("--rounds", type=int, default=5, help="of every contender but LTO (default 5)")
    parser.add_argument("--workload", type=Path, default=Path("examples/micro"))
    parser.add_argument("--demo", type=Path, default=Path("out/micro"), help="the folder of make demo")
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(words)


def bench(options: argparse.Namespace) -> dict[str, Any]:
    """Build what is missing, measure, and write ``bench.json``; its content.

    Raises:
        KpruneError: a kernel cannot be built, or a link failed.
    """
    require(("ld", "ld.lld"))
    home = options.out.absolute()
    kernels = Kernels(options.workload.absolute(), options.demo.absolute(), home)
    made = [kernels.kernel(name) for name in options.kernels.split()]
    # All builds before all measurements: the machine is to be quiet.
    fields = {kernel.name: _contenders(kernels, kernel, options) for kernel in made}
    measured = {kernel.name: _measure(kernel, fields[kernel.name], options.rounds, home) for kernel in made}
    result = {
        "schema_version": SCHEMA,
        "machine": machine(),
        "kernels": measured,
        "growth": growth({name: each["rows"] for name, each in measured.items()}),
    }
    write_json(home / "bench.json", result)
    return result


def _contenders(
    kernels: Kernels, kernel: BenchKernel, options: argparse.Namespace
) -> tuple[list[Contender], dict[str, str]]:
    """What is measured, and label -> why not for what cannot be."""
    build, scratch = kernel.build, kernels.home / kernel.name / "links"
    scratch.mkdir(parents=True, exist_ok=True)
    found = [
        *plain_links(build.objtree, build.artefacts, scratch),
        *pruned_links(kernel.out, build.objtree, build.arch, scratch),
    ]
    lost: dict[str, str] = {}
    for label, lto in _LTO:
        if kernel.name not in options.lto.split():
            lost[label] = "not asked for"
            continue
        try:
            made = kernels.lto(kernel.name, lto)
            found.append(lto_link(label, made.objtree, made.artefacts, scratch, _LTO_ROUNDS))
        except KpruneError as error:
            say(f"bench: {kernel.name}, {label}: {error}")
            lost[label] = str(error)
    return found, lost


def _measure(
    kernel: BenchKernel, field: tuple[list[Contender], dict[str, str]], rounds: int, home: Path
) -> dict[str, Any]:
    contenders, lost = field
    say(f"bench: {kernel.name}")
    costs = run_rounds(contenders, rounds, home / kernel.name / "links.log")
    # Both kprunes write to the same place: what they link is the same.
    made = {each.label: read_vmlinux(each.vmlinux) for each in contenders}
    shutil.rmtree(home / kernel.name / "links", ignore_errors=True)
    return {
        **kernel.size(),
        "functions": made["ld"].functions,
        "profile": kernel.profile,
        "rows": make_rows(costs, made, lost),
    }


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    tools = {"ld": "ld", "lld": "ld.lld"}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    return {
        "processors": len(os.sched_getaffinity(0)),
        "memory_mib": memory,
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
        **{label: version_of(tool) for label, tool in tools.items()},
    }


def text_of(result: Mapping[str, Any]) -> str:
    """The tables, for a terminal."""
    facts = result["machine"]
    lines = [
        f"{facts['processors']} processors; {facts['ld']}; {facts['lld']}; Python {facts['python']}",
        "each links once, without kallsyms; times are medians of the rounds, ratios of the same round's ld",
    ]
    for name, kernel in result["kernels"].items():
        lines += ["", *kernel_table(name, kernel)]
    if len(result["kernels"]) > 1:
        lines += ["", *growth_table(result)]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
