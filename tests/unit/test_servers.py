"""Servers on the host: their ports, what they find in their environment, how they end, and how they fail."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tracer.host import HostError
from tracer.workloads import servers as module
from tracer.workloads.servers import PORTS, Server, ServerFailed, free_port, running_servers, variable

#: Answers whoever connects to its port.
ECHO = (
    "echo up; exec python3 -c 'import os, socket\n"
    's = socket.create_server(("127.0.0.1", int(os.environ["KPRUNE_SERVER_ECHO"])))\n'
    'while True: s.accept()[0].send(b"hello")\''
)
CONNECT = 'socket.create_connection(("127.0.0.1", int(os.environ["KPRUNE_SERVER_ECHO"])))'
READY = f"python3 -c 'import os, socket; {CONNECT}'"


def ends(process: int) -> bool:
    """Whether it ends in a moment; one that has may wait until somebody takes note of it."""
    stat = Path(f"/proc/{process}/stat")
    deadline = time.monotonic() + 5
    while stat.exists() and stat.read_text().rpartition(") ")[2][0] != "Z":
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def server(command: str, ready: str = "true", timeout: float = 20, name: str = "echo") -> Server:
    return Server(name, command, ready, (name,), timeout)


def test_a_server_is_there_within_the_block_and_its_group_is_gone_after_it(tmp_path: Path) -> None:
    child = tmp_path / "child"
    command = f"sleep 1000 & echo $! >{child}; {ECHO}"
    with running_servers([server(command, READY)], tmp_path, {}, tmp_path) as running:
        port = int(running.ports["KPRUNE_SERVER_ECHO"])
        with socket.create_connection(("127.0.0.1", port)) as connection:
            assert connection.recv(5) == b"hello"
        running.check()
        assert Path(running.environment["KPRUNE_TEMP"]).is_dir()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port))
    assert ends(int(child.read_text()))
    assert not Path(running.environment["KPRUNE_TEMP"]).exists()
    assert (tmp_path / "server-echo.log").read_text() == "up\n"


def test_what_a_server_finds(tmp_path: Path) -> None:
    """Its own port and those of the others, the seed, the folder of the run; it runs in the workload's."""
    (tmp_path / "workload").mkdir()
    show = "{ env; pwd; } >$KPRUNE_TEMP/new && mv $KPRUNE_TEMP/new $KPRUNE_TEMP/env; sleep 1000"
    both = [
        server(show, "test -e $KPRUNE_TEMP/env", name="a"),
        Server("b", "sleep 1000", "true", ("b", "b-tls"), 5),
    ]
    with running_servers(both, tmp_path / "workload", {"KPRUNE_SEED": "7"}, tmp_path) as running:
        found = (Path(running.environment["KPRUNE_TEMP"]) / "env").read_text()
    assert set(running.ports) == {"KPRUNE_SERVER_A", "KPRUNE_SERVER_B", "KPRUNE_SERVER_B_TLS"}
    assert len(set(running.ports.values())) == 3
    for name, value in {**running.ports, "KPRUNE_SEED": "7"}.items():
        assert f"{name}={value}\n" in found
    assert found.endswith(f"{tmp_path / 'workload'}\n")
    assert "/usr/sbin" in running.environment["PATH"]


@pytest.mark.parametrize(
    ("command", "ready", "timeout", "said"),
    [
        ("echo one; echo bad option >&2; exit 3", "false", 20, "ended with status 3 before it was ready"),
        ("echo one; echo bad option; sleep 100", "false", 0.3, "did not pass within 0.3 seconds"),
        ("echo one; echo bad option; sleep 100", "sleep 100", 0.3, "did not pass within 0.3 seconds"),
    ],
)
def test_one_that_is_not_ready_is_named_with_its_last_lines(
    tmp_path: Path, command: str, ready: str, timeout: float, said: str
) -> None:
    began = time.monotonic()
    with (
        pytest.raises(ServerFailed) as caught,
        running_servers([server(command, ready, timeout)], tmp_path, {}, tmp_path),
    ):
        pytest.fail("it was never ready")
    message = str(caught.value)
    assert message.startswith("running server echo: ") and said in message
    assert "one | bad option" in message and str(tmp_path / "server-echo.log") in message
    assert caught.value.exit_code == 3 and "\n" not in message
    assert time.monotonic() - began < 15


def test_one_that_ends_during_the_run(tmp_path: Path) -> None:
    ends = server("echo up; until test -e $KPRUNE_TEMP/end; do sleep 0.02; done; echo bye; exit 1")
    with running_servers([ends], tmp_path, {}, tmp_path) as running:
        running.check()
        (Path(running.environment["KPRUNE_TEMP"]) / "end").write_text("")
        running.processes[0][1].wait(10)
        with pytest.raises(ServerFailed, match=r"ended with status 1 during the run; it said: up \| bye"):
            running.check()


def test_no_two_runs_have_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even though nobody listens there yet; and one that somebody listens at is taken by none."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        first = taken.getsockname()[1]
        monkeypatch.setattr(module, "PORTS", range(first, first + 1))
        with pytest.raises(HostError, match="no port"), free_port():
            pass
    monkeypatch.setattr(module, "PORTS", range(PORTS.start, PORTS.start + 40))
    with ExitStack() as stack:
        ports = [stack.enter_context(free_port()) for _ in range(20)]
        assert len(set(ports)) == 20
    with free_port():  # those of a run that is over are free again
        pass
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert PORTS.stop <= lowest


def test_without_servers_there_is_no_folder(tmp_path: Path) -> None:
    with running_servers((), tmp_path, {"KPRUNE_SEED": "1"}, tmp_path) as running:
        assert running.ports == {} and "KPRUNE_TEMP" not in running.environment
    assert variable("web-tls") == "KPRUNE_SERVER_WEB_TLS"
