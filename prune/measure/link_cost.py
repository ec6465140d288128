"""What one link of vmlinux costs: time, and memory at its peak.

kbuild links vmlinux up to four times, for the sake of kallsyms; measured is one link, with the words of the
last (:mod:`prune.build.recorded`), into a file that is thrown away. The linker alone is measured: neither
kprune-ld around it, nor what prepares a pruned link. Where the last link takes ``vmlinux.o``, as with LTO,
making that (``ld -r``, which generates all code) is part of the cost.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from prune.build.kbuild import KernelBuild, linker_wrapper, locked
from prune.build.recorded import LastLink, code_generation, read_last_link, redirected
from prune.measure.cost import Cost, measured, program_cost, read_cost
from tracer.host import BuildFailed, HostError, run_program

ROUNDS = 3
_DOING = "measuring a link"


def link_cost(
    build: KernelBuild, plan: Path | None, rounds: int = ROUNDS, generated: Sequence[Cost] | None = None
) -> tuple[Cost, ...]:
    """One link of a finished build's vmlinux, pruned by ``plan`` if one is given, so many times.

    Args:
        generated: what :func:`generation_costs` found, which is the same with every plan and with LTO takes
            minutes; measured here when it is not given.

    Raises:
        UserError: the build is not finished, or the plan is about other objects.
        BuildFailed: a link failed.
    """
    last = _last_link(build)
    before = generation_costs(build, rounds) if generated is None else generated
    with locked(build), _scratch(build) as scratch:
        if plan:  # kprune-ld prepares objects and script ahead of the first; all rounds find the same then.
            _final_link(build, last, plan, scratch)
        made = [_final_link(build, last, plan, scratch) for _ in range(rounds)]
    if before:
        made = [first + second for first, second in zip(before, made, strict=True)]
    return tuple(made)


def generation_costs(build: KernelBuild, rounds: int = ROUNDS) -> tuple[Cost, ...]:
    """Making ``vmlinux.o``, so many times; () for a build whose last link does not take it.

    Raises:
        UserError: the build is not finished.
        BuildFailed: a link failed.
    """
    if not _last_link(build).generates_code:
        return ()
    with locked(build), _scratch(build) as scratch:
        command = code_generation(build.objtree, _real_linker(build), scratch / "linked.o")
        return tuple(program_cost(command, doing=_DOING, cwd=build.objtree) for _ in range(rounds))


@contextlib.contextmanager
def _scratch(build: KernelBuild) -> Iterator[Path]:
    """A folder on the disk of the build."""
    with tempfile.TemporaryDirectory(prefix="kprune-", dir=build.home) as folder:
        yield Path(folder)


def _last_link(build: KernelBuild) -> LastLink:
    return read_last_link(build.artefacts / "link.json")


def _final_link(build: KernelBuild, last: LastLink, plan: Path | None, scratch: Path) -> Cost:
    """Through kprune-ld, whose linker is a script that measures the real one."""
    real, result = _real_linker(build), scratch / "cost.json"
    # kprune-ld tells lld by its name.
    linker = scratch / Path(real).name
    linker.write_text(f'#!/bin/sh\nexec {shlex.join([*measured(result), real])} "$@"\n')
    linker.chmod(0o755)
    env = {"KPRUNE_LD": str(linker), "KPRUNE_PLAN": str(plan.absolute()) if plan else ""}
    words = redirected(last.argv, scratch / "linked")
    command = [str(linker_wrapper()), *words]
    run_program(command, doing=_DOING, cwd=build.objtree, env=env, failure=BuildFailed)
    return read_cost(result, _DOING)


def _real_linker(build: KernelBuild) -> str:
    found = shutil.which(build.toolchain.real_linker)
    if found is None:
        raise HostError(f"{_DOING}: {build.toolchain.real_linker} is not there", "kprune doctor")
    return found
