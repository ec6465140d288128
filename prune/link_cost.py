"""What one link of vmlinux costs: time, and memory at its peak.

kbuild links vmlinux up to four times, for the sake of kallsyms; measured is one link, with the words of the
last (``link.json``) but without the tables of kallsyms, into a file that is thrown away. The linker alone
is measured, as a child of :mod:`prune.child_cost`: neither kprune-ld around it, nor what prepares a pruned
link. Where the last link takes ``vmlinux.o``, as with LTO, making that (``ld -r``, which generates all
code) is part of the cost: times add up, the peak is the larger one. A cache of generated code is left
aside.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prune.kbuild import KernelBuild, linker_wrapper, locked
from tracer.host import BuildFailed, HostError, UserError, read_json, run_program

ROUNDS = 3
_CHILD_COST = Path(__file__).with_name("child_cost.py")
_KALLSYMS = re.compile(r"(^|/)\.tmp_(vmlinux\.)?kallsyms\d*\.o$")
_CACHE = "--thinlto-cache-dir="


@dataclass(frozen=True)
class Cost:
    """Of one run of a program: wall-clock seconds, processor seconds, bytes of its largest resident set."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int

    def __add__(self, other: Cost) -> Cost:
        """One after the other."""
        return Cost(
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
            max(self.peak_bytes, other.peak_bytes),
        )


@dataclass(frozen=True)
class LinkCost:
    """The rounds of one link, in order; numbers are medians, ranges (smallest, largest)."""

    rounds: tuple[Cost, ...]

    @property
    def seconds(self) -> float:
        return statistics.median(cost.seconds for cost in self.rounds)

    @property
    def seconds_range(self) -> tuple[float, float]:
        return min(cost.seconds for cost in self.rounds), max(cost.seconds for cost in self.rounds)

    @property
    def cpu_seconds(self) -> float:
        return statistics.median(cost.cpu_seconds for cost in self.rounds)

    @property
    def peak_bytes(self) -> int:
        return int(statistics.median(cost.peak_bytes for cost in self.rounds))

    @property
    def peak_range(self) -> tuple[int, int]:
        return min(cost.peak_bytes for cost in self.rounds), max(cost.peak_bytes for cost in self.rounds)


def program_cost(command: Sequence[str | Path], cwd: Path, env: Mapping[str, str] | None = None) -> Cost:
    """Run a program once. ``env`` is on top of this process's environment.

    Raises:
        BuildFailed: it exited non-zero; the message has the end of what it said.
        HostError: it does not exist.
    """
    program = str(command[0])
    if shutil.which(program, path=(env or {}).get("PATH")) is None and not (cwd / program).is_file():
        raise HostError(f"measuring a link: {program} is not there", "kprune doctor says how to get it")
    with tempfile.TemporaryDirectory(prefix="kprune-") as folder:
        result = Path(folder) / "cost.json"
        _run([*_measured(result), *map(str, command)], cwd, env)
        return _read_cost(result)


def link_cost(
    build: KernelBuild, plan: Path | None, rounds: int = ROUNDS, generated: Sequence[Cost] | None = None
) -> LinkCost:
    """One link of a finished build's vmlinux, pruned by ``plan`` if one is given, so many times.

    Args:
        generated: what :func:`generation_costs` found, which is the same with every plan and with LTO takes
            minutes; measured here when it is not given.

    Raises:
        UserError: the build is not finished, or the plan is about other objects.
        BuildFailed: a link failed.
    """
    argv = _last_link(build)
    before = generation_costs(build, rounds) if generated is None else generated
    with locked(build), _scratch(build) as scratch:
        if plan:  # kprune-ld prepares objects and script ahead of the first; all rounds find the same then.
            _final_link(build, argv, plan, scratch)
        made = [_final_link(build, argv, plan, scratch) for _ in range(rounds)]
    if before:
        made = [first + second for first, second in zip(before, made, strict=True)]
    return LinkCost(tuple(made))


def generation_costs(build: KernelBuild, rounds: int = ROUNDS) -> tuple[Cost, ...]:
    """Making ``vmlinux.o``, so many times; () for a build whose last link does not take it.

    Raises:
        UserError: the build is not finished.
        BuildFailed: a link failed.
    """
    if "vmlinux.o" not in _last_link(build):
        return ()
    with locked(build), _scratch(build) as scratch:
        return tuple(_whole_object(build, scratch) for _ in range(rounds))


@contextlib.contextmanager
def _scratch(build: KernelBuild) -> Iterator[Path]:
    """A folder on the disk of the build."""
    with tempfile.TemporaryDirectory(prefix="kprune-", dir=build.home) as folder:
        yield Path(folder)


def _last_link(build: KernelBuild) -> list[str]:
    """The words of the last link of vmlinux, without its program and without kallsyms."""
    value = read_json(build.artefacts / "link.json", "words of the last link", 1)
    return [word for word in value["argv"] if not _KALLSYMS.search(word)]


def _final_link(build: KernelBuild, argv: Sequence[str], plan: Path | None, scratch: Path) -> Cost:
    """Through kprune-ld, whose linker is a script that measures the real one."""
    real, result = _real_linker(build), scratch / "cost.json"
    # kprune-ld tells lld by its name.
    linker = scratch / Path(real).name
    linker.write_text(f'#!/bin/sh\nexec {shlex.join([*_measured(result), real])} "$@"\n')
    linker.chmod(0o755)
    env = {"KPRUNE_LD": str(linker), "KPRUNE_PLAN": str(plan.absolute()) if plan else ""}
    _run([str(linker_wrapper()), *_into(argv, scratch / "linked")], build.objtree, env)
    return _read_cost(result)


def _whole_object(build: KernelBuild, scratch: Path) -> Cost:
    """``vmlinux.o`` made again, into a file that is thrown away, by the words that kbuild keeps of it."""
    kept = build.objtree / ".vmlinux.o.cmd"
    try:
        line = kept.read_text().split("\n", 1)[0]
    except OSError as error:
        raise UserError(f"measuring a link: {kept}: {error.strerror}", "build the kernel again") from error
    _, _, command = line.partition(":=")
    words = shlex.split(command.replace("$$", "$"))
    words = words[: words.index(";")] if ";" in words else words  # objtool comes after it
    cache = scratch / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    words = [f"{_CACHE}{cache}" if word.startswith(_CACHE) else word for word in words]
    return program_cost([_real_linker(build), *_into(words[1:], scratch / "linked.o")], build.objtree)


def _real_linker(build: KernelBuild) -> str:
    found = shutil.which(build.toolchain.real_linker)
    if found is None:
        raise HostError(f"measuring a link: {build.toolchain.real_linker} is not there", "kprune doctor")
    return found


def _into(words: Sequence[str], output: Path) -> list[str]:
    """The words of a link, with another output and no map."""
    at = words.index("-o")
    changed = [*words[: at + 1], str(output), *words[at + 2 :]]
    return [word for word in changed if not word.startswith("-Map")]


def _measured(result: Path) -> list[str]:
    return [sys.executable, "-I", "-S", str(_CHILD_COST), str(result)]


def _run(command: Sequence[str], cwd: Path, env: Mapping[str, str] | None) -> None:
    run_program(command, doing="measuring a link", cwd=cwd, env=env, failure=BuildFailed)


def _read_cost(result: Path) -> Cost:
    try:
        value = json.loads(result.read_text())
    except (OSError, ValueError) as error:
        raise HostError(f"measuring a link: {result}: {error}", "was another linker called?") from error
    return Cost(float(value["seconds"]), float(value["cpu_seconds"]), int(value["peak_bytes"]))
