"""The command line: ``kprune VERB``. stdout is data, stderr is talk."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prune.commands import cache as cmd_cache
from prune.commands import compare as cmd_compare
from prune.commands import decode as cmd_decode
from prune.commands import holdout as cmd_holdout
from prune.commands import imports as cmd_import
from prune.commands import inspect as cmd_inspect
from prune.commands import ledger as cmd_ledger
from prune.commands import minram as cmd_minram
from prune.commands import observe as cmd_observe
from prune.commands import profile as cmd_profile
from prune.commands import security as cmd_security
from prune.commands import soak as cmd_soak
from prune.commands import speed as cmd_speed
from prune.commands import ssh_trace
from prune.run.run_options import (
    add_boot_options,
    add_plan_options,
    add_settings,
    add_trace_options,
    settings_of,
)
from tracer.host import HostError, KpruneError, leave, say, show
from tracer.machines.parallel import interrupt_on_term

_EPILOG = """\
exit codes:
  0  ok                              4  build or link failed
  1  validation failed               5  the guest panicked or missed a function, or a log says so
  2  usage, or wrong input           6  the guest was lost or ran out of time
  3  something is missing on this machine (kprune doctor)

begin with `kprune run examples/micro`; the other verbs are its stages, on the folder that it fills.
"""
_STAGES = {
    "trace": "run the workload on both kernels and write trace/profile.json",
    "plan": "decide which units to keep and write plan.json",
    "link": "link the pruned kernel",
    "verify": "read the pruned kernel again and prove it",
    "boot": "boot the pruned kernel and run the workload",
    "heal": "boot under jitter; what is missed joins the profile, and plan and link run again",
    "report": "measure both kernels and write report.json",
}
#: Verbs that are modules of their own.
_MORE = (
    cmd_import, cmd_profile, cmd_observe, cmd_compare, cmd_decode, cmd_inspect, cmd_cache, cmd_ledger,
    cmd_minram, cmd_holdout, cmd_security, cmd_speed, cmd_soak,
)  # fmt: skip
_NEXT = {
    "build": "trace",
    "trace": "plan",
    "plan": "link",
    "link": "verify",
    "verify": "boot",
    "boot": "heal",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Console entry point: run a verb, exit with its code."""
    interrupt_on_term()
    try:
        options = _parser().parse_args(arguments)
        code = options.handler(options)
        if arguments is None:
            leave(code)
        sys.exit(code)
    except KpruneError as error:
        print(f"kprune: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # whoever read our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        # Whatever no pass foresaw: a full disk, a folder that may not be read.
        say(f"{error.filename or 'input/output'}: {error.strerror or error}")
        sys.exit(HostError.exit_code)
    except KeyboardInterrupt:
        print("kprune: interrupted", file=sys.stderr)
        sys.exit(130)


class _Version(argparse.Action):
    """Says which kprune this is; looks it up only when it is asked, for that takes a while."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"kprune {version('kprune')}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kprune", description="Keep of a Linux kernel only what a workload runs.",
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action=_Version, help="print it, and leave")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, text in (
        ("run", "all stages: from a workload to a pruned kernel"),
        ("build", "build the production kernel and the traced one"),
    ):
        made = verbs.add_parser(verb, help=text, description=text)
        made.set_defaults(handler=_stage)
        add_settings(made)
    for verb, text in _STAGES.items():
        made = verbs.add_parser(verb, help=text, description=text)
        made.set_defaults(handler=_stage)
        made.add_argument("out", type=Path, metavar="OUT", help="folder that kprune run or build began")
        made.add_argument("--dry-run", action="store_true", help="say what would be done")
        made.add_argument("--json", action="store_true", help="print the result as JSON")
        if verb in ("plan", "heal"):
            add_plan_options(made)
        if verb == "trace":
            add_trace_options(made)
            ssh_trace.add_options(made)
        if verb in ("boot", "heal"):
            add_boot_options(made)
    for module in _MORE:
        module.add_parser(verbs)
    return parser


def _stage(options: argparse.Namespace) -> int:
    """``run`` and its stages."""
    if options.verb == "trace":
        ssh_trace.check_options(options)
        if options.ssh:
            return ssh_trace.run(options)
    from prune.run.pipeline import Pipeline  # LIEF, capstone and networkx: not for --help.

    pipeline = Pipeline(settings_of(options), options.dry_run)
    if options.verb in ("run", "heal", "report"):
        _show(options, getattr(pipeline, options.verb)())
    elif options.verb == "boot":
        pipeline.boot(range(options.boots or 1))
        _show_file(options, pipeline.folder.boots)
    else:
        getattr(pipeline, options.verb)()
        produced = {
            "trace": pipeline.folder.traced_profile, "plan": pipeline.folder.plan,
            "verify": pipeline.folder.verdict,
        }  # fmt: skip
        _show_file(options, produced.get(options.verb))
    if options.verb in _NEXT and not options.dry_run:
        print(f"kprune: next: kprune {_NEXT[options.verb]} {pipeline.settings.out}", file=sys.stderr)
    return 0


def _show(options: argparse.Namespace, report: dict[str, Any]) -> None:
    from prune.report.report import table

    if report:
        show(json.dumps(report, indent=1) if options.json else table(report))


def _show_file(options: argparse.Namespace, path: Path | None) -> None:
    if options.json and path and not options.dry_run:
        sys.stdout.write(path.read_text())


if __name__ == "__main__":
    main()
