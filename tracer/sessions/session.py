"""The conversation with a guest that runs a workload once, from power-on to power-off.

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
    output LINES                    | LINE ... done 0   its beginning
    poweroff N                      done 0          and the machine goes down

What comes before the first app and after the last one are windows of a traced kernel as well, with the
numbers behind the apps': the first opens by itself, the last closes just before the machine goes down.

How an order is given and how the guest is found to be is :mod:`tracer.sessions.conversation`.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Mapping

from tracer.files.rootfs import CHECK, CLIENT, COMMAND, READY
from tracer.host import HostError, ended_group
from tracer.machines.gdb import attached, poke_memory
from tracer.machines.vm import POWERED_OFF, Vm
from tracer.outcome import AgentFailed, AppFailed, GuestHung, GuestPanicked, VmVanished, check_unpacked
from tracer.phase_names import SHUTDOWN, START
from tracer.readers.boot_trace import BOOT_ENDS
from tracer.sessions.booting import BootWait
from tracer.sessions.conversation import Conversation
from tracer.sessions.options import Mark, SessionOptions
from tracer.workloads.workload import App, Workload

PANICKED = "panicked"
#: What kernel_halt says (kernel/reboot.c), with more words since 6.12. reboot(2) turns a power-off into it
#: when there is nothing to switch the machine off with, as there is not without ACPI. Somebody pulls the plug
#: then: the host.
HALTED = re.compile("reboot: (?:Power off not available: )?System halted")
#: A shell's status of a command that SIGKILL ended, as the guest's `timeout` does.
KILLED = 137


class Session(Conversation):
    """The conversation with one guest; ``environment`` is for what its apps run on the host."""

    def __init__(
        self, vm: Vm, workload: Workload, options: SessionOptions, environment: Mapping[str, str]
    ) -> None:
        super().__init__(vm, options)
        self.workload = workload
        self.environment = environment
        self.kernel_version = ""

    def run(self) -> None:
        """The whole workload; an error knows how far it came."""
        try:
            self.from_hello_to_power_off()
        except (AppFailed, GuestPanicked, GuestHung, VmVanished) as error:
            error.phases = tuple((mark.offset, mark.phase) for mark in self.marks)
            raise

    def from_hello_to_power_off(self) -> None:
        if self.options.boot_ends:
            self.watch_boot_end()
        self.kernel_version = self.expect_hello()
        boot, shutdown = len(self.workload.apps), len(self.workload.apps) + 1
        if self.options.trace:
            self.ask(f"close {boot}", 0)
        for number, app in self._apps():
            self.phase(app.name)
            self.ask(f"open {number}", 0)
            if app.is_service:
                self.service(number, app)
            else:
                self.one_shot(number, app)
            self.ask(f"close {number}", 0)
        self.phase(SHUTDOWN)
        if self.options.trace:
            self.ask(f"open {shutdown}", 0)
        self.ask(f"poweroff {shutdown}", 0)
        self.expect_power_off()

    def _apps(self) -> list[tuple[int, App]]:
        whole = self.options.boot_trace is None and not self.options.idle
        return self.workload.ordered_apps(self.options.seed) if whole else []

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
        ended = self.ended_or_ready(number, app)
        if ended is not None:
            raise self.app_failed(app, f"the service ended with status {ended} before it was ready")

    def ended_or_ready(self, number: int, app: App) -> int | None:
        """Wait until the service is ready; the status with which it ended if it did that instead."""
        deadline = time.monotonic() + app.timeout
        while True:
            verb, status = self.ask(f"ready {number} {READY} {self.guest_seconds(app)}", app.timeout)
            if verb == "died":
                return status
            if status == 0:
                return None
            if time.monotonic() > deadline:
                raise self.app_failed(
                    app, f"its readiness check did not pass within {app.timeout:g} seconds (status {status})"
                )
            time.sleep(self.options.poll)

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
        self.on_host(app, app.host, "host command", app.timeout)

    def on_host(
        self, app: App, command: str, what: str, seconds: float, more: Mapping[str, str] | None = None
    ) -> str:
        """Run a command of the app's on the host, watching the guest meanwhile; what it printed.

        ``more`` is environment besides the workload's own.
        """
        env = self.environment_on_host(more or {})
        said = self.vm.console.parent / f"host-{app.name}.log"
        deadline = time.monotonic() + seconds
        with said.open("wb") as log:
            process = subprocess.Popen(
                ["sh", "-c", command], cwd=self.workload.folder, env=env,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        with ended_group(process):
            while process.poll() is None:
                self.pump(0.05)
                self.take_lines()
                if time.monotonic() > deadline:
                    raise self.app_failed(app, f"its {what} did not end within {seconds:g} seconds")
        text = said.read_text(errors="replace")
        if process.returncode:
            raise self.app_failed(app, f"its {what} exited with status {process.returncode}", text)
        return text

    def environment_on_host(self, more: Mapping[str, str]) -> dict[str, str]:
        """What a command of the host's finds in its environment."""
        ports = {f"KPRUNE_PORT_{guest}": str(host) for guest, host in self.vm.ports.items()}
        return {**os.environ, **self.environment, **ports, **more}

    def watch_boot_end(self) -> None:
        """Let the machine go, and note when the kernel is about to free its init memory.

        The stop makes QEMU forget its translations: a function that goes on after it is logged again.
        """
        wait = self.boot_wait()
        with attached(self.vm.gdb_socket) as gdb:
            if gdb.run_to(self.options.boot_ends, lambda: self.boot_deadline(wait)):
                self.marks.append(Mark(START, self.vm.log_size()))
                return
        self.pump(0.1, 0.0, f"booting: it did not come to {BOOT_ENDS}: {wait.overdue()}")

    def boot_wait(self) -> BootWait:
        return BootWait(self.options.boot_timeout, time.monotonic())

    def boot_deadline(self, wait: BootWait) -> float:
        return wait.deadline(self.vm.console_size(), time.monotonic())

    def expect_hello(self) -> str:
        """Wait for the agent; the kernel's version line."""
        wait = self.boot_wait()
        while True:
            for line in self.take_lines():
                verb, _, rest = line.partition(" ")
                if verb == "broken":
                    raise AgentFailed(f"starting the guest's agent: {rest}", self.vm.console_text())
                if verb == "hello":
                    check_unpacked(self.vm.console_text())
                    return rest.partition(" ")[2]
            self.pump(0.5, self.boot_deadline(wait), f"booting: no sign of the agent: {wait.overdue()}")

    def expect_power_off(self) -> None:
        deadline = time.monotonic() + self.options.grace
        while not self.vm.ending:
            if HALTED.search(self.vm.console_text()):
                self.vm.switch_off_halted()
                break
            with contextlib.suppress(VmVanished):
                self.pump(0.5, deadline, f"powering off took more than {self.options.grace:g} seconds")
            self.take_lines()
        if self.vm.ending != POWERED_OFF:
            raise self.gone()

    def phase(self, name: str) -> None:
        """A phase begins: note where in the block log, and poke if this is the moment."""
        if self.options.flush:
            # An idle guest executes nothing that could be stepped; the agent passes an empty order over.
            with attached(self.vm.gdb_socket) as gdb:
                self.vm.send("")
                gdb.flush_translations()
                self.marks.append(Mark(name, self.vm.log_size()))
        else:
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
