"""Halt a guest through QEMU's gdbstub, write its memory, make QEMU forget its translations.

A client for a few packets of gdb's remote protocol.

Connecting halts the guest, detaching lets it run on. Packets are ``$data#checksum``, answered by ``+``.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tracer.host import GuestLost

#: Seconds in which the stub answers a packet.
ANSWER = 10.0


class GdbClient:
    """One connection to a gdbstub on a unix socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._pending = b""

    def ask(self, packet: str) -> str:
        """Send one packet and return the answer's text, past notices that the guest has halted."""
        self._send(packet)
        while True:
            answer = self._receive()
            if answer[:1] not in ("T", "S"):
                return answer

    def _send(self, packet: str) -> None:
        body = packet.encode()
        self._socket.sendall(b"$" + body + b"#%02x" % (sum(body) & 0xFF))

    def _receive(self) -> str:
        while True:
            start = self._pending.find(b"$")
            end = self._pending.find(b"#", start)
            if 0 <= start < end and len(self._pending) >= end + 3:
                answer = self._pending[start + 1 : end].decode(errors="replace")
                self._pending = self._pending[end + 3 :]
                self._socket.sendall(b"+")
                return answer
            received = self._socket.recv(4096)
            if not received:
                raise GuestLost("talking to QEMU's gdbstub: it closed the connection")
            self._pending += received

    def flush_translations(self) -> None:
        """Make QEMU forget every block that it has translated, by one single step of the guest.

        QEMU flushes its translations whenever the gdbstub reports a stop for debugging
        (``gdb_vm_state_change``: gdbstub.c up to QEMU 8.0, gdbstub/system.c since). The step takes
        interrupts (``Qqemu.sstep``), since a guest that waits for one would never get to step.
        """
        self.ask("Qqemu.sstep=1")
        self._send("s")
        while self._receive()[:3] not in ("T05", "S05"):
            pass

    def run_to(self, addresses: Iterable[int], deadline: Callable[[], float]) -> bool:
        """Let the guest run until it is about to execute one of ``addresses``; False when that took too long,
        or when it went down before.

        ``deadline`` is asked once a second and answers by time.monotonic(). The addresses may be unmapped as
        yet: QEMU's breakpoints are on virtual addresses and write no memory.
        """
        for address in addresses:
            self.ask(f"Z0,{address:x},1")
        self._send("c")
        while (left := deadline() - time.monotonic()) > 0:
            self._socket.settimeout(min(left, 1.0))
            try:
                answer = self._receive()
            except TimeoutError:
                continue
            if answer[:1] in ("T", "S"):
                self._socket.settimeout(ANSWER)
                return answer[1:3] == "05"
        return False

    def read_register(self, number: int, size: int) -> int:
        """A register by its number in gdb's register file, on a little-endian machine whose general
        registers have ``size`` bytes."""
        return int.from_bytes(_bytes(self.ask("g"))[number * size :][:size], "little")

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes at a virtual address; b"" when it is not mapped."""
        answer = self.ask(f"m{address:x},{size:x}")
        return b"" if answer.startswith("E") else _bytes(answer)

    def write(self, address: int, data: bytes) -> bool:
        """Write to a virtual address. False when the address is not mapped at this moment."""
        answer = self.ask(f"M{address:x},{len(data):x}:{data.hex()}")
        return answer == "OK"


def _bytes(answer: str) -> bytes:
    try:
        return bytes.fromhex(answer)
    except ValueError as error:
        raise GuestLost(f"talking to QEMU's gdbstub: it answers {answer[:60]!r}") from error


@contextlib.contextmanager
def attached(path: Path) -> Iterator[GdbClient]:
    """The guest halts inside the block and goes on after it."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER)
            connection.connect(str(path))
            client = GdbClient(connection)
            yield client
            # A guest that runs into what was poked may be gone before it answers.
            with contextlib.suppress(OSError, GuestLost):
                client.ask("D")
    except OSError as error:
        raise GuestLost(f"talking to QEMU's gdbstub: {error}") from error


def return_address(path: Path, address: int, stack_pointer: int, size: int, seconds: float) -> int:
    """Where the guest returns to from ``address``, once it gets there; 0 when it does not, or does not say.

    ``stack_pointer``: the register's number; ``size`` of an address in bytes. The guest ends here: it is not
    told to go on.
    """
    with contextlib.suppress(OSError, GuestLost, ValueError), attached(path) as client:
        deadline = time.monotonic() + seconds
        if client.run_to([address], lambda: deadline):
            return int.from_bytes(client.read(client.read_register(stack_pointer, size), size), "little")
    return 0


def poke_memory(path: Path, address: int, data: bytes, tries: int = 20) -> None:
    """Write ``data`` at a kernel address; try again if the guest is where the address is not mapped.

    Raises:
        GuestLost: it never was, or the stub does not answer.
    """
    for _ in range(tries):
        with attached(path) as client:
            if client.write(address, data):
                return
        time.sleep(0.05)
    raise GuestLost(f"writing {len(data)} bytes at {address:#x} of the guest: the address is not mapped")
