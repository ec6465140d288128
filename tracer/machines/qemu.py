"""QEMU's own language: its command line, what it says on QMP, and what its monitor prints."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracer.host import GuestLost
from tracer.machines.machine import MachineKind
from tracer.workloads.workload import NIC


@dataclass(frozen=True)
class VmOptions:
    """What differs between runs. ``memory`` in bytes.

    ``block_log``: where QEMU writes every block it translates; ``block_filter``: only for these
    (address, length) ranges. ``trace_file``: there is a virtio-serial port that writes to it. ``gdb``:
    there is a gdbstub; ``stopped``: the machine waits for it to let it go. ``single``: all processors take
    turns in one thread. ``cpu``: instead of the machine's own. ``nic``: the PCI network card. ``disk``: the
    root file system is a disk (read only) instead of an initrd. ``disks``: images of others, for data.
    ``arguments``: more words for the QEMU command line.
    """

    memory: int
    cmdline: str = ""
    forward: tuple[int, ...] = ()
    block_log: Path | None = None
    block_filter: tuple[tuple[int, int], ...] = ()
    trace_file: Path | None = None
    gdb: bool = False
    stopped: bool = False
    single: bool = False
    cpu: str = ""
    nic: str = NIC
    disk: bool = False
    disks: tuple[Path, ...] = ()
    arguments: tuple[str, ...] = ()


def qemu_command(
    kind: MachineKind, kernel: Path, root: Path, console: Path, sockets: Path, options: VmOptions
) -> list[str]:
    """The whole QEMU command line; ``sockets`` is the folder of the control sockets."""
    forwards = "".join(f",hostfwd=tcp:127.0.0.1:0-:{port}" for port in options.forward)
    words = [
        kind.program, "-accel", f"tcg{',thread=single' * options.single}", "-M", kind.machine,
        "-cpu", options.cpu or kind.cpu,
        "-m", f"{options.memory >> 10}K", "-nodefaults", "-display", "none", "-no-reboot",
        "-action", "shutdown=pause",
        "-kernel", str(kernel), *_root(root, options), "-append", options.cmdline,
        "-serial", f"file:{_escaped(console)}",
        "-serial", f"unix:{sockets}/control,server=on,wait=off",
        "-qmp", f"unix:{sockets}/qmp,server=on,wait=off",
        # The user network's router advertisements would make every IPv6 kernel run its autoconfiguration.
        "-netdev", f"user,id=net0,ipv6=off{forwards}", "-device", f"{options.nic},netdev=net0,romfile=",
    ]  # fmt: skip
    for number, path in enumerate(options.disks):
        # What is on them is gone with the guest: nothing waits for the host's own disk.
        drive = f"file={_escaped(path)},format=raw,if=none,id=data{number},cache=unsafe"
        words += ["-drive", drive, "-device", f"virtio-blk-pci,drive=data{number}"]
    if options.block_log:
        words += ["-d", "in_asm", "-D", str(options.block_log)]
        if options.block_filter:
            words += ["-dfilter", ",".join(f"{at:#x}+{size:#x}" for at, size in options.block_filter)]
    if options.trace_file:
        words += [
            "-device", "virtio-serial-pci",
            "-chardev", f"file,id=trace,path={_escaped(options.trace_file)}",
            "-device", "virtserialport,chardev=trace,name=kprune.trace",
        ]  # fmt: skip
    if options.gdb:
        words += ["-gdb", f"unix:{sockets}/gdb,server=on,wait=off"]
    if options.stopped:
        words += ["-S"]
    return [*words, *options.arguments]


def _root(root: Path, options: VmOptions) -> list[str]:
    if not options.disk:
        return ["-initrd", str(root)]
    drive = f"file={_escaped(root)},format=raw,if=none,id=root,readonly=on"
    return ["-drive", drive, "-device", "virtio-blk-pci,drive=root"]


def _escaped(path: Path) -> str:
    """A comma ends a value in QEMU's options; two are one."""
    return str(path).replace(",", ",,")


def qmp_message(line: bytes) -> dict[str, Any]:
    """One of QEMU's.

    Raises:
        GuestLost: it is not as the protocol has them.
    """
    try:
        message = json.loads(line)
        if not isinstance(message, dict):
            raise ValueError("it is no object")
    except (ValueError, RecursionError) as error:
        raise GuestLost(f"listening to QEMU: {line[:60]!r}: {error}") from error
    return message


def parse_forwards(usernet: str) -> dict[int, int]:
    """Guest port -> host port, from the answer to QEMU's ``info usernet``.

    QEMU was given host port 0, so that the system chose free ones and none can be taken meanwhile.
    """
    rows = re.findall(r"TCP\[HOST_FORWARD\]\s+\d+\s+\S+\s+(\d{1,5})\s+\S+\s+(\d{1,5})\b", usernet)
    return {int(guest): int(host) for host, guest in rows}


def parse_instruction_pointers(registers: str) -> tuple[int, ...]:
    """The instruction pointer of each processor, from the answer to QEMU's ``info registers -a``."""
    return tuple(int(found, 16) for found in re.findall(r"\b(?:RIP|EIP)=([0-9a-f]+)", registers))
