"""The guests of ``kprune holdout``: programs one by one on a kernel, each seen from outside.

An oops does not end the machine here: the task that asked for what is gone is killed, and the guest goes on
if it can. After a miss the next program gets a new guest all the same, since what was killed may have held a
lock. An emulator on a busy host can hang a guest, too, also of the kernel that is not pruned: what hangs is
tried again, and a kernel that hangs does it once more. Translations are forgotten between two programs, so
that the log has what each of them ran.
"""

from __future__ import annotations

import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from prune.guests.boots import PrunedKernel, watched
from prune.guests.held_out import Program, ProgramList, Ran
from prune.guests.misses import Answered, find_answered, find_misses, phase_at
from prune.model.knowledge import Knowledge
from tracer.files.newc import directory, regular
from tracer.files.rootfs import COMMAND, Tree
from tracer.host import GuestLost, UserError, say
from tracer.outcome import GuestPanicked
from tracer.sessions.executed import executed_blocks
from tracer.sessions.options import Mark, SessionOptions
from tracer.sessions.runner import open_session
from tracer.sessions.session import Session
from tracer.workloads.workload import App, Workload

#: Exit status and lines.
Printed = tuple[int, tuple[str, ...]]
_NOTHING: Printed = -1, ()
#: Seconds after which a guest says how far it is.
_SILENCE = 10.0
#: Lines of a program's output that are compared.
_LINES = 200
#: Where a list's own files are.
_FILES = "/held"
#: What a program runs in: an empty folder of its own.
_FOLDER = "/kprune/held/{name}"
_WITHIN = "export HELD={folder}; cd $HELD || exit 98\n{command}"
#: For a system call that was not in the kernel before it was pruned, which has no name there.
_NEVER = "a system call that this kernel never had"


class DoesNotBoot(UserError):
    """What is in the root file system asks for more of a kernel than it has."""


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

    def run(self, programs: Sequence[Program], numbers: Sequence[int] | None = None) -> list[Ran]:
        """All programs, or those of some ``numbers``, in as many guests as it takes."""
        numbers = range(len(programs)) if numbers is None else numbers
        done: list[Ran] = []
        while len(done) < len(numbers):
            *well, last = self._booted(numbers[len(done) :], programs)
            done += well
            if last.ended == "hung":
                number = numbers[len(done)]
                say(f"holdout: {self.side}: {programs[number].name} hung; once more")
                last = replace(self._booted([number], programs)[0], repeated=True)
            done.append(last)
            say(f"holdout: {self.side}: {len(done)} of {len(numbers)} programs")
        return done

    def _booted(self, numbers: Sequence[int], programs: Sequence[Program]) -> list[Ran]:
        """One guest; another one, when it missed something before any program ran: that may be chance."""
        try:
            return self._one_guest(numbers, programs)
        except DoesNotBoot as error:
            say(f"holdout: {error}; once more")
            return self._one_guest(numbers, programs)

    def _one_guest(self, numbers: Sequence[int], programs: Sequence[Program]) -> list[Ran]:
        """The programs from the first number on, up to one that misses something; at least one.

        Raises:
            DoesNotBoot: the kernel missed something before it came to the first one.
        """
        first = numbers[0]
        into = self.into / str(first)
        into.mkdir(parents=True, exist_ok=True)
        log = into / "misses.log"
        log.unlink(missing_ok=True)
        options = watched(SessionOptions(oops_panic=False, flush=True), self.workload, self.kernel, log)
        calls = tuple((address, 1) for address in self.unanswered)
        if calls:
            options = replace(options, block_log=log, block_filter=(*options.block_filter, *calls))
        printed: dict[str, Printed] = {}
        ended, console, spoke = "", "", time.monotonic()
        with open_session(self.kernel.image, self.root, self.workload, options, into) as session:
            try:
                session.watch_boot_end() if options.boot_ends else None
                session.expect_hello()
                for number in numbers:
                    printed[programs[number].name] = _NOTHING
                    printed[programs[number].name] = _one(session, number, programs[number])
                    if self._seen(log, session.vm.console_text(), session.marks).misses:
                        break
                    if time.monotonic() - spoke >= _SILENCE:
                        spoke = time.monotonic()
                        done = f"{programs[number].name} has run, {number + 1} of {len(programs)}"
                        say(f"holdout: {self.side}: {done}")
            except (GuestPanicked, GuestLost) as error:
                printed = printed or {programs[first].name: _NOTHING}
                ended = "panicked" if isinstance(error, GuestPanicked) else "hung"
                console = getattr(error, "console", "")
            seen = self._seen(log, console or session.vm.console_text(), session.marks)
            began = any(mark.phase == programs[first].name for mark in session.marks)
        if seen.misses and not began:
            raise DoesNotBoot(
                f"running programs: {self.side} does not boot with what they need: missed {seen.misses[0]}",
                "leave out what is unusual in packages (omit), or files",
            )
        return _ran(printed, ended, seen)

    def _seen(self, log: Path, console: str, marks: Sequence[Mark]) -> _Seen:
        """What a guest has asked for so far, and is not there."""
        phases = tuple((mark.offset, mark.phase) for mark in marks)
        stones, blocks = self.kernel.graveyard, executed_blocks(log.read_bytes() if log.is_file() else b"")
        of_phase: dict[str, list[tuple[int, int]]] = {}
        for block in blocks:
            of_phase.setdefault(phase_at(block[1], phases), []).append(block)
        return _Seen(
            tuple(dict.fromkeys(map(str, find_misses(stones, blocks, console, phases)))),
            {name: find_answered(stones, mine) for name, mine in of_phase.items()},
            {name for name, mine in of_phase.items() if any(at in self.unanswered for at, _ in mine)},
        )


