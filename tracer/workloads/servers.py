"""Programs on the host that the guest's clients talk to, for as long as one run.

The guest finds the host's loopback at 10.0.2.2. Runs happen side by side, so each has servers of its own:
at ports that nobody else has, with a folder that is removed afterwards; when the run ends, so do their
process groups.

Ports are taken below the range from which the system serves whoever opens a connection
(``ip_local_port_range``), so that none is gone between being chosen and being used. For each a run holds an
abstract unix socket of its number, which other runs see, and which vanishes with the process.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tracer.host import HostError, ended_group, host_path

#: What ports are chosen from.
PORTS = range(20_000, 30_000)
#: Between two readiness checks, in seconds.
_POLL = 0.05
_TAIL_LINES = 5


class ServerFailed(HostError):
    """A server of the workload did not become ready, or ended before the run did (exit 3)."""


@dataclass(frozen=True)
class Server:
    """``command`` and ``ready`` are lines for the host's shell; ``ports``: the names of its ports;
    ``timeout``: seconds until ``ready`` must have exited with 0."""

    name: str
    command: str
    ready: str
    ports: tuple[str, ...]
    timeout: float


@dataclass(frozen=True)
class Running:
    """The servers of one run. ``ports``: what the guest finds in its environment; ``environment``: what
    programs on the host find there, the servers themselves and the apps' host commands."""

    ports: Mapping[str, str]
    environment: Mapping[str, str]
    processes: tuple[tuple[Server, subprocess.Popen[bytes], Path], ...] = ()

    def check(self) -> None:
        """All of them run still.

        Raises:
            ServerFailed: one has ended.
        """
        for server, process, log in self.processes:
            if process.poll() is not None:
                raise _failed(server, f"it ended with status {process.returncode} during the run", log)


def variable(port: str) -> str:
    """The environment variable that holds a port."""
    return f"KPRUNE_SERVER_{port.upper().replace('-', '_')}"


@contextlib.contextmanager
def running_servers(
    servers: Sequence[Server], folder: Path, environment: Mapping[str, str], logs: Path
) -> Iterator[Running]:
    """Start all of them, in ``folder``, and wait until each is ready; none is left after the block. ``logs``
    gets a ``server-NAME.log`` of each.

    Raises:
        ServerFailed: one ended, or was not ready in time.
    """
    with contextlib.ExitStack() as stack:
        names = [name for server in servers for name in server.ports]
        ports = {variable(name): str(stack.enter_context(free_port())) for name in names}
        env = {**environment, **ports, "PATH": host_path()}
        if servers:
            env["KPRUNE_TEMP"] = tempfile.mkdtemp(prefix="kprune-servers-", dir="/tmp")
            stack.callback(shutil.rmtree, env["KPRUNE_TEMP"], ignore_errors=True)
        started = tuple(_start(server, folder, env, logs, stack) for server in servers)
        running = Running(ports, env, started)
        for server, process, log in started:
            _until_ready(server, process, log, folder, env)
        yield running


@contextlib.contextmanager
def free_port() -> Iterator[int]:
    """A port that is free for TCP and UDP and that no other run gets while the block runs.

    Raises:
        HostError: there is none.
    """
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as held:
            try:
                held.bind(f"\0kprune-port-{port}")
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    with socket.socket(socket.AF_INET, kind) as tried:
                        tried.bind(("", port))
            except OSError:
                continue
            yield port
            return
    raise HostError(f"starting servers: no port from {PORTS.start} to {PORTS.stop - 1} is free")


def _start(
    server: Server, folder: Path, env: Mapping[str, str], logs: Path, stack: contextlib.ExitStack
) -> tuple[Server, subprocess.Popen[bytes], Path]:
    log = logs / f"server-{server.name}.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            ["sh", "-c", server.command], cwd=folder, env={**os.environ, **env},
            stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
    stack.enter_context(ended_group(process))
    return server, process, log


def _until_ready(
    server: Server, process: subprocess.Popen[bytes], log: Path, folder: Path, env: Mapping[str, str]
) -> None:
    deadline = time.monotonic() + server.timeout
    while process.poll() is None:
        if _is_ready(server, folder, env, deadline - time.monotonic()) and process.poll() is None:
            return
        if time.monotonic() > deadline:
            raise _failed(server, f"its readiness check did not pass within {server.timeout:g} seconds", log)
        time.sleep(_POLL)
    raise _failed(server, f"it ended with status {process.returncode} before it was ready", log)


def _is_ready(server: Server, folder: Path, env: Mapping[str, str], seconds: float) -> bool:
    asked = subprocess.Popen(
        ["sh", "-c", server.ready], cwd=folder, env={**os.environ, **env}, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    with ended_group(asked), contextlib.suppress(subprocess.TimeoutExpired):
        return asked.wait(max(seconds, _POLL)) == 0
    return False


def _failed(server: Server, what: str, log: Path) -> ServerFailed:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    said = " | ".join(lines[-_TAIL_LINES:]) or "nothing"
    return ServerFailed(f"running server {server.name}: {what}; it said: {said} (all of it: {log})")
