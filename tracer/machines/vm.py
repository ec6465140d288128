"""Run one QEMU machine, always with TCG, and know for certain how it ended.

Control goes over unix sockets in a private folder (TCP ports would collide, and the path of a socket may
have 108 bytes only). QMP tells an orderly power-off, a reset (a panic, with panic=-1 and -no-reboot) and
a vanished emulator from one another; a machine that went down stands still until it is closed, so that it can
be asked where its processors were. Leaving the ``with`` block ends the process, whatever happened.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tracer.host import GuestLost, HostError, UserError
from tracer.machines.machine import MachineKind
from tracer.machines.qemu import (
    VmOptions,
    parse_forwards,
    parse_instruction_pointers,
    qemu_command,
    qmp_message,
)

#: How a guest can have ended.
POWERED_OFF, RESET, VANISHED = "powered off", "reset", "vanished"
#: Seconds that a machine may take from its last word to the instruction at which it stays.
_STILL = 20.0
#: Bytes of a line of the agent's or of QEMU's; all that is longer is no answer.
_MAX_LINE = 1 << 20
#: Words for QEMU: where packets go that are lost.
NOWHERE = ("-chardev", "null,id=nowhere-rx", "-chardev", "null,id=nowhere-tx")
_running: set[Vm] = set()


class Vm:
    """A running machine, used as a context manager."""

    def __init__(self, kind: MachineKind, kernel: Path, root: Path, into: Path, options: VmOptions) -> None:
        self.options = options
        self.console = into / "console.log"
        self.ending = ""
        self.ended_at: tuple[int, ...] = ()
        self.ports: dict[int, int] = {}
        self.began = 0.0
        self._qemu_said = into / "qemu.log"
        self._sockets = Path(tempfile.mkdtemp(prefix="kprune-", dir="/tmp"))
        self.gdb_socket = self._sockets / "gdb"
        self.command = qemu_command(kind, kernel, root, self.console, self._sockets, options)
        self._kind = kind
        self._process: subprocess.Popen[bytes] | None = None
        self._selector = selectors.DefaultSelector()
        self._control: socket.socket | None = None
        self._qmp: socket.socket | None = None
        self._buffers: dict[str, bytes] = {"control": b"", "qmp": b""}

    def __enter__(self) -> Self:
        _running.add(self)
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        try:
            self.console.write_bytes(b"")
            self.began = time.monotonic()
            with self._qemu_said.open("wb") as said:
                self._process = subprocess.Popen(
                    self.command, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                    start_new_session=True,  # Ctrl-C reaches us first; close() ends QEMU
                )  # fmt: skip
        except FileNotFoundError as error:
            raise HostError(
                f"starting the VM: {error.filename} is not there", f"apt-get install {self._kind.package}"
            ) from error
        except OSError as error:
            raise HostError(f"starting the VM: {error.filename or self.console}: {error.strerror}") from error
        self._qmp = self._connect("qmp")
        self._control = self._connect("control")
        self._ask_qmp("qmp_capabilities")
        if self.options.forward:
            usernet = self._ask_qmp("human-monitor-command", **{"command-line": "info usernet"})
            self.ports = parse_forwards(str(usernet))

    def _connect(self, name: str) -> socket.socket:
        deadline = time.monotonic() + 20
        path = str(self._sockets / name)
        while True:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.connect(path)
            except OSError:
                connection.close()
                if not self.alive() or time.monotonic() > deadline:
                    raise HostError(f"starting the VM: QEMU does not run: {self.qemu_said()}") from None
                time.sleep(0.02)
            else:
                self._selector.register(connection, selectors.EVENT_READ, name)
                return connection

    def _ask_qmp(self, execute: str, **arguments: Any) -> Any:
        """One QMP command; events that arrive meanwhile are taken note of."""
        assert self._qmp is not None
        try:
            self._qmp.sendall(json.dumps({"execute": execute, "arguments": arguments}).encode() + b"\n")
        except OSError as error:
            raise GuestLost(f"asking QEMU for {execute}: {error.strerror}: {self.qemu_said()}") from error
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.alive():
            for line in self._poll("qmp", 0.2):
                message = qmp_message(line)
                self._note_event(message)
                if "return" in message:
                    return message["return"]
                if "error" in message:
                    raise HostError(f"asking QEMU for {execute}: {message['error']}")
        raise GuestLost(f"asking QEMU for {execute}: no answer: {self.qemu_said()}")

    def _poll(self, wanted: str, seconds: float) -> list[bytes]:
        """Read whatever arrives on the sockets for at most ``seconds``; whole lines of ``wanted``."""
        for key, _ in self._selector.select(seconds):
            connection: Any = key.fileobj
            try:
                received = connection.recv(65536)
            except OSError:
                received = b""
            if not received:
                self._selector.unregister(connection)
            self._buffers[key.data] += received
            if len(self._buffers[key.data]) > _MAX_LINE:
                raise GuestLost(f"listening to the guest: a line on its {key.data} port has no end")
        *lines, self._buffers[wanted] = self._buffers[wanted].split(b"\n")
        return lines

    def _note_event(self, message: dict[str, Any]) -> None:
        data = message.get("data")
        if message.get("event") == "SHUTDOWN" and isinstance(data, dict):
            reason = data.get("reason")
            if reason == "guest-shutdown":
                self.ending = POWERED_OFF
            elif reason in ("guest-reset", "guest-panic"):
                self.ending = RESET

    def send(self, line: str) -> None:
        """One order to the agent."""
        assert self._control is not None
        with contextlib.suppress(OSError):  # a VM that has just ended shows in `ending`
            self._control.sendall(line.encode() + b"\n")

    def receive(self, seconds: float) -> list[str]:
        """Lines of the agent's that arrive within ``seconds`` (returns at the first that do).

        When the machine is gone, :attr:`ending` says how.
        """
        lines = self._poll("control", seconds)
        for line in self._poll("qmp", 0):
            self._note_event(qmp_message(line))
        if self.ending == RESET and not self.ended_at:
            self.ended_at = self.processors_at()
        if not self.ending and not self.alive():
            # The event is written before the exit: look once more.
            for line in self._poll("qmp", 0.1) + self._poll("qmp", 0):
                self._note_event(qmp_message(line))
            lines += self._poll("control", 0)
            self.ending = self.ending or VANISHED
        return [line.decode(errors="replace").rstrip("\r") for line in lines]

    def processors_at(self) -> tuple[int, ...]:
        """The instruction pointer of every processor; () when the emulator does not answer."""
        with contextlib.suppress(GuestLost, HostError, OSError):
            said = self._ask_qmp("human-monitor-command", **{"command-line": "info registers -a"})
            return parse_instruction_pointers(str(said))
        return ()

    def physical_memory(self, address: int, size: int) -> bytes:
        """Bytes of the guest's memory, which runs on meanwhile.

        Raises:
            HostError, GuestLost: QEMU did not hand them out.
        """
        path = self._sockets / "memory"
        self._ask_qmp("pmemsave", val=address, size=size, filename=str(path))
        return path.read_bytes()

    def switch_off_halted(self) -> None:
        """Wait for the processors to stand still after the kernel's last word; this was a power-off then.

        Raises:
            GuestLost: they go on.
        """
        deadline = time.monotonic() + _STILL
        at = self.processors_at()
        while time.monotonic() < deadline:
            time.sleep(0.2)
            before, at = at, self.processors_at()
            if at and at == before:
                self.ending = POWERED_OFF
                return
        raise GuestLost("powering off: the guest said that it had halted, and goes on")

    def pause(self) -> None:
        """Stop the processors and the guest's clock; it does not notice."""
        self._ask_qmp("stop")

    def resume(self) -> None:
        self._ask_qmp("cont")

    @contextlib.contextmanager
    def without_network(self) -> Iterator[None]:
        """All packets are lost within the block, in both directions; the card does not notice. The machine
        needs the arguments :data:`NOWHERE`."""
        for queue in ("rx", "tx"):
            how = {"qom-type": "filter-redirector", "id": f"lost-{queue}", "netdev": "net0", "queue": queue}
            self._ask_qmp("object-add", **how, outdev=f"nowhere-{queue}")
        yield
        for queue in ("rx", "tx"):
            self._ask_qmp("object-del", id=f"lost-{queue}")

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        if self._process:
            self._process.kill()

    def wait(self, seconds: float) -> bool:
        """Wait for QEMU to exit by itself; whether it did."""
        try:
            if self._process:
                self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def console_text(self) -> str:
        """Everything that the guest has printed so far."""
        try:
            return self.console.read_bytes().decode(errors="replace").replace("\r", "")
        except OSError as error:
            raise UserError(f"reading the guest's console: {self.console}: {error.strerror}") from error

    def console_size(self) -> int:
        """Bytes that the guest has printed so far."""
        return self.console.stat().st_size if self.console.exists() else 0

    def log_size(self) -> int:
        """Bytes in the block log so far; 0 without one."""
        path = self.options.block_log
        return path.stat().st_size if path and path.exists() else 0

    def log_from(self, offset: int) -> bytes:
        """What is in the block log from there on; nothing without one."""
        path = self.options.block_log
        if not path or not path.exists():
            return b""
        with path.open("rb") as stream:
            stream.seek(offset)
            return stream.read()

    def qemu_said(self) -> str:
        """QEMU's own complaints, on one line."""
        with contextlib.suppress(OSError):
            return " | ".join(self._qemu_said.read_text(errors="replace").split("\n")[-4:]).strip(" |")
        return ""

    def close(self) -> None:
        """End the machine and remove its sockets."""
        _running.discard(self)
        if self._process and self._process.poll() is None:
            self._process.terminate()
            if not self.wait(2):
                self._process.kill()
                self._process.wait()
        for connection in (self._control, self._qmp):
            if connection:
                connection.close()
        self._selector.close()
        shutil.rmtree(self._sockets, ignore_errors=True)


def end_all() -> None:
    """End every machine of this process; the threads that watch them see them vanish."""
    for vm in list(_running):
        vm.kill()
