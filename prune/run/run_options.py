"""The command line's options that are settings of a run, and the settings that they make."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from prune.build.source import is_package
from prune.build.toolchain import LTO, OPTIMISATIONS, TOOLCHAINS, toolchain_name
from prune.settings import CHANCES, GRAINS, SOURCES, WIDTHS, Settings, load_settings
from tracer.host import UserError

#: Settings that a verb may change for its folder.
_CHANGES = (
    "keep", "grain", "chance", "free_boot", "named", "rules", "profile", "accept_stale", "sources",
    "trace_runs", "quiet", "boots", "heal_rounds", "sleepers",
)  # fmt: skip


def add_settings(parser: argparse.ArgumentParser) -> None:
    """All of them, for verbs that begin a run."""
    parser.add_argument("workload", type=Path, metavar="WORKLOAD", help="folder with a workload.toml")
    parser.add_argument("--arch", default="", help="one of the workload's architectures (its first)")
    parser.add_argument("--out", "-o", type=Path, help="folder for the results (default out/NAME)")
    parser.add_argument(
        "--kernel",
        type=Path,
        help="tree, tarball or .deb of 6.0 or later, or a package of Debian's by name (linux-source-6.1)",
    )
    parser.add_argument("--config", type=Path, help="a full .config instead of tinyconfig")
    parser.add_argument(
        "--fragment", type=Path, action="append", default=[], metavar="FILE",
        help="configuration fragment over the workload's; may be given again",
    )  # fmt: skip
    parser.add_argument(
        "--toolchain", type=_toolchain, default="gcc", metavar="|".join(TOOLCHAINS),
        help="compiler and linker, or a version of them as in clang-19 (gcc)",
    )  # fmt: skip
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
    add_boot_options(parser)
    parser.add_argument(
        "--jobs",
        "-j",
        type=_count,
        default=0,
        help="compilers, and guests, at a time (default: processors)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands, run none")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    add_plan_options(parser)
    add_trace_options(parser)


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    """What decides what stays."""
    parser.add_argument("--keep", choices=WIDTHS, help="how far around hot code to keep (default ran)")
    parser.add_argument(
        "--grain", choices=GRAINS,
        help="what goes: cold functions, or also the cold blocks of hot ones (default function)",
    )  # fmt: skip
    parser.add_argument(
        "--chance", choices=CHANCES,
        help="what stays where time says what runs: what hot functions call there, and by the block their "
        "cold blocks (default blocks)",
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


def add_trace_options(parser: argparse.ArgumentParser) -> None:
    """What is traced, and how often."""
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


def add_boot_options(parser: argparse.ArgumentParser) -> None:
    """How often is booted."""
    parser.add_argument("--boots", type=_count, metavar="N", help="boots of a round (default 10)")
    parser.add_argument(
        "--heal-rounds", type=_count, metavar="N", help="rounds that may heal something (default 5)"
    )


def _toolchain(text: str) -> str:
    try:
        return toolchain_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def settings_of(options: argparse.Namespace) -> Settings:
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
    from tracer.workloads.workload_file import load_workload

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
