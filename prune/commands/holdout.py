"""``kprune holdout OUT``: programs that nobody profiled, one by one on the pruned kernel and on its base."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune.folder import Folder
from prune.guests.held_out import (
    FAULTS,
    KILLED,
    OUTCOMES,
    PANICKED,
    SAME,
    SCHEMA,
    WRONG,
    Fate,
    count,
    judge,
    read_programs,
)
from prune.model.buildid import build_id
from prune.plan.policy import may_answer
from prune.settings import WIDTHS, Settings, cache_folder, load_settings
from prune.stages import occupy
from tracer.host import UserError, ValidationFailed, say, show, write_json

if TYPE_CHECKING:
    from prune.guests.held_out import ProgramList, Ran
    from prune.run.pipeline import Pipeline
    from tracer.files.rootfs import Roots
    from tracer.workloads.workload import Workload


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line's."""
    made = verbs.add_parser(
        "holdout", help="what becomes of programs that were never profiled", description=__doc__
    )
    made.add_argument("out", type=Path, metavar="OUT")
    made.add_argument(
        "--programs", type=Path, required=True, metavar="FILE", help="the programs (examples/holdout)"
    )
    made.add_argument(
        "--keep", action="append", choices=WIDTHS, default=[], metavar="WIDTH",
        help=f"prune as wide as that as well, beside OUT's own; of {', '.join(WIDTHS)}; may be repeated",
    )  # fmt: skip
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    made.set_defaults(handler=run)


@dataclass(frozen=True)
class Held:
    """One pruned kernel: how wide it was pruned, its bytes of text, and what became of each program."""

    keep: str
    grain: str
    text_bytes: int
    resident_text_bytes: int
    fates: tuple[Fate, ...]

    def to_json(self) -> dict[str, Any]:
        value = asdict(self) | {"outcomes": count(self.fates)}
        return {**value, "fates": [asdict(fate) for fate in self.fates]}


def run(options: argparse.Namespace) -> int:
    """Run them, write ``OUT/holdout.json`` and print it.

    Raises:
        UserError: there are no such kernels or programs.
        ValidationFailed: a program printed something else without a word, or a guest hung.
    """
    from prune.guests.holdout import own_files, with_programs
    from prune.run.pipeline import Pipeline
    from tracer.files.rootfs import Roots
    from tracer.workloads.workload_file import load_workload

    listed = read_programs(options.programs)
    settings = load_settings(options.out.absolute())
    occupy(settings.out)
    folder = Folder(settings.out)
    if not folder.pruned("bzImage").is_file():
        raise UserError(f"running programs: {options.out} has no pruned kernel", f"kprune link {options.out}")
    workload = with_programs(load_workload(settings.workload, settings.arch), listed)
    into = folder.path("holdout")
    roots = Roots(workload, into, cache_folder(), own_files(listed, workload.machine.memory))
    pipelines = [Pipeline(settings)]
    for width in dict.fromkeys(options.keep):
        if width != settings.keep:
            pipelines.append(_other_width(settings, into / f"keep-{width}", width))
    wanted, ran = _run_all(workload, listed, roots, folder, [each.folder for each in pipelines])
    kernels = []
    for pipeline, results in zip(pipelines, ran, strict=True):
        fates = _judged(listed, wanted, results)
        size = pipeline.report()["pruned"]
        kernels.append(
            Held(
                pipeline.settings.keep, settings.grain, size["text_bytes"], size["resident_text_bytes"], fates
            )
        )
    value = {
        "schema_version": SCHEMA,
        "build_id": build_id(folder.pruned("vmlinux")),
        "kernels": [kernel.to_json() for kernel in kernels],
    }
    write_json(folder.path("holdout.json"), value)
    show(json.dumps(value, indent=1) if options.json else table(kernels))
    for line in policies_for(kernels):
        say(line)
    say(f"next: kprune report {options.out}, which draws it")
    faults = [fate for kernel in kernels for fate in kernel.fates if fate.outcome in FAULTS]
    if faults:
        first = ", ".join(f"{fate.name}: {fate.outcome}" for fate in faults[:5])
        raise ValidationFailed(f"running programs that were not profiled: {first}")
    return 0


