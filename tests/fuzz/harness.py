"""Runs a target on damaged input, in a process of its own, and knows what may come of it.

An answer, or a :class:`KpruneError` whose message is one line of printable text: all else is a failure.
So are another exception, more than :data:`SECONDS` of processor time or :data:`MEMORY` for one input, a file
written outside the target's folder, a program started that the target does not name, and a process that dies.

Input number N of a target is made from the target's name, the seed and N alone.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from tests.fuzz.mutate import Mutator
from tracer.host import KpruneError

#: Processor time for one input; the slowest honest one takes a hundredth of that.
SECONDS = 10
#: Address space beyond what the process has at the beginning.
MEMORY = 1 << 30
#: Wall-clock time after which a process that says nothing is ended: numpy or LIEF run without end.
SILENCE = 300
#: Failures of one target that are looked at before it is given up.
MOST = 20
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Target:
    """One reader of something from outside.

    ``samples``: makes sound inputs, in a folder that it may use; ``run``: feeds one to the reader, in a
    folder where it may write; ``weight``: how many inputs of an ordinary target cost as much as one of this.
    """

    name: str
    samples: Callable[[Path], Sequence[bytes]]
    run: Callable[[bytes, Path], object]
    mutate: Mutator
    weight: int = 1
    programs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """``where``: the same for failures of one cause."""

    target: str
    seed: int
    number: int
    what: str
    where: str

    def __str__(self) -> str:
        again = (
            f"{Path(sys.executable).name} -m tests.fuzz {self.target} --seed {self.seed} --only {self.number}"
        )
        return f"{self.target}, input {self.number}: {self.what}\n    again: {again}"


@dataclass
class Result:
    """``inputs`` that were run, ``refused`` of them by an error as it should be."""

    target: str
    inputs: int = 0
    refused: int = 0
    failures: list[Failure] = field(default_factory=list)


class _TooSlow(BaseException):
    """Not an Exception, so that no reader takes it for one of its own."""


def make_input(target: Target, samples: Sequence[bytes], seed: int, number: int) -> bytes:
    """Input ``number``; the first ones are the samples themselves."""
    if number < len(samples):
        return samples[number]
    return target.mutate(Random(f"{target.name} {seed} {number}"), samples)


def fuzz(target: Target, seed: int, numbers: range, seconds: float, keep: Path | None = None) -> Result:
    """Run inputs of a target until there are no more, or the time is up; ``keep``: where input goes that
    failed."""
    result = Result(target.name)
    until = time.monotonic() + seconds
    begin = numbers.start
    while begin < numbers.stop and time.monotonic() < until:
        died = _in_child(target, seed, range(begin, numbers.stop), until, keep, result)
        begin = died + 1 if died >= 0 else numbers.stop
        if len(result.failures) >= MOST:
            break
    return result


def _in_child(
    target: Target, seed: int, numbers: range, until: float, keep: Path | None, result: Result
) -> int:
    """Let a child run the inputs; the one that it died of, or -1."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_child, args=(target, seed, numbers, until, keep, theirs))
    child.start()
    theirs.close()
    at, heard = numbers.start, time.monotonic()
    message: dict[str, Any] = {}
    while "end" not in message:
        if ours.poll(5):
            heard = time.monotonic()
            try:
                message = ours.recv()
            except EOFError:
                break
            at = message.get("at", at)
            result.inputs, result.refused = (
                result.inputs + message.get("inputs", 0), result.refused + message.get("refused", 0)
            )  # fmt: skip
            if "broken" in message:
                raise RuntimeError(f"{target.name} itself is broken:\n{message['broken']}")
            if "failure" in message:
                result.failures.append(Failure(**message["failure"]))
        elif time.monotonic() - heard > SILENCE:
            child.kill()
    child.join()
    ours.close()
    if "end" in message:
        return -1
    code = child.exitcode or 0
    what = f"the process died of {signal.Signals(-code).name}" if code < 0 else f"the process exited {code}"
    result.failures.append(Failure(target.name, seed, at, what, f"{what} {at}"))
    return at


def _child(target: Target, seed: int, numbers: range, until: float, keep: Path | None, pipe: Any) -> None:
    home = Path(tempfile.mkdtemp(prefix="kprune-fuzz-"))
    try:
        (home / "samples").mkdir()
        samples = target.samples(home / "samples")
        _be_quiet()
        guard = _Guard(home, target.programs)
        _limit_memory()
        causes: set[str] = set()
        for number in numbers:
            data = make_input(target, samples, seed, number)
            if keep:
                _save(keep, target, seed, number, data)
            pipe.send({"at": number})
            folder = home / "run"
            folder.mkdir()
            os.chdir(folder)
            outcome = _run_one(target, data, folder, guard)
            shutil.rmtree(folder)
            pipe.send({"inputs": 1, "refused": int(outcome is True)})
            if not isinstance(outcome, bool):
                what, where = outcome
                if where not in causes:
                    causes.add(where)
                    pipe.send({"failure": asdict(Failure(target.name, seed, number, what, where))})
            if keep and (isinstance(outcome, bool) or len(causes) > MOST):
                _kept(keep, target, seed, number).unlink()
            if time.monotonic() > until or len(causes) > MOST:
                break
        pipe.send({"end": True})
    except BaseException:
        pipe.send({"broken": traceback.format_exc()})
    finally:
        os.chdir("/")
        shutil.rmtree(home, ignore_errors=True)
    os._exit(0)


