"""A service under its load for a long time, while things go wrong around it.

A stretch is one window of the load (``load`` in workload.toml); in every other one is a trouble, in turn:

    storm    connections by the hundred, that are dropped, half of them with a reset
    fill     the file systems for data are full for three seconds
    kill     every process that the service has started is killed, one by one
    memory   a program takes all memory that is left, and more
    loss     the network card loses all packets for some moments, in both directions
    clock    the guest's clock jumps by an hour, and back

Storms come from the host, packets are lost in the emulator (a filter whose way out is nowhere); the others
are programs in the guest (``guest/soak``). After each stretch the service must be ready in its time limit;
one that a trouble has ended (the kernel chooses whom it kills for memory) is started again, as a supervisor
would do it, and its stretch counts as lost. What a load loses to a trouble (killed, reset, out of time) is
counted, not forgiven: it is in the report.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tracer.files.newc import regular
from tracer.files.rootfs import Tree
from tracer.host import UserError, ended_group
from tracer.sessions.session import Session
from tracer.workloads.load import read_load
from tracer.workloads.workload import App, Workload

_SCRIPTS = Path(__file__).parents[1] / "guest" / "soak"
IN_GUEST = ("fill", "kill", "memory", "clock")
TROUBLES = ("storm", "fill", "kill", "memory", "loss", "clock")
#: Seconds of a stretch, and of a trouble's script at most.
SECONDS = 10.0
_AT_MOST = 120
#: Seconds that the load is given to begin: what is not connected yet cannot be killed.
_LEAD = 1.0
#: Connections of a storm.
_STORM = 300
#: Bursts of loss, and seconds that each lasts at most and at least.
_BURSTS, _BURST = 8, (0.03, 0.25)


@dataclass(frozen=True)
class Stretch:
    """``at``: seconds since the soak began; ``seconds``, ``requests`` and those ``unanswered`` as the
    load says; ``lost``: why it failed as a whole, "" when it did not."""

    at: float
    trouble: str
    seconds: float
    requests: int
    lost: str = ""
    unanswered: int = 0


def scripts(workload: Workload) -> Tree:
    """What the guest's root file system has besides. They know the machine's memory from here: a pruned
    kernel need not be able to say it."""
    number, _ = loaded(workload)
    known = f"kilobytes={workload.machine.memory >> 10}\n".encode()
    return {
        f"kprune/app.{number}/soak-{name}": regular(known + (_SCRIPTS / name).read_bytes())
        for name in IN_GUEST
    }


def loaded(workload: Workload) -> tuple[int, App]:
    """The app that has a load.

    Raises:
        UserError: there is none.
    """
    found = workload.loaded_app()
    if not found:
        raise UserError(f"soaking {workload.name}: no app of it has a load", "give a service a `load`")
    return found


def soaked(
    session: Session, began: float, until: float, troubles: tuple[str, ...], wanted: int = 0
) -> Iterator[Stretch]:
    """Boot, start the service, and give out stretch by stretch; at the end the machine is switched off.

    Args:
        began: when the soak did, ``until``: when it ends; by the clock of ``time.monotonic``.
        troubles: of :data:`TROUBLES`; every other stretch is calm.
        wanted: requests after which it ends as well, 0 for no such number.

    Raises:
        AppFailed: the service was not ready again in time.
        GuestPanicked, GuestHung, VmVanished: the guest went down.
    """
    number, app = loaded(session.workload)
    session.expect_hello()
    session.phase(app.name)
    session.ask(f"open {number}", 0)
    session.ask(f"start {number}", 0)
    session.until_ready(number, app)
    answered, turn = 0, 0
    while time.monotonic() < until and not (wanted and answered >= wanted):
        trouble = troubles[turn // 2 % len(troubles)] if troubles and turn % 2 else ""
        made = _stretch(session, number, app, trouble, time.monotonic() - began)
        if made.lost and not turn:
            raise session.app_failed(app, "its load fails without any trouble", made.lost)
        answered += made.requests
        turn += 1
        yield made
    session.ask(f"stop {number}", app.timeout)
    session.ask(f"close {number}", 0)
    session.phase("shutdown")
    session.ask(f"poweroff {len(session.workload.apps) + 1}", 0)
    session.expect_power_off()


def _stretch(session: Session, number: int, app: App, trouble: str, at: float) -> Stretch:
    said = session.vm.console.parent / f"load-{app.name}.log"
    began = time.monotonic()
    with said.open("wb") as log:
        process = subprocess.Popen(
            ["sh", "-c", app.load], cwd=session.workload.folder, stdin=subprocess.DEVNULL, stdout=log,
            stderr=log, env=session.environment_on_host({"KPRUNE_LOAD_SECONDS": f"{SECONDS:g}"}),
            start_new_session=True,
        )  # fmt: skip
    lost = ""
    with ended_group(process):
        if trouble:
            _wait(session, _LEAD)
            _cause(session, number, trouble)
        while process.poll() is None:
            session.pump(0.05)
            session.take_lines()
            if time.monotonic() - began > SECONDS + app.timeout:
                lost = f"it did not end within {SECONDS + app.timeout:g} seconds"
                break
    text = said.read_text(errors="replace")
    if process.returncode and not lost:
        lost = (text.strip().splitlines() or [f"it exited with status {process.returncode}"])[-1]
    if trouble:
        lost = _ready_again(session, number, app) or lost
    else:
        session.until_ready(number, app)
    if lost:
        return Stretch(round(at, 1), trouble, round(time.monotonic() - began, 2), 0, lost)
    window = read_load(app, text, timed=False)
    return Stretch(round(at, 1), trouble, window.seconds, window.requests, "", window.lost)


def _ready_again(session: Session, number: int, app: App) -> str:
    """Wait for the service; what became of it if it had to be started again, "" if not.

    Raises:
        AppFailed: it was not ready again in time.
    """
    ended = session.ended_or_ready(number, app)
    if ended is None:
        return ""
    session.ask(f"stop {number}", app.timeout)  # what is left of its session goes, too
    session.ask(f"start {number}", 0)
    session.until_ready(number, app)
    return f"the service ended with status {ended}, and was started again"


def _cause(session: Session, number: int, trouble: str) -> None:
    if trouble in IN_GUEST:
        session.ask(f"step {number} soak-{trouble} {_AT_MOST}", _AT_MOST)
    elif trouble == "storm":
        for port in session.vm.ports.values():
            _storm(session, port)
    elif trouble == "loss":
        for _ in range(_BURSTS):
            with session.vm.without_network():
                _wait(session, random.uniform(*_BURST))
            _wait(session, 0.5)


def _storm(session: Session, port: int) -> None:
    held: list[socket.socket] = []
    for number in range(_STORM):
        connection = socket.socket()
        held.append(connection)
        if number % 2:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.setblocking(False)
        with contextlib.suppress(OSError):
            connection.connect_ex(("127.0.0.1", port))
    _wait(session, 1.0)
    for connection in held:
        with contextlib.suppress(OSError):
            connection.send(b"GET / HT")
        connection.close()


def _wait(session: Session, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        session.pump(min(0.05, seconds))
        session.take_lines()
