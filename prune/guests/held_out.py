"""Programs that nobody profiled, and what became of each on a pruned kernel: reading them, and judging.

:mod:`prune.guests.holdout` runs them. A program that prints the same as on the kernel that is not pruned is
well; one that does not must have a reason: a system call that is not there, or a function that was missed, by
name. Wrong output without either, and a guest that hangs, are faults of kprune's.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tracer.host import MISSHAPEN, UserError, read_json
from tracer.phase_names import RESERVED
from tracer.shapes import WrongShape, check_shape, package_name, path_pattern
from tracer.workloads.workload_file import memory_size

SCHEMA = 1
SAME, ENOSYS, ANSWERED, KILLED, PANICKED, WRONG, HUNG, VARIES = OUTCOMES = (
    "same output", "no such system call", "answered by policy", "killed by name", "panicked by name",
    "wrong output", "hang", "varies by itself",
)  # fmt: skip
#: Seconds that a program has, and may have.
_TIMEOUT, _LONGEST = 15, 3600
#: What must not happen.
FAULTS = (WRONG, HUNG)


@dataclass(frozen=True)
class Program:
    """``command``: a script for the guest's shell, which runs in an empty folder; ``timeout`` in seconds."""

    name: str
    command: str
    timeout: float


@dataclass(frozen=True)
class ProgramList:
    """Programs, and what has to be in the guest for them: Debian ``packages`` without what ``omit`` has
    patterns of (None: of the workload's), and what lies in the folder ``files``, if there is one.
    ``memory``: bytes of the guests, 0: the workload's."""

    programs: tuple[Program, ...]
    packages: tuple[str, ...] = ()
    omit: tuple[str, ...] | None = None
    files: Path | None = None
    memory: int = 0


@dataclass(frozen=True)
class Ran:
    """One program on one kernel: its exit status and what it printed, line by line; ``missed``: the pruned
    functions that were asked for meanwhile, ``answered``: those for which a policy answered;
    ``unanswered``: the system calls that it asked for and that are not there; ``ended``: "" when the guest
    went on, or "panicked", or "hung". ``repeated``: this is the second try, after a hang."""

    status: int
    lines: tuple[str, ...]
    missed: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = ()
    answered: tuple[str, ...] = ()
    ended: str = ""
    repeated: bool = False

    @property
    def printed(self) -> tuple[int, tuple[str, ...]]:
        return self.status, self.lines


@dataclass(frozen=True)
class Fate:
    """What became of a program: one of :data:`OUTCOMES`; ``missed``: by name; ``differs``: the first line
    that does, as it should be and as it was; ``repeated``: as of :class:`Ran`."""

    name: str
    outcome: str
    missed: tuple[str, ...] = ()
    differs: tuple[str, str] = ("", "")
    repeated: bool = False


def read_programs(path: Path) -> ProgramList:
    """Read a list of programs (TOML).

    Raises:
        UserError: unreadable, a key unknown or missing, two programs of one name.
    """
    doing = f"reading the programs: {path}"
    try:
        value = check_shape(tomllib.loads(path.read_text()), "programs")
        if value["schema_version"] != SCHEMA:
            raise UserError(f"{doing}: schema_version is {value['schema_version']}, not {SCHEMA}")
        programs = tuple(_program(row) for row in value["program"])
        names = [program.name for program in programs]
        twice = next((name for name in names if names.count(name) > 1), "")
        if twice or not programs:
            raise WrongShape(f'two programs are called "{twice}"' if twice else "there is no [[program]]")
        made = ProgramList(
            programs,
            packages=tuple(map(package_name, value.get("packages", ()))),
            omit=tuple(map(path_pattern, value["omit"])) if "omit" in value else None,
            files=_folder(path.parent, value["files"]) if "files" in value else None,
            memory=_memory(value["memory"]) if "memory" in value else 0,
        )
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{doing}: {error}", "examples/holdout/programs.toml is one to begin with") from error
    except WrongShape as error:
        raise UserError(f"{doing}: {error}", error.remedy) from None
    return made