def _kept(keep: Path, target: Target, seed: int, number: int) -> Path:
    return keep / f"{target.name}-{seed}-{number}"


def _save(keep: Path, target: Target, seed: int, number: int, data: bytes) -> None:
    """Before it is run: the process may die of it."""
    keep.mkdir(parents=True, exist_ok=True)
    _kept(keep, target, seed, number).write_bytes(data)


def _run_one(target: Target, data: bytes, folder: Path, guard: _Guard) -> bool | tuple[str, str]:
    """Whether it was refused as it should be; or what went wrong, and where."""
    try:
        with _time_limit(SECONDS), guard:
            target.run(data, folder)
        refused = False
    except KpruneError as error:
        refused = True
        if wrong := unfit(str(error)):
            return f"{type(error).__name__} {wrong}: {str(error)[:300]!r}", f"{wrong} {_place(error)}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        said = f"more than {SECONDS} s" if isinstance(error, _TooSlow) else f"{type(error).__name__}: {error}"
        return f"{said[:300]} ({_place(error)})", f"{type(error).__name__} {_place(error)}"
    if guard.seen:
        return guard.seen[0], guard.seen[0].partition(" ")[0]
    return refused


def unfit(message: str) -> str:
    """What is wrong with an error's message for a terminal; "" for nothing."""
    if not message.strip():
        return "says nothing"
    if "\n" in message or "\r" in message:
        return "has several lines"
    if not message.isprintable():
        return "has signs that a terminal obeys"
    return "is longer than anybody reads" if len(message) > 20_000 else ""


def _place(error: BaseException) -> str:
    """Where in kprune an error was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/tests/" not in frame.filename and str(ROOT) in frame.filename]
    frame = (ours or frames)[-1] if frames else None
    return f"{Path(frame.filename).name}:{frame.lineno}" if frame else "nowhere"


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Of processor time."""

    def expired(_signal: int, _frame: FrameType | None) -> None:
        raise _TooSlow

    signal.signal(signal.SIGPROF, expired)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _be_quiet() -> None:
    """What readers say to a person while they work is not wanted here."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


def _limit_memory() -> None:
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


class _Guard:
    """Sees what files are written and what programs are started while it is entered."""

    _WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    _CHANGES = frozenset(
        ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod",
         "shutil.rmtree")
    )  # fmt: skip
    _PROGRAMS = frozenset(("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.spawn"))

    def __init__(self, home: Path, programs: Sequence[str]) -> None:
        self.seen: list[str] = []
        self._home, self._programs, self._on = str(home.resolve()), programs, False
        tempfile.tempdir = str(home)
        sys.addaudithook(self._hear)

    def __enter__(self) -> None:
        self.seen.clear()
        self._on = True

    def __exit__(self, *_: object) -> None:
        self._on = False

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._on:
            return
        if event == "open":
            path, mode, flags = arguments
            writes = bool(flags & self._WRITE) if isinstance(flags, int) else "r" not in str(mode)
            if writes and path != os.devnull:
                self._check(event, path)
        elif event in self._CHANGES:
            for path in arguments[: 2 if event in ("os.rename", "os.link") else 1]:
                self._check(event, path)
        elif event in self._PROGRAMS:
            program = Path(os.fsdecode(arguments[0])).name
            if program not in self._programs:
                self.seen.append(f"{event} of {program!r}")

    def _check(self, event: str, path: Any) -> None:
        if isinstance(path, int):
            return
        text = os.path.realpath(os.fsdecode(path))
        if not text.startswith((self._home + "/", "/dev/shm/")) and "__pycache__" not in text:
            self.seen.append(f"{event} of {text!r}, outside its folder")


def report(results: Sequence[Result]) -> str:
    """A row a target, and what failed."""
    lines = [f"{'target':24}{'inputs':>10}{'refused':>10}{'failures':>10}"]
    for result in results:
        lines.append(f"{result.target:24}{result.inputs:10,}{result.refused:10,}{len(result.failures):10,}")
    return "\n".join([*lines, *(str(failure) for result in results for failure in result.failures)])
