"""``kprune security OUT``: what each kernel offers to somebody who got in, and which known holes are gone.

System calls that answer, and the functions behind each (prune/security/surface.py says what that means);
gadgets and targets of indirect calls; with a list of CVEs and their functions, what has become of these.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune.security.exposure import EACH, HOW, SCHEMA, SIDES, offers, states
from prune.settings import load_settings
from tracer.host import say, show, write_json

if TYPE_CHECKING:
    from prune.model.functions import Functions
    from prune.run.pipeline import Pipeline
    from prune.security.cves import Hole

CALL_HEAD = (
    "system_call", "bits", "entry",
    *(f"{side}_{how}_{what}" for side in SIDES for how in EACH for what in ("functions", "bytes")),
)  # fmt: skip
CVE_HEAD = ("cve", "verdict", "function", "file", "state", "symbol", "object", "base_bytes", "pruned_bytes")


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line's."""
    made = verbs.add_parser(
        "security", help="system calls and what is behind them, gadgets, which CVEs' functions are gone",
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    made.add_argument("out", type=Path, metavar="OUT")
    made.add_argument(
        "--cves", type=Path, metavar="FILE",
        help="a list of CVEs and their functions, TOML or CSV (examples/micro/cves.toml)",
    )  # fmt: skip
    form = made.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the result as JSON")
    form.add_argument(
        "--csv", action="store_true", help="print a line for each system call; with --cves, for each function"
    )
    made.set_defaults(handler=run)


def run(options: argparse.Namespace) -> int:
    """Measure, write ``OUT/security.json`` and print it.

    Raises:
        UserError: there are no such kernels, or the list of CVEs is damaged.
    """
    from prune.run.pipeline import Pipeline
    from prune.security.cves import read_holes

    holes = read_holes(options.cves) if options.cves else None  # before anything that takes time
    pipeline = Pipeline(load_settings(options.out.absolute()))
    result = measure(pipeline, holes)
    write_json(pipeline.folder.security, result)
    if options.json:
        show(json.dumps(result, indent=1))
    elif options.csv:
        csv.writer(sys.stdout).writerows(call_rows(result) if holes is None else cve_rows(result))
    else:
        show(table(result))
    say(f"next: kprune report {pipeline.settings.out} shows it in report.html")
    return 0


def measure(pipeline: Pipeline, holes: Sequence[Hole] | None) -> dict[str, Any]:
    """What ``security.json`` holds: ``build_id`` and ``kernels`` by side; ``system_calls``, each with what is
    behind it by side, None where it does not answer; ``cves``, None without a list."""
    from prune.model.buildid import build_id
    from prune.model.linkmap import take_apart
    from prune.model.mapfile import read_link_map
    from prune.security.cves import judge
    from prune.security.security import look_at
    from prune.security.surface import find_entries, kernel_of, measure_calls

    model, folder = pipeline.model, pipeline.folder
    maps = {side: read_link_map(folder.path(f"{side}/vmlinux.map")) for side in SIDES}
    files = {side: folder.path(f"{side}/vmlinux") for side in SIDES}
    kernels = {
        "base": kernel_of(model.functions, take_apart(maps["base"], model.image.pieces)),
        "pruned": kernel_of(_without_cold(pipeline), maps["pruned"]),
    }
    offered = {side: look_at(files[side], model.knowledge) for side in SIDES}
    entries = find_entries(model.functions, model.knowledge)
    calls, sums = measure_calls(kernels, {side: offered[side].system_calls for side in SIDES}, entries)
    judged = (
        None
        if holes is None
        else judge(holes, kernels["base"], kernels["pruned"], pipeline.production.source.path)
    )
    widths = sorted({call.bits for call in calls}, reverse=True)
    return {
        "schema_version": SCHEMA,
        "build_id": {side: build_id(files[side]) for side in SIDES},
        "kernels": {
            side: {
                "system_calls": {
                    str(bits): sum(call.bits == bits and getattr(call, side) is not None for call in calls)
                    for bits in widths
                },
                "gadgets": offered[side].gadgets,
                "indirect_targets": offered[side].indirect_targets,
                "functions": asdict(sums[side].all),
                "reachable": {how: asdict(getattr(sums[side], how)) for how in HOW},
            }
            for side in SIDES
        },
        "system_calls": [asdict(call) for call in calls],
        "cves": None if judged is None else [asdict(each) for each in judged],
    }  # fmt: skip


def _without_cold(pipeline: Pipeline) -> Functions:
    """The functions of the pruned kernel, with the references of what is left of them."""
    from prune.plan.plan_file import load_plan

    model, cold = pipeline.model, load_plan(pipeline.folder.plan).cold
    if not cold:
        return model.functions
    # Disassembling is for those who want it.
    from prune.model.functions import make_functions
    from prune.plan.trim import trim

    ranges = {model.image.unit_of[place]: each for place, each in cold.items()}
    image, tables, _ = trim(model.image, model.tables, ranges, model.knowledge)
    return make_functions(image, tables, model.knowledge)


def call_rows(result: Mapping[str, Any]) -> Iterator[Sequence[object]]:
    """System calls for CSV, the head first; what does not answer has no numbers."""
    yield CALL_HEAD
    for call in result["system_calls"]:
        numbers = [
            call[side][how][what] if call[side] else ""
            for side in SIDES for how in EACH for what in ("functions", "bytes")
        ]  # fmt: skip
        yield [call["name"], call["bits"], call["entry"], *numbers]


def cve_rows(result: Mapping[str, Any]) -> Iterator[Sequence[object]]:
    """What has become of each function of each CVE, the head first; a line for each clone."""
    yield CVE_HEAD
    for hole in result["cves"]:
        for each in hole["functions"]:
            head = [hole["id"], hole["verdict"], each["function"], each["file"]]
            for piece in each["pieces"]:
                yield [
                    *head,
                    piece["state"],
                    piece["symbol"],
                    piece["object"],
                    piece["base"],
                    piece["pruned"],
                ]
            if not each["pieces"]:
                yield [*head, each["state"], "", "", "", ""]


def table(result: Mapping[str, Any]) -> str:
    """The result for a person."""
    lines = [f"{'':40}{'base':>10}{'pruned':>10}"]
    lines += [f"{name:40}{before:>10,}{after:>10,}" for name, before, after in offers(result)]
    lines += ["", *_calls(result["system_calls"])]
    return "\n".join([*lines, "", *_cves(result["cves"])] if result["cves"] else lines)


def _calls(calls: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Those that answer in the pruned kernel."""
    yield f"{'functions behind each that answers':34}{'by calls':>20}{'by references':>20}"
    yield f"{'':34}{'base':>10}{'pruned':>10}{'base':>10}{'pruned':>10}"
    several = len({call["bits"] for call in calls}) > 1
    for call in calls:
        if call["pruned"]:
            numbers = (call[side][how]["functions"] if call[side] else 0 for how in EACH for side in SIDES)
            name = f"{call['name']} ({call['bits']} bit)" if several else call["name"]
            yield f"{name:34}" + "".join(f"{number:>10,}" for number in numbers)


def _cves(judged: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for hole in judged:
        yield f"{hole['id']:20}{hole['verdict']:14}{states(hole)}"
