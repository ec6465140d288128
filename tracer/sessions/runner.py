"""Run a workload in a guest once: start the machine, hold the conversation, keep what came of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tracer.files.rootfs import root_words
from tracer.host import HostError
from tracer.machines.gdb import return_address
from tracer.machines.machine import MachineKind, machine_kind
from tracer.machines.qemu import VmOptions, qemu_command
from tracer.machines.vm import POWERED_OFF, Vm
from tracer.outcome import AppFailed, GuestHung, GuestPanicked
from tracer.readers.boot_trace import command_line
from tracer.sessions.jitter import processors
from tracer.sessions.options import Mark, SessionOptions
from tracer.sessions.session import PANICKED, Session
from tracer.workloads.disks import disk_words, made_disks
from tracer.workloads.servers import running_servers, variable
from tracer.workloads.workload import Workload


@dataclass(frozen=True)
class SessionResult:
    """``outcome`` is "powered off", or "panicked" or "hung" when a panic was expected; ``trace`` is what came
    through the trace port, b"" without one; ``seconds`` is wall-clock time from start to exit."""

    outcome: str
    console: str
    marks: tuple[Mark, ...]
    trace: bytes
    seconds: float
    command: tuple[str, ...]
    kernel_version: str


def run_session(
    kernel: Path, initrd: Path, workload: Workload, options: SessionOptions, into: Path
) -> SessionResult:
    """Boot ``kernel``, run every app of the workload in order, power off.

    ``into`` gets ``console.log``, ``qemu.log``, what servers say and, when tracing, ``trace.bin``.

    Raises:
        AppFailed, GuestPanicked, GuestHung, VmVanished: see :mod:`tracer.outcome`.
        ServerFailed: a server did not become ready, or ended before the run did.
        HostError: QEMU cannot be started, or the disk is full.
    """
    trace_file = _trace_file(options, into)
    began = time.monotonic()
    with open_session(kernel, initrd, workload, options, into) as session:
        vm = session.vm
        try:
            session.run()
            outcome = POWERED_OFF
        except (GuestPanicked, GuestHung) as error:
            if not options.expect_panic:
                raise
            outcome = PANICKED if isinstance(error, GuestPanicked) else "hung"
        vm.close()
        return SessionResult(
            outcome=outcome,
            console=vm.console_text(),
            marks=tuple(session.marks),
            trace=trace_file.read_bytes() if trace_file else b"",
            seconds=time.monotonic() - began,
            command=tuple(vm.command),
            kernel_version=session.kernel_version,
        )


@contextlib.contextmanager
def open_session(
    kernel: Path, initrd: Path, workload: Workload, options: SessionOptions, into: Path
) -> Iterator[Session]:
    """A guest that begins to boot, for a conversation of one's own; its machine, and the servers that its
    apps talk to, end with the block.

    Raises:
        ServerFailed: see :func:`run_session`.
        HostError: QEMU cannot be started.
    """
    kind = machine_kind(workload.arch)
    try:
        into.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"starting the VM: {into}: {error.strerror}") from error
    no_app = options.idle or options.boot_trace is not None
    environment = {"KPRUNE_SEED": str(options.seed)}
    with (
        running_servers(() if no_app else workload.servers, workload.folder, environment, into) as servers,
        made_disks(workload.disks, into) as disks,
    ):
        vm_options = _vm_options(kind, workload, options, _trace_file(options, into), servers.ports, disks)
        with Vm(kind, kernel, initrd, into, vm_options) as vm:
            try:
                yield Session(vm, workload, options, servers.environment)
            except AppFailed:
                servers.check()  # An app whose server is gone is not to blame.
                raise
        servers.check()


def caller_during_boot(
    kernel: Path, initrd: Path, workload: Workload, options: SessionOptions, address: int, into: Path
) -> int:
    """Boot once more and see who calls ``address``: the return address, 0 when it is not called before the
    time for booting is over. For a guest that goes down before it can say so itself."""
    kind = machine_kind(workload.arch)
    into.mkdir(parents=True, exist_ok=True)
    with made_disks(workload.disks, into) as disks:
        vm_options = _vm_options(kind, workload, options, None, {}, disks)
        with Vm(kind, kernel, initrd, into, replace(vm_options, gdb=True, stopped=True)) as vm:
            return return_address(
                vm.gdb_socket, address, kind.stack_pointer, kind.address_size, options.boot_timeout
            )


def session_command(
    kernel: Path, initrd: Path, workload: Workload, options: SessionOptions, into: Path
) -> list[str]:
    """The QEMU command of :func:`run_session`, for a person to read; SOCKETS is a folder of its own, PORT
    the port of a server."""
    kind = machine_kind(workload.arch)
    ports = {variable(port): "PORT" for server in workload.servers for port in server.ports}
    disks = tuple(Path(f"DISK{number}") for number in range(len(workload.disks)))
    vm_options = _vm_options(kind, workload, options, _trace_file(options, into), ports, disks)
    return qemu_command(kind, kernel, initrd, into / "console.log", Path("SOCKETS"), vm_options)


def _trace_file(options: SessionOptions, into: Path) -> Path | None:
    return into / "trace.bin" if options.trace else None


def _vm_options(
    kind: MachineKind,
    workload: Workload,
    options: SessionOptions,
    trace_file: Path | None,
    environment: Mapping[str, str],
    disks: tuple[Path, ...],
) -> VmOptions:
    words = [f"console={kind.console}", "panic=-1", f"kprune.control=/dev/{kind.control}"]
    words += [] if options.moved else ["nokaslr"]
    words += root_words(workload.rootfs.device)
    words += disk_words(workload)
    words += ["oops=panic"] if options.oops_panic else []
    words += ["kprune.trace=1"] if options.trace else []
    words += [f"kprune.seed={options.seed}"] if options.seed else []
    words += [f"kprune.env.{name}={value}" for name, value in environment.items()]
    words += command_line(options.boot_trace) if options.boot_trace is not None else []
    return VmOptions(
        memory=options.memory or workload.machine.memory,
        cmdline=" ".join([*words, workload.machine.cmdline]).strip(),
        forward=workload.machine.forward,
        block_log=options.block_log,
        block_filter=options.block_filter,
        trace_file=trace_file,
        gdb=options.flush or options.poke is not None or bool(options.boot_ends),
        stopped=bool(options.boot_ends),
        # A run that is varied says itself how many processors there are.
        arguments=options.arguments or processors(workload.machine.cpus),
        single=options.single,
        cpu=workload.machine.cpu,
        nic=workload.machine.nic,
        disk=bool(workload.rootfs.device),
        disks=disks,
    )