def _program(raw: object) -> Program:
    row = check_shape(raw, "program")
    timeout = row.get("timeout", _TIMEOUT)
    if row["name"] in RESERVED:
        raise WrongShape(f'the name "{row["name"]}" is that of a phase')
    if not re.fullmatch(r"[a-z0-9-]+", row["name"]):
        raise WrongShape(f'the name "{row["name"]}" may hold only a-z, 0-9 and "-"')
    if not 0 < timeout <= _LONGEST:
        raise WrongShape(f"{row['name']}: timeout is not between 0 and {_LONGEST} seconds")
    return Program(row["name"], row["command"], float(timeout))


def _folder(beside: Path, name: str) -> Path:
    """What a list of somebody else's can have put into guests, which reach the network, lies beside it."""
    path, beside = (beside / name).resolve(), beside.resolve()
    if not path.is_dir() or beside not in path.parents:
        raise WrongShape(f'files: "{name}" is not a folder beside the list')
    return path


def _memory(text: str) -> int:
    size = memory_size(text)
    if size is None:
        raise WrongShape(f'memory "{text}" is not a size', 'write it like "256M"')
    return size


def read_holdout(path: Path) -> tuple[str, dict[str, Any]]:
    """The pruned kernel's build id, and what the page shows of ``holdout.json``: ``outcomes``; ``kernels``,
    rows of label, bytes of text, programs by outcome; ``programs``, rows of name, outcome on each, why.

    Raises:
        UserError: missing or damaged.
    """
    found = read_json(path, "programs that were not profiled", SCHEMA)
    try:
        kernels = found["kernels"]
        fates = [{str(fate["name"]): fate for fate in kernel["fates"]} for kernel in kernels]
        shown = {
            "outcomes": list(OUTCOMES),
            "kernels": [
                [
                    f"--keep {kernel['keep']}", int(kernel["text_bytes"]),
                    [int(kernel["outcomes"][outcome]) for outcome in OUTCOMES],
                ]
                for kernel in kernels
            ],
            "programs": [
                [name, *(str(each[name]["outcome"]) for each in fates), _why(fate)]
                for name, fate in fates[0].items()
            ],
        }  # fmt: skip
        return str(found["build_id"]), shown
    except (*MISSHAPEN, IndexError) as error:
        raise UserError(
            f"reading programs that were not profiled: {path}: {error!r}", "make it again: kprune holdout"
        ) from error


def _why(fate: Mapping[str, Any]) -> str:
    """What was missed, or the line that was another one."""
    wanted, got = (str(text) for text in fate["differs"])
    differs = f'"{got}" instead of "{wanted}"' if wanted or got else ""
    return "; ".join(str(name) for name in fate["missed"]) or differs


def judge(name: str, wanted: Sequence[Ran], got: Ran) -> Fate:
    """What became of a program.

    Args:
        wanted: what it did on the kernel that is not pruned, more than once.
    """
    return replace(_judge(name, wanted, got), repeated=got.repeated)


def _judge(name: str, wanted: Sequence[Ran], got: Ran) -> Fate:
    if any(ran.ended or ran.printed != wanted[0].printed for ran in wanted):
        return Fate(name, VARIES)
    missed = got.missed
    if got.ended == "hung":
        return Fate(name, HUNG, missed)
    if got.ended:
        return Fate(name, PANICKED if missed else HUNG, missed)
    if got.printed == wanted[0].printed:
        return Fate(name, SAME, missed)
    differs = first_difference(wanted[0], got)
    if missed:
        return Fate(name, KILLED, missed, differs)
    if got.answered:
        return Fate(name, ANSWERED, got.answered, differs)
    return Fate(name, ENOSYS if got.unanswered else WRONG, got.unanswered, differs)


def first_difference(wanted: Ran, got: Ran) -> tuple[str, str]:
    """The first line that is another one; or the statuses."""
    for i in range(max(len(wanted.lines), len(got.lines))):
        pair = tuple(ran.lines[i] if i < len(ran.lines) else "" for ran in (wanted, got))
        if pair[0] != pair[1]:
            return pair[0], pair[1]
    return f"status {wanted.status}", f"status {got.status}"


def count(fates: Iterable[Fate]) -> dict[str, int]:
    """Outcome -> how many programs, in the order of :data:`OUTCOMES`."""
    outcomes = [fate.outcome for fate in fates]
    return {outcome: outcomes.count(outcome) for outcome in OUTCOMES}
