"""``kprune import``: traces that were made elsewhere become profiles of a folder's kernel."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prune.folder import Folder
from tracer.elsewhere.imported import COLLECT, Imported, import_file
from tracer.elsewhere.matching import ANOTHER, PRODUCTION, TRACED, Kernels
from tracer.host import UserError, printable, say, show
from tracer.profiles.profile import Profile, save_profile
from tracer.profiles.symbols import load_symbols

_DESCRIPTION = """\
Read traces made elsewhere, find the functions of OUT's kernel in them, and write profiles to OUT/imports,
which `kprune plan OUT` takes into account. The format is recognised: tars of collect.sh, trace-cmd, perf
script, trace_stat, drcov, lcov. Functions are found by the kernel's build id where the trace has one, else by
name.
"""
#: A trace of a kernel that has fewer of our names than this is probably of something else.
_FEW = 0.5


@dataclass(frozen=True)
class Result:
    """An imported file, and where its profile goes."""

    file: Path
    output: Path
    imported: Imported


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line's."""
    made = verbs.add_parser(
        "import", help="take traces made elsewhere: on hardware, by trace-cmd, perf, ...",
        description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    made.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a trace")
    made.add_argument(
        "--into", required=True, type=Path, metavar="OUT", help="folder that kprune run or build began"
    )
    made.add_argument(
        "--format", default="", help=f"instead of recognising it: {COLLECT}, trace-cmd, perf, ..."
    )
    made.add_argument(
        "--app", default="", metavar="NAME", help="the app that ran, where a trace does not say"
    )
    made.add_argument(
        "--of",
        default="",
        choices=(TRACED, PRODUCTION),
        help="which kernel of OUT ran, where a trace does not say",
    )
    made.add_argument("--output", type=Path, metavar="PROFILE.json", help="instead of OUT/imports/FILE.json")
    made.add_argument("--json", action="store_true", help="print what was found as JSON")
    made.set_defaults(handler=run)


def run(options: argparse.Namespace) -> int:
    """Import every file, or none.

    Raises:
        UserError: a file cannot be read or matched, or two would have one output.
        ValidationFailed: a trace is not complete.
    """
    out = options.into.absolute()
    if options.output and len(options.files) > 1:
        raise UserError(f"importing {len(options.files)} files: they cannot all become {options.output}")
    kernels = load_kernels(Folder(out))
    outputs = [options.output or output_of(file, out) for file in options.files]
    for file, output in zip(options.files, outputs, strict=True):
        if outputs.count(output) > 1:
            raise UserError(
                f"importing {file}: another file would be {output} too", "import it with --output"
            )
    results = [
        Result(file, output, import_file(file, kernels, options.app, options.format, options.of))
        for file, output in zip(options.files, outputs, strict=True)
    ]
    for result in results:
        save_profile(result.imported.profile, result.output)
    show(json.dumps([to_json(r) for r in results], indent=1) if options.json else table(results))
    for result in results:
        warn(result)
    if not options.output:
        say(f"next: kprune plan {options.into}")
    return 0


def load_kernels(folder: Folder) -> Kernels:
    """The functions of the folder's kernels; the traced one need not be there.

    Raises:
        UserError: the production kernel's are missing or damaged.
    """
    production, traced = folder.base("symbols.json"), folder.traced("symbols.json")
    if not production.is_file():
        raise UserError(f"importing into {folder.out}: it has no kernel", "kprune build WORKLOAD --out OUT")
    return Kernels(
        load_symbols(production, PRODUCTION), load_symbols(traced, TRACED) if traced.is_file() else None
    )


def output_of(file: Path, out: Path) -> Path:
    """Where a file's profile goes; its name without what would hide it or lead elsewhere."""
    return out / "imports" / f"{re.sub(r'[^A-Za-z0-9._-]|^[.-]+', '_', file.stem)}.json"


def per_app(profile: Profile) -> dict[str, int]:
    """App -> how many functions it ran."""
    counts = dict.fromkeys(profile.apps, 0)
    for function in profile.functions:
        for app in {seen.app for seen in function.seen}:
            counts[app] = counts.get(app, 0) + 1
    return counts


def table(results: list[Result]) -> str:
    """Functions per app of each file, for a person."""
    lines = []
    for result in results:
        profile, imported = result.imported.profile, result.imported
        lines.append(f"{result.file}: {profile.sources[0]}, {_KERNELS[imported.kernel]}")
        counts = per_app(profile)
        width = max(len(name) for name in (*counts, "all apps"))
        lines += [f"  {printable(app):<{width}} {count:>7,} functions" for app, count in counts.items()]
        lines += [f"  {'all apps':<{width}} {len(profile.functions):>7,} functions"]
        lines += [
            f"  of {imported.names:,} names: {len(profile.ambiguous):,} ambiguous (all functions of that "
            f"name are kept), {len(profile.unmatched):,} unmatched"
        ]
    return "\n".join(lines)


_KERNELS = {
    TRACED: "of the traced kernel",
    PRODUCTION: "of the production kernel",
    ANOTHER: "of another kernel, matched by name",
}


def warn(result: Result) -> None:
    """Say what is doubtful about it."""
    profile, imported = result.imported.profile, result.imported
    for failed in imported.failed:
        say(f"warning: {result.file}: it was collected without {failed}")
    if imported.kernel == ANOTHER and len(profile.unmatched) > _FEW * imported.names:
        share = 1 - len(profile.unmatched) / imported.names
        say(f"warning: {result.file}: only {share:.0%} of its names are functions of this kernel")


def to_json(result: Result) -> dict[str, Any]:
    """As data, for a script."""
    profile, imported = result.imported.profile, result.imported
    return {
        "file": str(result.file),
        "profile": str(result.output),
        "source": profile.sources[0],
        "kernel": imported.kernel,
        "version": imported.version,
        "build_id": profile.traced_build_id,
        "functions": len(profile.functions),
        "apps": per_app(profile),
        "runs": len(profile.runs),
        "names": imported.names,
        "ambiguous": len(profile.ambiguous),
        "unmatched": len(profile.unmatched),
        "blind": sum(len(spot.functions) for spot in profile.blind_spots),
        "failed": list(imported.failed),
    }
