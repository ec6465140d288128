"""The command line: ``kprune VERB``. stdout is data, stderr is talk."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prune import (
    cmd_cache,
    cmd_compare,
    cmd_decode,
    cmd_holdout,
    cmd_import,
    cmd_inspect,
    cmd_ledger,
    cmd_minram,
    cmd_observe,
    cmd_profile,
    cmd_security,
    cmd_soak,
    cmd_speed,
    ssh_trace,
)
from prune.settings import GRAINS, SOURCES, WIDTHS, Settings, load_settings
from prune.source import is_package
from prune.toolchain import LTO, OPTIMISATIONS, TOOLCHAINS
from tracer.host import HostError, KpruneError, UserError, leave, say, show
from tracer.parallel import interrupt_on_term

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


#: Settings that a verb may change for its folder.
_CHANGES = (
    "keep", "grain", "free_boot", "named", "rules", "profile", "accept_stale", "sources", "trace_runs",
    "quiet", "boots", "heal_rounds", "sleepers",
)  # fmt: skip


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kprune", description="Keep of a Linux kernel only what a workload runs.",
        epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, text in (
        ("run", "all stages: from a workload to a pruned kernel"),
        ("build", "build the production kernel and the traced one"),
    ):
        made = verbs.add_parser(verb, help=text, description=text)
        made.set_defaults(handler=_stage)
        _add_settings(made)
    for verb, text in _STAGES.items():
        made = verbs.add_parser(verb, help=text, description=text)
        made.set_defaults(handler=_stage)
        made.add_argument("out", type=Path, metavar="OUT", help="folder that kprune run or build began")
        made.add_argument("--dry-run", action="store_true", help="say what would be done")
        made.add_argument("--json", action="store_true", help="print the result as JSON")
        if verb in ("plan", "heal"):
            _add_plan_options(made)
        if verb == "trace":
            _add_trace_options(made)
            ssh_trace.add_options(made)
        if verb in ("boot", "heal"):
            _add_boot_options(made)
    for module in _MORE:
        module.add_parser(verbs)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workload", type=Path, metavar="WORKLOAD", help="folder with a workload.toml")
    parser.add_argument("--arch", default="", help="one of the workload's architectures (its first)")
    parser.add_argument("--out", "-o", type=Path, help="folder for the results (default out/NAME)")
    parser.add_argument(
        "--kernel",
        type=Path,
        help="a 6.x source tree or tarball, or a package of Debian's (default: linux-source-6.1)",
    )
    parser.add_argument("--config", type=Path, help="a full .config instead of tinyconfig")
    parser.add_argument(
        "--fragment", type=Path, action="append", default=[], metavar="FILE",
        help="configuration fragment over the workload's; may be given again",
    )  # fmt: skip
    parser.add_argument("--toolchain", choices=TOOLCHAINS, default="gcc", help="compiler and linker (gcc)")
    parser.add_argument(
        "--lto", choices=LTO, default="none", help="link-time optimisation, with clang (none)"
    )
    parser.add_argument(
        "--opt", choices=OPTIMISATIONS, default="config", help="-Os, -O2, or as configured (config)"
    )
    parser.add_argument(
        "--single-build", action="store_true",
        help="build one kernel, with ftrace in it, which is traced and pruned",
    )  # fmt: skip
    heal = parser.add_mutually_exclusive_group()
    heal.add_argument("--heal", action="store_true", default=True, help="mend what boots miss (default)")
    heal.add_argument("--no-heal", dest="heal", action="store_false", help="report a miss, do not mend it")
    _add_boot_options(parser)
    parser.add_argument(
        "--jobs",
        "-j",
        type=_count,
        default=0,
        help="compilers, and guests, at a time (default: processors)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run none")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    _add_plan_options(parser)
    _add_trace_options(parser)


def _add_plan_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--keep", choices=WIDTHS, help="how far around hot code to keep (default ran)")
    parser.add_argument(
        "--grain", choices=GRAINS,
        help="what goes: cold functions, or also the cold blocks of hot ones (default function)",
    )  # fmt: skip
    parser.add_argument(
        "--keep-boot", dest="free_boot", action="store_false", default=None,
        help="leave in memory what only booting runs",
    )  # fmt: skip
    parser.add_argument(
        "--tombstone-names", dest="named", action="store_true", default=None,
        help="put the names of dropped functions into kallsyms, too",
    )  # fmt: skip
    parser.add_argument("--rules", type=Path, help="keep rules, and policies for misses (TOML)")
    parser.add_argument(
        "--profile", type=Path,
        help="take this profile instead of what was traced here; none: no profile, drop what nothing reaches",
    )  # fmt: skip
    parser.add_argument(
        "--accept-stale-profile", dest="accept_stale", action="store_true", default=None,
        help="take profiles of another source or other options too (another compiler's are taken anyway)",
    )  # fmt: skip


def _add_trace_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sources", choices=SOURCES, help="what sees (default ftrace+blocks)")
    parser.add_argument(
        "--trace-runs", type=_count, metavar="N", help="so many runs (default: until they add nothing)"
    )
    parser.add_argument(
        "--quiet-runs", type=_count, metavar="K", dest="quiet",
        help="runs in a row that must add nothing (default 2)",
    )  # fmt: skip

    parser.add_argument(
        "--sleepers", type=Path, metavar="PROFILE",
        help="a profile that says where tasks sleep: with --sources blocks, no traced kernel is built",
    )  # fmt: skip


def _add_boot_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--boots", type=_count, metavar="N", help="boots of a round (default 10)")
    parser.add_argument(
        "--heal-rounds", type=_count, metavar="N", help="rounds that may heal something (default 5)"
    )


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _stage(options: argparse.Namespace) -> int:
    """``run`` and its stages."""
    if options.verb == "trace":
        ssh_trace.check_options(options)
        if options.ssh:
            return ssh_trace.run(options)
    from prune.pipeline import Pipeline  # LIEF, capstone and networkx: not for --help.

    pipeline = Pipeline(_settings(options), options.dry_run)
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


def _settings(options: argparse.Namespace) -> Settings:
    """Of the command line for ``run`` and ``build``, else of ``OUT/run.json``, with changes."""
    changes: dict[str, Any] = {}
    for name in _CHANGES:
        value = getattr(options, name, None)
        if value is not None and (name, options.verb) != ("boots", "boot"):
            changes[name] = value.absolute() if isinstance(value, Path) else value
    if getattr(options, "profile", None) == Path("none"):
        changes |= {"profile": None, "static": True}
    elif "profile" in changes:
        changes["static"] = False
    for name in ("rules", "profile", "sleepers"):
        if changes.get(name) and not changes[name].is_file():
            raise UserError(f"reading --{name}: {changes[name]} does not exist")
    if options.verb == "heal":
        changes["heal"] = True
    if options.verb not in ("run", "build"):
        kept = load_settings(options.out.absolute())
        settings = Settings(**{**{k: getattr(kept, k) for k in kept.__dataclass_fields__}, **changes})
        if changes:
            settings.save()
        return settings
    kernel, config = options.kernel, options.config
    packaged = kernel is not None and is_package(kernel)
    given = [("kernel", None if packaged else kernel), ("config", config)]
    for name, path in (*given, *(("fragment", each) for each in options.fragment)):
        if path and not path.exists():
            raise UserError(f"reading --{name}: {path} does not exist")
    changes["kernel"] = kernel.absolute() if kernel and not packaged else kernel
    changes["config"] = config.absolute() if config else None
    changes["fragments"] = tuple(each.absolute() for each in options.fragment)
    from tracer.workload_file import load_workload

    workload = load_workload(options.workload, options.arch)
    out = options.out or Path("out") / workload.title
    return Settings(
        workload=options.workload.absolute(),
        out=out.absolute(),
        arch=workload.arch,
        jobs=options.jobs,
        toolchain=options.toolchain,
        lto=options.lto,
        opt=options.opt,
        heal=options.heal,
        single_build=options.single_build,
        **changes,
    )


def _show(options: argparse.Namespace, report: dict[str, Any]) -> None:
    from prune.report import table

    if report:
        show(json.dumps(report, indent=1) if options.json else table(report))


def _show_file(options: argparse.Namespace, path: Path | None) -> None:
    if options.json and path and not options.dry_run:
        sys.stdout.write(path.read_text())


if __name__ == "__main__":
    main()