@dataclass(frozen=True)
class _Seen:
    """``misses`` in words; ``answered``: program -> what was gone and was answered for; ``unanswered``: the
    programs that asked for system calls that are not there, gone or not."""

    misses: tuple[str, ...]
    answered: Mapping[str, Sequence[Answered]]
    unanswered: Container[str]

    def ran(self, name: str, printed: Printed, ended: str = "", misses: tuple[str, ...] = ()) -> Ran:
        """What a program did."""
        answered = self.answered.get(name, ())
        calls = tuple(each.function for each in answered if each.call)
        if name in self.unanswered and not calls:
            calls = (_NEVER,)
        by_policy = tuple(str(each) for each in answered if not each.call)
        return Ran(*printed, misses, calls, by_policy, ended)


def _ran(printed: Mapping[str, Printed], ended: str, seen: _Seen) -> list[Ran]:
    """What each program did. A miss in a guest belongs to its last one, for it ends the guest's list."""
    *others, last = printed
    return [
        *(seen.ran(name, printed[name]) for name in others),
        seen.ran(last, printed[last], ended, seen.misses),
    ]


def _one(session: Session, number: int, program: Program) -> Printed:
    """Run one program to its end."""
    session.phase(program.name)
    session.ask(f"open {number}", 0)
    app = session.workload.apps[number]
    _, status = session.ask(f"step {number} {COMMAND} {session.guest_seconds(app)}", app.timeout)
    lines = session.converse(f"output {_LINES}", 0)[2]
    return status, tuple(line for line in lines if line)


def with_programs(workload: Workload, listed: ProgramList) -> Workload:
    """A workload of nothing but these programs, in the machine of another one. Files of packages are root's:
    to unpack others, a kernel needs what the workload may not have asked of it, before any program runs."""
    apps = tuple(
        App(
            program.name,
            _WITHIN.format(folder=_FOLDER.format(name=program.name), command=program.command),
            "", "", (), "", program.timeout,
        )
        for program in listed.programs
    )  # fmt: skip
    root = workload.rootfs
    omit = root.omit if listed.omit is None else listed.omit
    wanted = tuple(dict.fromkeys((*root.packages, *listed.packages)))
    machine = replace(workload.machine, memory=listed.memory or workload.machine.memory)
    rootfs = replace(root, packages=wanted, omit=omit, device="", owners=False)
    return replace(workload, apps=apps, servers=(), any_order=False, rootfs=rootfs, machine=machine)


def own_files(listed: ProgramList, memory: int) -> Tree:
    """Where each of them runs (the root file system is in memory, so it can write there), and the list's own
    files in :data:`_FILES`.

    Args:
        memory: bytes that a guest has.

    Raises:
        UserError: a file cannot be read, or is not in the list's folder, or all are too large for a guest.
    """
    tree = {_FOLDER.format(name=program.name).lstrip("/"): directory() for program in listed.programs}
    return tree | (_files_of(listed.files, memory) if listed.files else {})


def _files_of(folder: Path, memory: int) -> Tree:
    made = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        doing = f"reading the programs' files: {path}"
        if folder not in path.resolve().parents:
            raise UserError(f"{doing}: a link that leads out of {folder}", "put the file itself there")
        try:
            memory -= path.stat().st_size
            if memory < 0:
                raise UserError(f"{doing}: guests have no room for it", 'give them more: memory = "512M"')
            entry = regular(path.read_bytes(), path.stat().st_mode & 0o777)
        except OSError as error:
            raise UserError(f"{doing}: {error.strerror}") from error
        made[f"{_FILES}/{path.relative_to(folder)}".lstrip("/")] = entry
    return made


def answers_nothing(kernel: PrunedKernel, knowledge: Knowledge) -> tuple[int, ...]:
    """Addresses of what answers for system calls that are gone."""
    names = {redirect.to for redirect in knowledge.redirects}
    return tuple(address for address, name in kernel.system_map.functions if name in names)
