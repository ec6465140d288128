"""What both packages need of the host: errors, whole files, running programs.

Two roots of errors: :class:`UserError`, the input is wrong, and :class:`HostError`, the machine or
the guest is. Every message names what was being done, the file, and the way out; every class carries
the exit code that the command line returns.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

#: What walking through a JSON value raises that has not the shape that was expected.
MISSHAPEN = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
#: Characters of an error's message: what a file or a guest says in it has no end of its own.
MAX_MESSAGE = 4000


def printable(data: bytes | str) -> str:
    """Text from somebody who is not trusted, for a terminal: names and logs can hold what it obeys."""
    text = data.decode(errors="replace") if isinstance(data, bytes) else data
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else "?" for char in text)


class KpruneError(Exception):
    """Base of both roots. ``exit_code`` is what the command line exits with.

    Its message is one line that can be shown: what it quotes comes from files, guests and other programs.
    """

    exit_code = 2

    def __init__(self, message: str, remedy: str = "") -> None:
        said = message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]} ..."
        super().__init__(printable(f"{said}; {remedy}" if remedy else said).replace("\n", " "))


class UserError(KpruneError):
    """The user's input is wrong (exit 2)."""


class ValidationFailed(UserError):
    """A check of the result, or an app of the workload, failed (exit 1)."""

    exit_code = 1


class BuildFailed(UserError):
    """The kernel did not build or link (exit 4)."""

    exit_code = 4


class HostError(KpruneError):
    """The machine lacks something (exit 3)."""

    exit_code = 3


class GuestFailed(HostError):
    """The guest panicked or missed a function (exit 5)."""

    exit_code = 5


class GuestLost(HostError):
    """The guest hung, vanished or ran out of time (exit 6)."""

    exit_code = 6


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Without Python's cyclic garbage collector, which walks all of a hundred thousand rows each time that
    some thousands more were made, and finds that every one of them is needed."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def say(text: str) -> None:
    """Talk to the person at the terminal: stderr, never stdout."""
    print(f"kprune: {printable(text)}", file=sys.stderr, flush=True)


def show(text: str) -> None:
    """Print a result for a person: the one thing on stdout that is not for a program."""
    print(printable(text))


@contextlib.contextmanager
def command_line() -> Iterator[None]:
    """What goes wrong in the block is said to the person, and the process exits by its code."""
    try:
        yield
    except KpruneError as error:
        say(str(error))
        sys.exit(error.exit_code)


def leave(code: int) -> NoReturn:
    """End the process, without taking a hundred thousand objects apart first, one by one."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextlib.contextmanager
def whole_file(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that appears under its name complete, or not at all.

    Raises:
        HostError: the disk is full or the folder cannot be written.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, mode) as stream:
            yield stream
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise HostError(
            f"writing {path}: {error.strerror or error}", "free some space or choose another folder"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def write_json(path: Path, value: Any, indent: int | None = 1) -> None:
    """Write ``value`` as JSON, whole or not at all; without ``indent`` on one line, which is many times
    faster."""
    with whole_file(path) as stream:
        stream.write(json.dumps(value, indent=indent) + "\n")


def read_json(path: Path, what: str, schema_version: int, *older: int) -> Any:
    """Read one of kprune's own files; ``older``: other schema versions that the caller can read.

    Raises:
        UserError: missing, not JSON, or of another schema version.
    """
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"reading the {what}: {path} does not exist") from None
    except RecursionError:
        raise UserError(f"reading the {what}: {path} is nested too deeply", "make it again") from None
    except (OSError, ValueError) as error:
        raise UserError(f"reading the {what}: {path}: {error}") from error
    found = value.get("schema_version") if isinstance(value, dict) else None
    if found not in (schema_version, *older):
        raise UserError(
            f"reading the {what}: {path} has schema_version {found}, expected {schema_version}",
            "make it again with this kprune",
        )
    return value


def read_at_most(path: Path, most: int) -> bytes:
    """A file's content; of one that is larger, one byte more than ``most``.

    Room is made for what a file has, not for what it may have; a device that does not end, ends here.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        room = min(os.fstat(stream.fileno()).st_size, most) + 1
        data = stream.read(room)
        if len(data) == room <= most:
            data += stream.read(most + 1 - room)
        return data


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def host_path() -> str:
    """Where programs are looked for: $PATH, and where servers are, which few users have in theirs."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def run_program(
    command: Sequence[str | Path],
    *,
    doing: str,
    log: Path | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    failure: type[KpruneError] = HostError,
    name: str = "",
) -> str:
    """Run a program to its end and return its standard output.

    With ``log``, both streams go to that file (made anew) and "" is returned. ``name``: of the program that
    this one runs, when it is that one that fails.

    Raises:
        HostError: the program does not exist.
        failure: it exited non-zero; the message holds the end of what it said.
    """
    words = [str(word) for word in command]
    environment = {**os.environ, **(env or {})}
    try:
        with tempfile.TemporaryFile() if log is None else _begin_log(log, words) as stream:
            done = subprocess.run(
                words, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, check=False,
                stdout=subprocess.PIPE if log is None else stream, stderr=stream,
            )  # fmt: skip
            stream.seek(0)
            said = stream.read().decode(errors="replace")
    except FileNotFoundError as error:
        raise HostError(
            f"{doing}: {error.filename} is not there", "kprune doctor says how to get it"
        ) from error
    except OSError as error:
        raise HostError(f"{doing}: {words[0]}: {error.strerror or error}") from error
    if done.returncode != 0:
        lines = said.strip().splitlines()[0 if log is None else 1 :]
        tail = " | ".join(lines[-4:])
        where = f" (all of it: {log})" if log else ""
        raise failure(f"{doing}: {name or words[0]} exited {done.returncode}: {tail}{where}")
    return "" if log is not None else done.stdout.decode(errors="replace")


def _begin_log(log: Path, words: Sequence[str]) -> IO[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    stream = log.open("w+b")
    stream.write(f"$ {shlex.join(words)}\n".encode())
    stream.flush()
    return stream


@contextlib.contextmanager
def ended_group(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Whatever happens, nothing of the process's own group is left when the block ends."""
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def check_room(folder: Path) -> None:
    """QEMU does not say when its logs no longer fit, and a shorter log would be a smaller profile.

    Raises:
        HostError: the disk is full.
    """
    if shutil.disk_usage(folder).free < 1 << 20:
        raise HostError(f"writing {folder}: the disk is full", "free some space or choose another folder")
