"""Run a workload in a guest once, from power-on to power-off.

The host leads, the agent (``guest/init``) follows; each order is a line, and so is each answer:

    host                            guest
                                    hello 1 VERSION
    open N                          done 0          app N's window opens (a traced kernel resets its counts)
    step N SCRIPT SECONDS           done STATUS     run a script to its end
    start N                         done 0          start a service
    ready N SCRIPT SECONDS          done STATUS     one readiness check, or: died STATUS
    stop N                          done 0          stop the service, or: died STATUS
    close N                         done 0          app N's window closes (a traced kernel sends its counts)
    said                            | LINE ... done 0   the end of what the app printed
    poweroff                        done 0          and the machine goes down

An app that fails, a panic, a guest that hangs and an emulator that vanishes are different errors
(:mod:`tracer.outcome`); a panic shows at once, in QEMU's events, not when time runs out.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tracer.gdb import poke_memory
from tracer.host import HostError
from tracer.machine import MachineKind, machine_kind
from tracer.outcome import AppFailed, GuestHung, GuestPanicked, VmVanished, panic_headline
from tracer.rootfs import CHECK, CLIENT, COMMAND, READY
from tracer.vm import POWERED_OFF, RESET, VANISHED, Vm, VmOptions, qemu_command
from tracer.workload import App, Workload

BOOT, SHUTDOWN = "boot", "shutdown"
#: Between two readiness checks, in seconds.
POLL_INTERVAL = 0.2
PANICKED = "panicked"
#: A shell's status of a command that SIGKILL ended, as the guest's `timeout` does.
KILLED = 137


@dataclass(frozen=True)
class Poke:
    """Bytes to write at a kernel address just before the order that starts a phase is given."""

    address: int
    data: bytes
    before_phase: str


@dataclass(frozen=True)
class SessionOptions:
    """What differs between runs of a workload.

    ``trace``: the kernel is the traced one; ``block_log``: log translated blocks, only those within
    ``block_filter`` (address, length) if given; ``memory``: bytes instead of the workload's; ``arguments``:
    more words for QEMU; ``oops_panic``: an oops is a panic at once; ``expect_panic``: a panic (or, when the
    guest cannot go on, a hang) is the outcome that is wanted. Times in seconds: ``boot_timeout`` until the
    agent says hello, ``grace`` on top of each of the apps' own limits before the guest counts as hung.
    ``patience``: by how much the apps' limits are longer by the guest's clock, where that runs fast.
    """

    trace: bool = False
    block_log: Path | None = None
    block_filter: tuple[tuple[int, int], ...] = ()
    memory: int = 0
    arguments: tuple[str, ...] = ()
    oops_panic: bool = True
    poke: Poke | None = None
    expect_panic: bool = False
    boot_timeout: float = 60.0
    grace: float = 20.0
    patience: int = 1


@dataclass(frozen=True)
class Mark:
    """A phase, and the size of the block log when it began."""

    phase: str
    offset: int


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

    ``into`` gets ``console.log``, ``qemu.log`` and, when tracing, ``trace.bin``.

    Raises:
        AppFailed, GuestPanicked, GuestHung, VmVanished: see :mod:`tracer.outcome`.
        HostError: QEMU cannot be started, or the disk is full.
    """
    kind = machine_kind(workload.arch)
    try:
        into.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"starting the VM: {into}: {error.strerror}") from error
    trace_file = into / "trace.bin" if options.trace else None
    began = time.monotonic()
    with Vm(kind, kernel, initrd, into, _vm_options(kind, workload, options, trace_file)) as vm:
        session = _Session(vm, workload, options)
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


def session_command(
    kernel: Path, initrd: Path, workload: Workload, options: SessionOptions, into: Path
) -> list[str]:
    """The QEMU command of :func:`run_session`, for a person to read; SOCKETS is a folder of its own."""
    kind = machine_kind(workload.arch)
    trace_file = into / "trace.bin" if options.trace else None
    vm_options = _vm_options(kind, workload, options, trace_file)
    return qemu_command(kind, kernel, initrd, into / "console.log", Path("SOCKETS"), vm_options)


