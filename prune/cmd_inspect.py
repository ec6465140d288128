"""``kprune why`` and ``kprune doctor``: questions about a run, and about the machine."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prune.settings import cache_folder, load_settings
from tracer.host import HostError, show


def add_parser(verbs: Any) -> None:
    """Add both verbs to the command line's."""
    why = verbs.add_parser("why", help="why a function was kept or dropped")
    why.add_argument("function", metavar="FUNCTION", help="a function's name, or object:section")
    why.add_argument("out", type=Path, metavar="OUT")
    why.add_argument("--json", action="store_true", help="print the answer as JSON")
    why.set_defaults(handler=_why)
    doctor = verbs.add_parser("doctor", help="what this machine lacks, and the command that mends it")
    doctor.add_argument("--json", action="store_true", help="print the checks as JSON")
    doctor.set_defaults(handler=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from prune.doctor import doctor, table, to_json

    checks = doctor(cache_folder())
    show(json.dumps(to_json(checks), indent=1) if options.json else table(checks))
    return 0 if all(check.ok for check in checks) else HostError.exit_code


def _why(options: argparse.Namespace) -> int:
    from prune.pipeline import Pipeline
    from prune.plan_file import load_plan
    from prune.why import explain

    pipeline = Pipeline(load_settings(options.out.absolute()))
    model = pipeline.model
    answers = explain(model.image, model.graph, load_plan(pipeline.folder.plan), options.function)
    if options.json:
        show(json.dumps([asdict(answer) for answer in answers], indent=1))
    else:
        show("\n".join(map(str, answers)))
    return 0
