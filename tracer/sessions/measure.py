"""Measure two kernels against each other: how fast they boot, and how their service answers under load.

What else the host does changes from minute to minute, so no number of one kernel is worth much beside one
that was taken at another time. The two take turns, in guests that differ by nothing but the kernel: boot A,
boot B, load A B B A; then the other way round. A turn is a pair, whose ratio is what counts; its guests are
new, so that what one has by chance for as long as it lives is not in all of them. Only one guest runs at a
time: the one that waits stands still.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tracer.host import GuestFailed, GuestLost, KpruneError, ValidationFailed
from tracer.sessions.options import SessionOptions
from tracer.sessions.runner import open_session
from tracer.sessions.session import Session
from tracer.workloads.load import Window, read_load
from tracer.workloads.workload import App, Workload

#: Between two readiness checks, in seconds. Short, since a wait is a part of what is measured.
POLL = 0.02


@dataclass(frozen=True)
class Seen:
    """Of one guest: wall-clock seconds from the start of QEMU to the agent's first word (``hello``), and
    until the service was ready, or that word where there is no service; and the windows of load."""

    hello: float
    ready: float
    windows: tuple[Window, ...] = ()


@dataclass(frozen=True)
class Measured:
    """``turns``: what was seen of both kernels. When one failed, ``side`` (0 or 1) says which and ``error``
    how; the turns are those before."""

    turns: tuple[tuple[Seen, Seen], ...]
    side: int = -1
    error: KpruneError | None = None


def measured_app(workload: Workload) -> tuple[int, App] | None:
    """The service that is measured, with its number: that with a load, else the first."""
    services = ((number, app) for number, app in enumerate(workload.apps) if app.is_service)
    return workload.loaded_app() or next(services, None)


def measure(
    kernels: tuple[Path, Path],
    roots: tuple[Path, Path],
    workload: Workload,
    turns: int,
    seconds: float,
    into: Path,
) -> Measured:
    """Both kernels, each with its root file system, so many turns. ``seconds``: of a window of load; ``into``
    gets a folder for each kernel.

    What comes before the measured service in the workload runs before it, and is a part of the time to its
    readiness, unless the apps may come in any order. After the last turn the guests are switched off in
    order, so that a kernel that cannot do that any more has failed.

    Raises:
        UserError: the load does not say what it should.
        HostError: QEMU cannot be started.
    """
    taken: list[tuple[Seen, Seen]] = []
    for turn in range(turns):
        guests = _Guests(kernels, roots, workload, seconds, into)
        try:
            taken.append(guests.turn((0, 1) if turn % 2 == 0 else (1, 0), last=turn == turns - 1))
        except (GuestFailed, GuestLost, ValidationFailed) as error:
            return Measured(tuple(taken), guests.side, error)
    return Measured(tuple(taken))


class _Guests:
    """The two guests of one turn; ``side`` is the one that runs."""

    def __init__(
        self,
        kernels: tuple[Path, Path],
        roots: tuple[Path, Path],
        workload: Workload,
        seconds: float,
        into: Path,
    ) -> None:
        self.kernels = kernels
        self.roots = roots
        self.workload = workload
        self.seconds = seconds
        self.into = into
        self.side = 0
        self.app = measured_app(workload)

    def turn(self, order: tuple[int, int], last: bool) -> tuple[Seen, Seen]:
        windows: dict[int, list[Window]] = {0: [], 1: []}
        with contextlib.ExitStack() as stack:
            booted = {side: self.boot(side, stack) for side in order}
            sessions = {side: session for side, (session, _) in booted.items()}
            if self.workload.loaded_app():
                for side in order:  # QEMU translates what it has not run before: that does not count
                    self.window(side, sessions[side], self.seconds / 2)
                for side in (*order, *reversed(order)):
                    windows[side].append(self.window(side, sessions[side], self.seconds))
            for side in order if last else ():
                self.switch_off(side, sessions[side])
        first, second = (
            Seen(booted[side][1].hello, booted[side][1].ready, tuple(windows[side])) for side in (0, 1)
        )
        return first, second

    def boot(self, side: int, stack: contextlib.ExitStack) -> tuple[Session, Seen]:
        """A new guest that stands still, its service being ready."""
        self.side = side
        options = SessionOptions(poll=POLL)
        session = stack.enter_context(
            open_session(self.kernels[side], self.roots[side], self.workload, options, self.into / str(side))
        )
        session.expect_hello()
        hello = time.monotonic() - session.vm.began
        if self.app:
            self.start_service(session, *self.app)
        ready = time.monotonic() - session.vm.began
        session.vm.pause()
        return session, Seen(hello, ready)

    def start_service(self, session: Session, number: int, app: App) -> None:
        for before, other in enumerate(() if self.workload.any_order else self.workload.apps[:number]):
            session.phase(other.name)
            session.ask(f"open {before}", 0)
            (session.service if other.is_service else session.one_shot)(before, other)
            session.ask(f"close {before}", 0)
        session.phase(app.name)
        session.ask(f"open {number}", 0)
        session.ask(f"start {number}", 0)
        session.until_ready(number, app)

    def window(self, side: int, session: Session, seconds: float) -> Window:
        assert self.app
        app = self.app[1]
        self.side = side
        with _running(session):
            env = {"KPRUNE_LOAD_SECONDS": f"{seconds:g}"}
            return read_load(app, session.on_host(app, app.load, "load", seconds + app.timeout, env))

    def switch_off(self, side: int, session: Session) -> None:
        self.side = side
        session.vm.resume()
        if self.app:
            session.ask(f"stop {self.app[0]}", self.app[1].timeout)
            session.ask(f"close {self.app[0]}", 0)
        session.ask(f"poweroff {len(self.workload.apps) + 1}", 0)
        session.expect_power_off()


@contextlib.contextmanager
def _running(session: Session) -> Iterator[None]:
    """The guest runs within the block, and stands still outside."""
    session.vm.resume()
    yield
    session.pump(0.0)  # A guest that went down meanwhile cannot be stopped.
    session.take_lines()
    session.vm.pause()