def policies_for(kernels: Sequence[Held]) -> Iterator[str]:
    """What a user may do for programs that were killed where an error would be the kernel's own way."""
    for each in kernels:
        ended = [fate for fate in each.fates if fate.outcome in (KILLED, PANICKED) and fate.missed]
        names = (fate.missed[0].partition(" ")[0].partition("+")[0] for fate in ended)
        families = Counter(family for name in names for family in may_answer(name))
        if families:
            said = ", ".join(f"{family} for {many}" for family, many in families.most_common())
            first = families.most_common(1)[0][0]
            yield (
                f"--keep {each.keep}: of {len(ended)} programs that were ended, builtin policies may answer "
                f'instead: {said} (kprune plan OUT --rules FILE, where FILE says builtin = ["{first}"])'
            )


def _other_width(settings: Settings, out: Path, width: str) -> Pipeline:
    """The same kernel pruned by the same profile, another width around what ran; not booted."""
    from prune.run.pipeline import Pipeline

    say(f"holdout: pruning with --keep {width}")
    profile = Folder(settings.out).profile
    made = Pipeline(replace(settings, out=out, keep=width, profile=profile, accept_stale=True))
    made.build()
    made.plan()
    made.link()
    made.verify()
    return made


def _judged(listed: ProgramList, wanted: Sequence[Sequence[Ran]], got: Sequence[Ran]) -> tuple[Fate, ...]:
    """What became of each program; ``wanted``: what all of them did, run after run."""
    return tuple(
        judge(program.name, [run[i] for run in wanted], got[i]) for i, program in enumerate(listed.programs)
    )


def _run_all(
    workload: Workload, listed: ProgramList, roots: Roots, folder: Folder, pruned: Sequence[Folder]
) -> tuple[list[list[Ran]], list[list[Ran]]]:
    """What every program did on the base, twice, and on each pruned kernel.

    The two guests of the base run side by side, so a program that prints the time may print the same in both.
    Those that a pruned kernel seems to answer wrongly run on the base once more, later.
    """
    from prune.guests.holdout import Guests, answers_nothing
    from prune.model.knowledge import read_knowledge
    from prune.run.kernels import kernel_of
    from tracer.machines.parallel import in_parallel

    base = kernel_of(folder, "base")
    root = roots.of(base.image)
    guests = [Guests(f"base {i}", workload, base, root, folder.path(f"holdout/base-{i}")) for i in (1, 2)]
    for each in pruned:
        kernel = kernel_of(each, "pruned")
        silent = answers_nothing(kernel, read_knowledge(workload.arch))
        name = each.out.name if each.out != folder.out else "pruned"
        root = roots.of(kernel.image)
        guests.append(Guests(name, workload, kernel, root, folder.path(f"holdout/{name}-guests"), silent))
    ran = in_parallel([partial(guest.run, listed.programs) for guest in guests])
    wanted, got = list(ran[:2]), list(ran[2:])
    fates = [_judged(listed, wanted, results) for results in got]
    doubted = [i for i in range(len(listed.programs)) if any(each[i].outcome == WRONG for each in fates)]
    if doubted:
        again = replace(guests[0], side="base 3", into=folder.path("holdout/base-3"))
        later = dict(zip(doubted, again.run(listed.programs, doubted), strict=True))
        wanted.append([later.get(i, first) for i, first in enumerate(wanted[0])])
    return wanted, got


def table(kernels: Sequence[Held]) -> str:
    """How many programs met which end, and by name those that did not print the same."""
    heads = ["kept", "text", *OUTCOMES]
    rows = [
        [each.keep, f"{each.text_bytes:,}", *(f"{n:,}" for n in count(each.fates).values())]
        for each in kernels
    ]
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    lines = [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in [heads, *rows]
    ]
    for each in kernels:
        lines += ["", f"--keep {each.keep}:"]
        again = [fate.name for fate in each.fates if fate.repeated]
        if again:
            lines.append(f"  second tries, after a hang: {', '.join(again)}")
        for fate in each.fates:
            if fate.outcome != SAME:
                differs = " instead of ".join(f'"{text}"' for text in fate.differs[::-1])
                why = "; ".join(fate.missed) or (differs if any(fate.differs) else "")
                lines.append(f"  {fate.name}: {fate.outcome}{': ' * bool(why)}{why}")
    return "\n".join(lines)
