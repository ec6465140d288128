"""Orders to the agent in a guest: one that is lost on its way is given again."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path

import pytest

from tracer.rootfs import BUSYBOX
from tracer.session import Session
from tracer.session_options import SessionOptions
from tracer.vm import Vm
from tracer.workload_file import load_workload

ROOT = Path(__file__).parents[2]


class Agent(Vm):
    """Says what it is to say, an answer for each order."""

    def __init__(self, console: Path, *answers: str) -> None:
        self.console, self.answers, self.orders = console, list(answers), list[str]()

    def send(self, line: str) -> None:
        self.orders.append(line)

    def receive(self, seconds: float) -> list[str]:
        return [self.answers.pop(0)]


def asked(tmp_path: Path, *answers: str) -> tuple[Agent, tuple[str, int]]:
    agent = Agent(tmp_path / "console.log", *answers)
    session = Session(agent, load_workload(ROOT / "examples/micro"), SessionOptions(), {})
    return agent, session.ask("ready 0 ready 240", 1)


def test_an_order_that_was_lost_is_given_again(tmp_path: Path) -> None:
    agent, answer = asked(tmp_path, "again 0", "| again 0", "done 7")
    assert answer == ("done", 7) and agent.orders == ["ready 0 ready 240"] * 2


def test_a_guest_that_never_understands_does_not_keep_the_host_busy(tmp_path: Path) -> None:
    agent, answer = asked(tmp_path, *["again 0"] * 100, "done 0")
    assert answer == ("done", 0) and len(agent.orders) == 21


@pytest.mark.skipif(not BUSYBOX.exists(), reason="busybox is not installed")
def test_the_agent_says_when_it_lost_the_beginning_of_an_order() -> None:
    """When a child ends while busybox's shell waits for the rest of a line, what it has read of it is gone.
    Guests with two processors in which a service was not ready for a minute hung of that."""
    agent = (ROOT / "tracer/guest/init").read_text()
    loop = agent[agent.index("while read -r order") :]
    before = 'box=busybox\nanswer() { echo "$*" >&3; }\nready() { answer done 0; }\nbusybox sleep 0.5 &\n'
    host, guest = socket.socketpair()
    with host, guest:
        words = [str(BUSYBOX), "sh", "-c", f"exec 3<&{guest.fileno()} 3>&{guest.fileno()}\n{before}{loop}"]
        with subprocess.Popen(words, pass_fds=[guest.fileno()]) as shell:
            host.settimeout(20)
            host.sendall(b"rea")
            time.sleep(1.5)
            host.sendall(b"dy 0 ready 240\n")
            assert host.recv(100) == b"again 0\n"
            # This only wakes an idle guest: an answer to it would be taken for the next one's.
            host.sendall(b".\n")
            host.sendall(b"ready 0 ready 240\n")
            assert host.recv(100) == b"done 0\n"
            shell.kill()
