"""A machine that is reached with the ``ssh`` program: run a line there, send files, fetch one.

ssh never asks anything: what needs a password or an answer fails with a remedy. Its exit status is the remote
line's, or 255 when there is no connection.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import signal
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tracer.host import GuestLost, HostError, UserError, ended_group, printable, whole_file

CHUNK = 1 << 16
#: Seconds that anything may take that is not an app.
GRACE = 120
#: ssh's own exit status when it could not connect, or lost the connection.
NO_CONNECTION = 255
MAX_FILE = 1 << 31
_OURS = ("-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=10", "-o", "ServerAliveCountMax=6")
_REMEDIES = (
    ("Host key verification", "connect once by hand and check the target's key"),
    ("Permission denied", "install a key that needs no password: ssh-copy-id"),
    ("Could not resolve", "is the name right?"),
)


@dataclass(frozen=True)
class SshTarget:
    """``destination`` as ssh takes it, ``options``: more words for ssh; ``ports``: (guest port, port at which
    the host reaches it); ``runs``: how often to run the workload."""

    destination: str
    options: tuple[str, ...] = ()
    ports: tuple[tuple[int, int], ...] = ()
    runs: int = 1

    def command(self, remote: str) -> list[str]:
        """ssh, never asking anything, with a line for a POSIX shell, whatever shell the user has there."""
        line = f"exec sh -c {shlex.quote(remote)}"
        return ["ssh", "-T", "-o", "BatchMode=yes", *self.options, *_OURS, "--", self.destination, line]


@contextlib.contextmanager
def connection(
    target: SshTarget,
    remote: str,
    seconds: float,
    stdin: int = subprocess.PIPE,
    stderr: int | IO[bytes] = subprocess.STDOUT,
) -> Iterator[tuple[subprocess.Popen[bytes], threading.Event]]:
    """A running ssh; it is ended when the block or its time is over, and the event says which.

    Raises:
        HostError: there is no ssh.
    """
    try:
        process = subprocess.Popen(
            target.command(remote), stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True
        )
    except FileNotFoundError as error:
        raise HostError(
            f"tracing on {target.destination}: {error.filename} is not there",
            "apt-get install openssh-client",
        ) from error
    expired = threading.Event()

    def end() -> None:
        expired.set()
        # With what it may have started itself (ProxyCommand), which would keep our end of the pipe open.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(seconds, end)
    timer.start()
    try:
        with ended_group(process):
            yield process, expired
    finally:
        timer.cancel()
        for stream in (process.stdin, process.stdout):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()


def run_line(target: SshTarget, remote: str, what: str, data: bytes = b"") -> None:
    """Run a line on the target, with ``data`` as its input.

    Raises:
        HostError: it failed.
        GuestLost: it took too long.
    """
    doing = f"{what} on {target.destination}"
    with connection(target, remote, GRACE) as (process, expired):
        said, _ = process.communicate(data)
    last = _last_words(said)
    if expired.is_set():
        raise GuestLost(f"{doing}: no answer in {GRACE} seconds")
    if process.returncode == NO_CONNECTION:
        remedy = next(
            (mend for text, mend in _REMEDIES if text in last), "is it up, and is ssh running there?"
        )
        raise HostError(f"{doing}: it cannot be reached: {last}", remedy)
    if process.returncode:
        raise HostError(f"{doing}: exit status {process.returncode}: {last}")


def upload(target: SshTarget, folder: str, files: Mapping[str, bytes]) -> None:
    """Make a new folder there, with these files; or nothing."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o600
            archive.addfile(member, io.BytesIO(data))
    where = shlex.quote(folder)
    line = f"umask 077 && mkdir {where} && cd {where} && {{ tar -xf - || {{ rm -rf {where}; exit 1; }}; }}"
    run_line(target, line, "unpacking collect.sh", packed.getvalue())


def fetch(target: SshTarget, file: str, into: Path) -> Path:
    """Copy a file from there. What ssh itself says, such as a warning, is kept apart from it.

    Raises:
        GuestLost: it did not come whole.
        UserError: it is larger than any that collect.sh writes.
    """
    doing = f"fetching the trace from {target.destination}"
    with (
        tempfile.TemporaryFile() as talk,
        whole_file(into, "wb") as copy,
        connection(target, f"cat {shlex.quote(file)}", 10 * GRACE, subprocess.DEVNULL, talk) as (
            process,
            expired,
        ),
    ):
        assert process.stdout
        size = 0
        while chunk := process.stdout.read(CHUNK):
            size += len(chunk)
            if size > MAX_FILE:
                raise UserError(f"{doing}: it is larger than {MAX_FILE >> 20} MiB")
            copy.write(chunk)
        status = process.wait()
        if expired.is_set() or status:
            talk.seek(0)
            said = _last_words(talk.read())
            raise GuestLost(
                f"{doing}: it did not come whole (ssh exited {status}): {said}", "is the target still up?"
            )
    return into


def _last_words(said: bytes) -> str:
    words = [
        line.strip() for line in printable(said[-2000:].replace(b"\r", b"")).splitlines() if line.strip()
    ]
    return " | ".join(words[-3:]) or "it said nothing"
