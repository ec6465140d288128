"""The guests of ``kprune holdout``: programs one by one on a kernel, each seen from outside.

An oops does not end the machine here: the task that asked for what is gone is killed, and the guest goes on
if it can. After a miss the next program gets a new guest all the same, since what was killed may have held a
lock. Translations are forgotten between two programs, so that the log has what each of them ran.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from prune.boots import PrunedKernel, watched
from prune.held_out import Program, Ran
from prune.knowledge import Knowledge
from prune.misses import executed_blocks, find_misses
from tracer.host import say
from tracer.machine import machine_kind
from tracer.newc import directory
from tracer.outcome import GuestHung, GuestPanicked, VmVanished
from tracer.rootfs import CLIENT, COMMAND, Tree
from tracer.runner import open_session
from tracer.session import Session
from tracer.session_options import SessionOptions
from tracer.workload import App, Workload

#: Lines of a program's output that are compared.
_LINES = 200
#: What a program runs in: an empty folder of its own, its output beside it, then line by line to the host.
#: The shell alone does that, so it asks the kernel for nothing that the agent does not ask for.
_WRAPPER = """\
export HELD=/kprune/held/{name}
cd $HELD || exit 98
/bin/sh /kprune/app.{number}/{script} >$HELD.out 2>&1 </dev/null
status=$?
{{
	echo "| status $status"
	count=0
	while [ $count -lt {lines} ] && {{ IFS= read -r line || [ "$line" ]; }}; do
		echo "| $line"
		count=$((count + 1))
	done
}} <$HELD.out >{control}
"""


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
        printed: list[tuple[str, ...]] = []
        ended, console = "", ""
        with open_session(self.kernel.image, self.root, self.workload, options, into) as session:
            try:
                session.watch_boot_end() if options.boot_ends else None
                session.expect_hello()
                for number in range(first, len(programs)):
                    session.phase(programs[number].name)
                    printed.append(_printed(session, number, programs[number]))
                    if self._missed(log, session):
                        break
            except (GuestPanicked, GuestHung, VmVanished) as error:
                printed.append(())
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
        self, programs: Sequence[Program], printed: Sequence[tuple[str, ...]], ended: str, console: str,
        blocks: Sequence[tuple[int, int]], phases: Sequence[tuple[int, str]],
    ) -> list[Ran]:  # fmt: skip
        """What was printed, and what the log says of each program. A miss in a guest belongs to its last
        program, for it ends the guest's list."""
        names = tuple(
            dict.fromkeys(str(miss) for miss in find_misses(self.kernel.graveyard, blocks, console, phases))
        )
        begins = [offset for offset, _ in phases[-len(printed) :]] if printed else []
        made = []
        for i, lines in enumerate(printed):
            last = i == len(printed) - 1
            end = begins[i + 1] if not last else float("inf")
            asked = any(begins[i] <= at < end and where in self.unanswered for where, at in blocks)
            made.append(_as_ran(lines, names if last else (), asked, ended if last else ""))
        return made


def _printed(session: Session, number: int, program: Program) -> tuple[str, ...]:
    """Run one program to its end; the lines that came of it, its status first."""
    app = session.workload.apps[number]
    session.ask(f"open {number}", 0)
    seconds = session.guest_seconds(app)
    _, status, lines = session.converse(f"step {number} {COMMAND} {seconds}", app.timeout)
    found = tuple(line for line in lines if line)
    return found if found and found[0].startswith("status ") else (f"status {status or 99}", *found)


def _as_ran(lines: tuple[str, ...], missed: tuple[str, ...], unanswered: bool, ended: str) -> Ran:
    status = re.fullmatch(r"status (\d{1,3})", lines[0]) if lines else None
    return Ran(int(status[1]) if status else -1, lines[1:], missed, unanswered, ended)


def with_programs(workload: Workload, programs: Sequence[Program], packages: tuple[str, ...]) -> Workload:
    """A workload of nothing but these programs, in the machine of another one."""
    words = {
        "lines": _LINES,
        "control": f"/dev/{machine_kind(workload.arch).control}",
        "script": f"{CLIENT}0",
    }
    apps = tuple(
        App(
            program.name, _WRAPPER.format(name=program.name, number=number, **words),
            "", "", (program.command,), "", program.timeout,
        )
        for number, program in enumerate(programs)
    )  # fmt: skip
    wanted = tuple(dict.fromkeys((*workload.rootfs.packages, *packages)))
    rootfs = replace(workload.rootfs, packages=wanted, device="")
    return replace(workload, apps=apps, servers=(), any_order=False, rootfs=rootfs)


def folders(programs: Sequence[Program]) -> Tree:
    """Where each of them runs; the root file system is in memory, so it can write there."""
    return {f"kprune/held/{program.name}": directory() for program in programs}


def answers_nothing(kernel: PrunedKernel, knowledge: Knowledge) -> tuple[int, ...]:
    """Addresses of what answers for system calls that are gone."""
    names = {redirect.to for redirect in knowledge.redirects}
    return tuple(address for address, name in kernel.system_map.functions if name in names)
