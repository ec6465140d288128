"""The guests of ``kprune holdout``: programs one by one on a kernel, each seen from outside.

An oops does not end the machine here: the task that asked for what is gone is killed, and the guest goes on
if it can. After a miss the next program gets a new guest all the same, since what was killed may have held a
lock. Translations are forgotten between two programs, so that the log has what each of them ran.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from prune.boots import PrunedKernel, watched
from prune.held_out import Program, Ran
from prune.knowledge import Knowledge
from prune.misses import executed_blocks, find_misses
from tracer.host import say
from tracer.newc import directory
from tracer.outcome import GuestHung, GuestPanicked, VmVanished
from tracer.rootfs import COMMAND, Tree
from tracer.runner import open_session
from tracer.session import Session
from tracer.session_options import SessionOptions
from tracer.workload import App, Workload

#: Exit status and lines.
Printed = tuple[int, tuple[str, ...]]
_NOTHING: Printed = -1, ()
#: Lines of a program's output that are compared.
_LINES = 200
#: What a program runs in: an empty folder of its own.
_FOLDER = "/kprune/held/{name}"
_WITHIN = "export HELD={folder}; cd $HELD || exit 98\n{command}"


@dataclass(frozen=True)
class Guests:
    """One kernel and what runs on it. ``root``: the guests' root file system; ``unanswered``: addresses of
    what answers for system calls that are gone."""

    side: str
    workload: Workload
    kernel: PrunedKernel
    root: Path
    into: Path
    unanswered: tuple[int, ...] = ()

    def run(self, programs: Sequence[Program]) -> list[Ran]:
        """All programs, in as many guests as it takes."""
        done: list[Ran] = []
        while len(done) < len(programs):
            new = self._one_guest(len(done), programs)
            done += new
            say(f"holdout: {self.side}: {len(done)} of {len(programs)} programs")
        return done

    def _one_guest(self, first: int, programs: Sequence[Program]) -> list[Ran]:
        """The programs from the first one on, up to one that misses something; at least one."""
        into = self.into / str(first)
        into.mkdir(parents=True, exist_ok=True)
        log = into / "misses.log"
        log.unlink(missing_ok=True)
        options = watched(SessionOptions(oops_panic=False, flush=True), self.workload, self.kernel, log)
        calls = tuple((address, 1) for address in self.unanswered)
        if calls:
            options = replace(options, block_log=log, block_filter=(*options.block_filter, *calls))
        printed: list[Printed] = []
        ended, console = "", ""
        with open_session(self.kernel.image, self.root, self.workload, options, into) as session:
            try:
                session.watch_boot_end() if options.boot_ends else None
                session.expect_hello()
                for number in range(first, len(programs)):
                    printed.append(_one(session, number, programs[number]))
                    if self._missed(log, session):
                        break
            except (GuestPanicked, GuestHung, VmVanished) as error:
                printed.append(_NOTHING)
                ended = "panicked" if isinstance(error, GuestPanicked) else "hung"
                console = error.console
            console = console or session.vm.console_text()
            phases = tuple((mark.offset, mark.phase) for mark in session.marks)
        blocks = executed_blocks(log.read_bytes() if log.is_file() else b"")
        return self._ran(programs[first:], printed, ended, console, blocks, phases)

    def _missed(self, log: Path, session: Session) -> bool:
        blocks = executed_blocks(log.read_bytes() if log.is_file() else b"")
        phases = tuple((mark.offset, mark.phase) for mark in session.marks)
        return bool(find_misses(self.kernel.graveyard, blocks, session.vm.console_text(), phases))

    def _ran(
        self, programs: Sequence[Program], printed: Sequence[Printed], ended: str, console: str,
        blocks: Sequence[tuple[int, int]], phases: Sequence[tuple[int, str]],
    ) -> list[Ran]:  # fmt: skip
        """What was printed, and what the log says of each program. A miss in a guest belongs to its last
        program, for it ends the guest's list."""
        names = tuple(
            dict.fromkeys(str(miss) for miss in find_misses(self.kernel.graveyard, blocks, console, phases))
        )
        begins = [offset for offset, _ in phases[-len(printed) :]] if printed else []
        made = []
        for i, (status, lines) in enumerate(printed):
            last = i == len(printed) - 1
            end = begins[i + 1] if not last else float("inf")
            asked = any(begins[i] <= at < end and where in self.unanswered for where, at in blocks)
            made.append(Ran(status, lines, names if last else (), asked, ended if last else ""))
        return made


def _one(session: Session, number: int, program: Program) -> Printed:
    """Run one program to its end."""
    session.phase(program.name)
    session.ask(f"open {number}", 0)
    app = session.workload.apps[number]
    _, status = session.ask(f"step {number} {COMMAND} {session.guest_seconds(app)}", app.timeout)
    lines = session.converse(f"output {_LINES}", 0)[2]
    return status, tuple(line for line in lines if line)


def with_programs(workload: Workload, programs: Sequence[Program], packages: tuple[str, ...]) -> Workload:
    """A workload of nothing but these programs, in the machine of another one."""
    apps = tuple(
        App(
            program.name,
            _WITHIN.format(folder=_FOLDER.format(name=program.name), command=program.command),
            "", "", (), "", program.timeout,
        )
        for program in programs
    )  # fmt: skip
    wanted = tuple(dict.fromkeys((*workload.rootfs.packages, *packages)))
    rootfs = replace(workload.rootfs, packages=wanted, device="")
    return replace(workload, apps=apps, servers=(), any_order=False, rootfs=rootfs)


def folders(programs: Sequence[Program]) -> Tree:
    """Where each of them runs; the root file system is in memory, so it can write there."""
    return {_FOLDER.format(name=program.name).lstrip("/"): directory() for program in programs}


def answers_nothing(kernel: PrunedKernel, knowledge: Knowledge) -> tuple[int, ...]:
    """Addresses of what answers for system calls that are gone."""
    names = {redirect.to for redirect in knowledge.redirects}
    return tuple(address for address, name in kernel.system_map.functions if name in names)
