"""Run a workload's apps on a machine that is reached over ssh, with ``collect.sh``.

    host                                       target
    a tar of collect.sh, list and scripts ->   a new folder in /tmp
                                           <-  run APP RUN
                                           <-  host APP RUN       the service is ready to be used from outside
    the host command's status ->
    (the end of the conversation)              the folder has collected.tar
                                           <-  collected.tar
                                               the folder is removed

The apps must be installed there: nothing of the workload's root file system is copied. Host commands find the
target's address in ``$KPRUNE_HOST``, and the port for guest port N in ``$KPRUNE_PORT_N``: N itself, or what
it is mapped to. The target is not trusted: it can make a profile wrong, and nothing else.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import secrets
import shlex
import subprocess
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from tracer.elsewhere.collected import read_collected
from tracer.elsewhere.ssh import CHUNK, GRACE, NO_CONNECTION, SshTarget, connection, fetch, run_line, upload
from tracer.host import (
    GuestLost,
    HostError,
    UserError,
    ValidationFailed,
    ended_group,
    printable,
    run_program,
    say,
)
from tracer.outcome import AppFailed
from tracer.workloads.workload import App, Workload

SCRIPT = Path(__file__).parents[1] / "collect.sh"
TAR = "collected.tar"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LOOPBACK = re.compile(r"localhost|127\.[0-9.]+|::1")
#: How long collect.sh may take to put everything back when it is told to end.
_PATIENCE = 30


def collect_over_ssh(
    workload: Workload, target: SshTarget, into: Path, progress: Callable[[str], None] = say
) -> Path:
    """Run the apps there; the path of the tar, for :func:`tracer.elsewhere.imported.import_collected`.

    Raises:
        UserError: the target or a host command cannot be right.
        HostError: the target cannot be reached, or lacks something.
        AppFailed: an app failed.
        GuestLost: the connection was lost.
    """
    if workload.servers:
        raise UserError(
            f"tracing over ssh: {workload.name} has servers on the host, which only guests of kprune reach",
            "trace it without --ssh",
        )
    address = address_of(target)
    check_host_commands(workload, target, address)
    folder = f"/tmp/kprune-{secrets.token_hex(8)}"
    upload(target, folder, files_for(workload, folder))
    try:
        session = _Session(workload, target, address, into, progress)
        status = session.run(folder)
        tar = fetch(target, f"{folder}/{TAR}", into / TAR)
        if status:
            raise _failed(target, tar, session.last_words())
        return tar
    finally:
        with contextlib.suppress(HostError, GuestLost):
            run_line(target, _tidy(shlex.quote(folder)), "tidying up")


def _failed(target: SshTarget, tar: Path, last_words: str) -> ValidationFailed:
    """Which app failed: the tar knows."""
    doing = f"tracing on {target.destination}"
    try:
        read_collected(tar)
    except AppFailed as error:
        return AppFailed(f"{doing}: {error.summary}", remedy="mend the app; it must work there by hand first")
    return ValidationFailed(f"{doing}: {last_words}")


def remote_line(folder: str, runs: int) -> str:
    """A line for the target's shell: run collect.sh on what is in the folder."""
    where = shlex.quote(folder)
    # Whoever tidies up must not end another process that has got its number meanwhile.
    begin = f"echo $$ >{where}/running; exec sh {where}/collect.sh -o {where}/{TAR} -r {runs} {where}/apps"
    return (
        f"cd / && PATH=$PATH:{_PATH} TMPDIR={where} && export PATH TMPDIR || exit; "
        f"sh -c {shlex.quote(begin)}; status=$?; rm -f {where}/running; exit $status"
    )


def _tidy(where: str) -> str:
    """A line that ends a collect.sh which still runs, for we were interrupted, and removes the folder. What
    collect.sh has to put back lies in the folder, so it gets the time to do that first."""
    return (
        f"if read -r process <{where}/running; then kill -TERM $process; left={_PATIENCE}; "
        "while kill -0 $process && [ $left -gt 0 ]; do sleep 1; left=$((left - 1)); done; "
        f"fi 2>/dev/null; rm -rf {where}"
    )


def address_of(target: SshTarget) -> str:
    """The host name or address that ssh connects to, its configuration considered.

    Raises:
        UserError: not a destination.
    """
    if not re.fullmatch(r"[^\s-]\S*", target.destination):
        raise UserError(f"tracing over ssh: {target.destination!r} is no user@host")
    if target.runs < 1:
        raise UserError(f"tracing over ssh: {target.runs} runs", "at least one")
    words = ["ssh", "-G", *target.options, "--", target.destination]
    said = run_program(words, doing="reading ssh's configuration", failure=UserError)
    found = re.search(r"^hostname (\S+)$", said, re.M)
    return found[1] if found else target.destination.rpartition("@")[2]


def ports_of(workload: Workload, target: SshTarget) -> dict[str, str]:
    """``KPRUNE_PORT_N`` for every port that the workload forwards or the user maps."""
    ports = {port: port for port in workload.machine.forward} | dict(target.ports)
    return {f"KPRUNE_PORT_{guest}": str(host) for guest, host in sorted(ports.items())}


