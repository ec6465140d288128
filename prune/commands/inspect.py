"""``kprune why`` and ``kprune doctor``: questions about a run, and about the machine."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune.settings import cache_folder, load_settings
from tracer.host import HostError, UserError, show

if TYPE_CHECKING:
    from prune.plan.why import Answer
    from prune.run.pipeline import Pipeline


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
    from prune.build.doctor import doctor, table, to_json

    checks = doctor(cache_folder())
    show(json.dumps(to_json(checks), indent=1) if options.json else table(checks))
    return 0 if all(check.ok for check in checks) else HostError.exit_code


def _in_modules(pipeline: Pipeline, function: str) -> tuple[Answer, ...]:
    """What the plans of modules say of functions of this name."""
    from prune.build.modules import load_modules
    from prune.modules.model import read_module_model
    from prune.modules.plan import load_module_plan
    from prune.plan.why import explain

    found: tuple[Answer, ...] = ()
    for module in load_modules(pipeline.folder.path("base")):
        plan = load_module_plan(pipeline.folder.module_plans, module.path)
        model = plan and read_module_model(pipeline.model.objtree, module, pipeline.model.knowledge)
        if plan and model and function in model.image.text.functions:
            found += explain(model.image, model.graph, plan, function)
    return found


def _why(options: argparse.Namespace) -> int:
    from prune.plan.plan_file import load_plan
    from prune.plan.why import explain
    from prune.run.pipeline import Pipeline

    pipeline = Pipeline(load_settings(options.out.absolute()))
    model = pipeline.model
    answers = _in_modules(pipeline, options.function)
    try:
        own = explain(model.image, model.graph, load_plan(pipeline.folder.plan), options.function)
    except UserError:
        if not answers:
            raise
        own = ()
    answers = (*own, *answers)
    if options.json:
        show(json.dumps([asdict(answer) for answer in answers], indent=1))
    else:
        show("\n".join(map(str, answers)))
    return 0