def _vm_options(
    kind: MachineKind, workload: Workload, options: SessionOptions, trace_file: Path | None
) -> VmOptions:
    words = [f"console={kind.console}", "panic=-1", "nokaslr", f"kprune.control=/dev/{kind.control}"]
    words += ["oops=panic"] if options.oops_panic else []
    words += ["kprune.trace=1"] if options.trace else []
    return VmOptions(
        memory=options.memory or workload.machine.memory,
        cmdline=" ".join([*words, workload.machine.cmdline]).strip(),
        forward=workload.machine.forward,
        block_log=options.block_log,
        block_filter=options.block_filter,
        trace_file=trace_file,
        gdb=options.poke is not None,
        arguments=options.arguments,
    )


class _Session:
    """The conversation with one guest."""

    def __init__(self, vm: Vm, workload: Workload, options: SessionOptions) -> None:
        self.vm = vm
        self.workload = workload
        self.options = options
        self.marks = [Mark(BOOT, 0)]
        self.kernel_version = ""
        self._lines: list[str] = []

    def run(self) -> None:
        self.kernel_version = self.expect_hello()
        for number, app in enumerate(self.workload.apps):
            self.phase(app.name)
            self.ask(f"open {number}", 0)
            if app.is_service:
                self.service(number, app)
            else:
                self.one_shot(number, app)
            self.ask(f"close {number}", 0)
        self.phase(SHUTDOWN)
        self.ask("poweroff", 0)
        self.expect_power_off()

    def one_shot(self, number: int, app: App) -> None:
        self.step(number, app, COMMAND, "its command")
        if app.check:
            self.step(number, app, CHECK, "its check")

    def service(self, number: int, app: App) -> None:
        self.ask(f"start {number}", 0)
        self.until_ready(number, app)
        for i in range(len(app.client)):
            self.step(number, app, f"{CLIENT}{i}", f"client command {i + 1}")
        if app.host:
            self.host_command(app)
        verb, status = self.ask(f"stop {number}", app.timeout)
        if verb == "died":
            raise self.app_failed(app, f"the service had ended by itself, with status {status}")

    def until_ready(self, number: int, app: App) -> None:
        deadline = time.monotonic() + app.timeout
        while True:
            verb, status = self.ask(f"ready {number} {READY} {self.guest_seconds(app)}", app.timeout)
            if verb == "died":
                raise self.app_failed(app, f"the service ended with status {status} before it was ready")
            if status == 0:
                return
            if time.monotonic() > deadline:
                raise self.app_failed(
                    app, f"its readiness check did not pass within {app.timeout:g} seconds (status {status})"
                )
            time.sleep(POLL_INTERVAL)

    def step(self, number: int, app: App, script: str, what: str) -> None:
        began = time.monotonic()
        _, status = self.ask(f"step {number} {script} {self.guest_seconds(app)}", app.timeout)
        if status == KILLED and time.monotonic() - began >= app.timeout * 0.9:
            raise self.app_failed(app, f"{what} did not end within {app.timeout:g} seconds")
        if status:
            raise self.app_failed(app, f"{what} exited with status {status}")

    def guest_seconds(self, app: App) -> int:
        """An app's time limit for the guest's ``timeout``, which counts whole seconds."""
        return max(1, round(app.timeout * self.options.patience))

    def host_command(self, app: App) -> None:
        """Run the app's host command, watching the guest meanwhile."""
        ports = {f"KPRUNE_PORT_{guest}": str(host) for guest, host in self.vm.ports.items()}
        said = self.vm.console.parent / f"host-{app.name}.log"
        deadline = time.monotonic() + app.timeout
        with said.open("wb") as log:
            process = subprocess.Popen(
                ["sh", "-c", app.host], cwd=self.workload.folder, env={**os.environ, **ports},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        with _ended_group(process):
            while process.poll() is None:
                self.pump(0.05)
                self.take_lines()
                if time.monotonic() > deadline:
                    raise self.app_failed(app, f"its host command did not end within {app.timeout:g} seconds")
        if process.returncode:
            text = said.read_text(errors="replace")
            raise self.app_failed(app, f"its host command exited with status {process.returncode}", text)

    def expect_hello(self) -> str:
        """Wait for the agent; the kernel's version line."""
        deadline = time.monotonic() + self.options.boot_timeout
        while True:
            for line in self.take_lines():
                verb, _, rest = line.partition(" ")
                if verb == "broken":
                    raise HostError(f"starting the guest's agent: {rest}")
                if verb == "hello":
                    return rest.partition(" ")[2]
            allowed = f"{self.options.boot_timeout:g} seconds"
            self.pump(0.5, deadline, f"booting: no sign of the agent in {allowed}")

    def ask(self, order: str, seconds: float) -> tuple[str, int]:
        """Give one order; the answer's verb and status. Lines of output come before it and are dropped."""
        verb, status, _ = self.converse(order, seconds)
        return verb, status

    def converse(self, order: str, seconds: float) -> tuple[str, int, list[str]]:
        allowed = seconds + self.options.grace
        deadline = time.monotonic() + allowed
        output: list[str] = []
        self.vm.send(order)
        while True:
            for line in self.take_lines():
                verb, _, rest = line.partition(" ")
                if verb in ("done", "died") and rest.strip().isdigit():
                    return verb, int(rest), output
                output.append(line.removeprefix("| "))
            self.pump(0.5, deadline, f'the guest did not answer "{order}" in {allowed:g} seconds')

    def take_lines(self) -> list[str]:
        lines, self._lines = self._lines, []
        return lines

    def pump(self, seconds: float, deadline: float = float("inf"), overdue: str = "") -> None:
        """Take in what the guest says for up to ``seconds``, and find out how it is."""
        self._lines += self.vm.receive(seconds)
        check_room(self.vm.console.parent)
        if self._lines:
            return
        if self.vm.ending:
            raise self.gone()
        if time.monotonic() > deadline:
            console = self.vm.console_text()
            if "Kernel panic" in console:  # it went down, but could not even reset
                raise GuestPanicked(f"the guest panicked: {panic_headline(console)}", console)
            raise GuestHung(f"the guest hung: {overdue}", console)

    def gone(self) -> Exception:
        """The machine ended when nobody asked it to: as an error."""
        console = self.vm.console_text()
        during = f"in phase {self.marks[-1].phase}"
        if self.vm.ending == RESET:
            headline = panic_headline(console) or "it reset without a word"
            return GuestPanicked(f"the guest panicked {during}: {headline}", console)
        if self.vm.ending == VANISHED:
            said = self.vm.qemu_said() or "it said nothing"
            return VmVanished(f"QEMU vanished {during}: {said}", console)
        return VmVanished(f"the guest switched itself off {during}", console)

    def expect_power_off(self) -> None:
        deadline = time.monotonic() + self.options.grace
        while not self.vm.ending:
            with contextlib.suppress(VmVanished):
                self.pump(0.5, deadline, f"powering off took more than {self.options.grace:g} seconds")
            self.take_lines()
        if self.vm.ending != POWERED_OFF:
            raise self.gone()
        self.vm.wait(5)

    def phase(self, name: str) -> None:
        """A phase begins: note where in the block log, and poke if this is the moment."""
        self.marks.append(Mark(name, self.vm.log_size()))
        poke = self.options.poke
        if poke and poke.before_phase == name:
            poke_memory(self.vm.gdb_socket, poke.address, poke.data)

    def app_failed(self, app: App, what: str, said: str = "") -> AppFailed:
        """An AppFailed with the last of the app's output."""
        if not said:
            with contextlib.suppress(HostError):  # a guest that is gone has nothing more to say
                said = "\n".join(self.converse("said", 0)[2])
        tail = " | ".join(said.strip().splitlines()[-5:])
        output = f"; it said: {tail}" if tail else "; it said nothing"
        return AppFailed(f"running app {app.name}: {what}{output}", self.vm.console_text())


@contextlib.contextmanager
def _ended_group(process: subprocess.Popen[bytes]) -> Iterator[None]:
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