def check_host_commands(workload: Workload, target: SshTarget, address: str) -> None:
    """A command that asks this machine, when the app runs on another, would fail at the end of a long run.

    Raises:
        UserError: there is one, and no mapping makes it right.
    """
    if target.ports or _LOOPBACK.fullmatch(address):
        return
    for app in workload.apps:
        here = re.search(r"\b(localhost|127\.0\.0\.1)\b", app.host)
        if here and "KPRUNE_HOST" not in app.host:
            raise UserError(
                f"tracing over ssh: the host command of app {app.name} asks {here[1]}, "
                f"but the app runs on {address}",
                "write ${KPRUNE_HOST:-127.0.0.1} there, or forward a port and say --ssh-port-map",
            )


def files_for(workload: Workload, folder: str) -> dict[str, bytes]:
    """What goes to the target's ``folder``: ``collect.sh``, the list, a file per script."""
    files = {"collect.sh": SCRIPT.read_bytes()}
    lines = [f"# {workload.name}, made by kprune"]
    for number, app in enumerate(workload.apps):
        scripts = _scripts(app)
        for key, name, text in scripts:
            file = f"{number}.{name}"
            files[file] = f"{text}\n".encode()
            lines.append(f"{key}\texec sh {shlex.quote(f'{folder}/{file}')}")
        if app.host:
            lines.append("+host\tkprune")
        lines.append(f"+timeout\t{math.ceil(app.timeout)}")
    files["apps"] = "\n".join([*lines, ""]).encode()
    return files


def _scripts(app: App) -> Iterator[tuple[str, str, str]]:
    """(key in the list, name of a file, script); the app's own command comes first."""
    yield app.name, "command", app.command
    if app.check:
        yield "+check", "check", app.check
    if app.ready:
        yield "+ready", "ready", app.ready
    for i, line in enumerate(app.client):
        yield "+client", f"client{i}", line


class _Session:
    """The conversation with a running ``collect.sh``."""

    def __init__(
        self,
        workload: Workload,
        target: SshTarget,
        address: str,
        into: Path,
        progress: Callable[[str], None],
    ) -> None:
        self.target = target
        self._apps = {app.name: app for app in workload.apps}
        self._folder = workload.folder
        self._into = into
        self._progress = progress
        self._environment = {"KPRUNE_HOST": address, **ports_of(workload, target)}
        self._said: deque[str] = deque(maxlen=12)
        self._at = "began"
        steps = sum((4 + len(app.client)) * app.timeout + 30 for app in workload.apps)
        self._allowed = steps * target.runs + GRACE

    def run(self, folder: str) -> int:
        """From start to end; 0, or 1 when an app failed.

        Raises:
            GuestLost, HostError, UserError: it ended in another way.
        """
        doing = f"tracing on {self.target.destination}"
        with connection(self.target, remote_line(folder, self.target.runs), self._allowed) as (
            process,
            expired,
        ):
            assert process.stdin and process.stdout
            while line := process.stdout.readline(CHUNK):
                answer = self._take(printable(line.rstrip(b"\r\n")))
                if answer is not None:
                    with contextlib.suppress(BrokenPipeError):
                        process.stdin.write(f"{answer}\n".encode())
                        process.stdin.flush()
            status = process.wait()
        if expired.is_set():
            raise GuestLost(f"{doing}: no end after {self._allowed:g} seconds, when {self._at}")
        if status == NO_CONNECTION:
            raise GuestLost(f"{doing}: the connection was lost when {self._at}: {self.last_words()}")
        if status == 3:
            raise HostError(f"{doing}: {self.last_words()}")
        if status not in (0, 1):
            raise HostError(f"{doing}: collect.sh exited with status {status}: {self.last_words()}")
        return status

    def last_words(self) -> str:
        """The end of what the target said, on one line."""
        return " | ".join(self._said) or "it said nothing"

    def _take(self, line: str) -> str | None:
        """One line of the target's; what to answer."""
        found = re.fullmatch(r"(run|host) ([a-z0-9-]+) (\d{1,6})(?: .*)?", line)
        app = self._apps.get(found[2]) if found else None
        if not found or not app:
            self._said.append(line)
            return None
        number = int(found[3])
        if found[1] == "run":
            self._said.clear()
            self._at = f"app {app.name} ran, run {number + 1} of {self.target.runs}"
            self._progress(f"{self.target.destination}: {app.name}, run {number + 1} of {self.target.runs}")
            return None
        return self._host_command(app, number) if app.host else "there is no host command"

    def _host_command(self, app: App, number: int) -> str:
        """Run an app's host command; "0", or what went wrong."""
        environment = {**os.environ, **self._environment, "KPRUNE_SEED": str(number)}
        log = self._into / f"host-{app.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as said:
            process = subprocess.Popen(
                ["sh", "-c", app.host], cwd=self._folder, env=environment, stdin=subprocess.DEVNULL,
                stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip
        with ended_group(process):
            try:
                status = process.wait(app.timeout)
            except subprocess.TimeoutExpired:
                return f"the host command did not end within {app.timeout:g} seconds (see {log})"
        return f"the host command exited with status {status} (see {log})" if status else "0"
