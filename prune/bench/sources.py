"""How well each source knows what runs: the same workload traced with each, against fresh runs.

``python -m prune.bench.sources WORKLOAD OUT [RUNS]``: makes a pruned kernel with each of ``ftrace``,
``blocks`` and ``ftrace+blocks`` in OUT/SOURCES, then runs the workload RUNS (10) more times with block
coverage, in variations that none of them has seen: these runs are the truth. Prints a Markdown table.

    recall     executed functions that were kept, per cent: by the plan of the profile alone, and healed
    precision  text that was kept over text that was executed; bytes of functions with a section of their
               own (the rest cannot be dropped), so 1 is perfect, and less means that something is missing
    text       size of the pruned kernel's text
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from prune.model.elf import Rows
from prune.plan.plan_file import load_plan
from prune.run.pipeline import Pipeline
from prune.run.planning import Model, decide
from prune.run.profiling import is_smp
from prune.settings import SOURCES, Settings, cache_folder
from tracer.collecting.collect import KernelBuild, collect_runs
from tracer.host import KpruneError, command_line, say
from tracer.profiles.profile import load_profile

#: Numbers of the runs that are the truth (:mod:`tracer.sessions.jitter`); no other run has them.
FIRST_TRUTH = 30000


@dataclass(frozen=True)
class Score:
    """``recall`` and ``precision`` as above; ``lost``: executed functions that were dropped."""

    recall: float
    precision: float
    lost: tuple[str, ...]


def main() -> None:
    """Command line."""
    with command_line():
        workload, out = Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute()
        runs = int(sys.argv[3]) if len(sys.argv) > 3 else 10
        print("\n".join(measure(workload, out, runs)))


def measure(workload: Path, out: Path, runs: int) -> list[str]:
    """Lines of the table. A mode whose healing does not converge is in it all the same."""
    pipelines = {
        sources: Pipeline(Settings(workload, out / sources, sources=sources)) for sources in reversed(SOURCES)
    }
    for sources, pipeline in pipelines.items():
        say(f"tracing with {sources}")
        try:
            pipeline.run()
        except KpruneError as error:
            say(f"{sources}: {error}")
    some = pipelines[SOURCES[-1]]
    truth = executed(some, out / "truth", runs)
    lines = ["| sources | functions kept | recall | healed | precision | text |", f"| --- {'| ---: ' * 5}|"]
    wide = _planned(replace(some.settings, keep="reachable"), some)
    reached = _score(some.model, wide, truth)
    lines.append(
        f"| everything reachable | {int(wide.sum()):,} | {reached.recall:.2%} | | {reached.precision:.2f} | |"
    )
    return lines + [_row(sources, pipeline, truth) for sources, pipeline in pipelines.items()]


def _row(sources: str, pipeline: Pipeline, truth: Rows) -> str:
    model, folder = pipeline.model, pipeline.folder
    planned = _planned(pipeline.settings, pipeline)
    final = load_plan(folder.plan).keep & model.image.units["function"]
    alone, healed = _score(model, planned, truth), _score(model, final, truth)
    for when, score in (("before healing", alone), ("healed", healed)):
        say(
            f"{sources}, {when}: {len(score.lost)} executed functions dropped: {', '.join(score.lost) or '-'}"
        )
    text = json.loads(folder.path("report.json").read_text())["pruned"]["text_bytes"]
    return (
        f"| {sources} | {int(final.sum()):,} | {alone.recall:.2%} | {healed.recall:.2%} "
        f"| {healed.precision:.2f} | {text:,} |"
    )


def _planned(settings: Settings, pipeline: Pipeline) -> Rows:
    """Mask of the function units that a plan of what was traced keeps, without what healing found."""
    profile = load_profile(pipeline.folder.traced_profile)
    plan = decide(settings, pipeline.folder, pipeline.model, profile)
    kept: Rows = plan.keep & pipeline.model.image.units["function"]
    return kept


def executed(pipeline: Pipeline, into: Path, runs: int) -> Rows:
    """Mask of the function units that fresh runs on the production kernel execute."""
    folder, image = pipeline.folder, pipeline.model.image
    smp = is_smp(folder.base(".config"))
    production = KernelBuild(folder.base("bzImage"), folder.base("symbols.json"), smp)
    numbers = range(FIRST_TRUTH, FIRST_TRUTH + runs)
    profile = collect_runs(pipeline.workload, production, into, cache_folder(), numbers)
    mask = np.zeros(len(image.units), bool)
    mask[[image.unit_of[record.object, record.section] for record in profile.functions]] = True
    ran: Rows = mask & image.units["function"]
    return ran


def _score(model: Model, kept: Rows, truth: Rows) -> Score:
    sizes = model.image.units["size"].astype(np.int64)
    lost = np.flatnonzero(truth & ~kept).tolist()
    return Score(
        1 - len(lost) / int(truth.sum()),
        int(sizes[kept].sum()) / int(sizes[truth].sum()),
        tuple(sorted(model.image.labels(lost).values())),
    )


if __name__ == "__main__":
    main()
