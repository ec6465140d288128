"""``kprune decode LOG OUT``: what a pruned kernel's console log says it missed, and what mends it.

Of each oops: the function, its source line, who called it, in which process, and what became of the machine.
Exit code 5 when the log has a miss or what may be one, else 0.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prune.folder import Folder
from prune.guests.decode import (
    CUT_OFF,
    KILLED,
    NOBODY,
    PANIC,
    STUCK,
    UNKNOWN,
    Decoded,
    Kernel,
    addresses,
    decode,
    with_lines,
)  # fmt: skip
from prune.guests.graveyard import BLOCK, FREED, TOMBSTONE, read_graveyard
from prune.guests.heal import add_misses, load_healed
from prune.guests.misses import Miss
from prune.guests.system_map import read_system_map
from prune.model.knowledge import debug_option
from prune.plan.policy import may_answer
from tracer.host import GuestFailed, UserError, read_at_most, say, show
from tracer.profiles.symbols import load_symbols

#: Bytes of a log that are read; a serial console takes a week for as much.
MOST = 64 << 20
_GONE = {
    TOMBSTONE: "a function that was dropped",
    BLOCK: "a block that was taken out of its function",
    FREED: "a function that was freed after boot",
}
_OUTCOMES = {
    PANIC: "the machine went down: {panic}",
    STUCK: "the task is stuck; the machine must be rebooted",
    KILLED: "the task was killed; the log has no panic for it",
    NOBODY: "nobody died of it",
    CUT_OFF: "the log does not say; it breaks off",
}


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line's."""
    made = verbs.add_parser(
        "decode",
        help="what a console log says a pruned kernel missed, and what mends it",
        description=__doc__,
    )
    made.add_argument("log", type=Path, metavar="LOG", help="a console log; - for standard input")
    made.add_argument("out", type=Path, metavar="OUT", help="folder of the run that made the kernel")
    made.add_argument(
        "--add", action="store_true", help="take the misses over into OUT/heal.json: the next link keeps them"
    )
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    made.set_defaults(handler=run)


def run(options: argparse.Namespace) -> int:
    """Decode, and print.

    Raises:
        UserError: there is no such log, or no pruned kernel in OUT.
    """
    from prune.guests.lines import Lines, source_lines

    console = read_log(options.log)
    folder = Folder(options.out)
    kernel = load_kernel(folder)
    found = decode(console, kernel)
    wanted = addresses(found)
    lines = source_lines(folder.base("vmlinux"), wanted) if wanted else Lines({})
    found = with_lines(found, lines.at)
    misses = _misses(found)
    added = _learn(folder, misses) if options.add else []
    mend = _mend(options, folder.healed, kernel.symbols.build_id, misses)
    if options.json:
        oopses = [asdict(each) for each in found]
        show(json.dumps({"oopses": oopses, "added": added, "mend": mend, "no_lines": lines.lack}, indent=1))
    else:
        for each in found:
            show(told(each))
        if mend:
            show("\nto keep what was missed from now on:\n  " + "\n  ".join(mend))
            show(f"or, without guests, instead of heal: {_by_hand(options.out)}")
            for line in _answers(misses):
                show(line)
    if lines.lack:
        say(f"no source lines: {lines.lack}; {debug_option()} in the configuration gives them")
    _say_what(options, found, misses, added)
    return GuestFailed.exit_code if any(each.missed for each in found) else 0


def read_log(path: Path) -> str:
    """A console log, whatever is in it.

    Raises:
        UserError: it cannot be read, or is too large.
    """
    doing = f"reading the console log {path}"
    try:
        data = sys.stdin.buffer.read(MOST + 1) if path == Path("-") else read_at_most(path, MOST)
    except OSError as error:
        raise UserError(f"{doing}: {error.strerror or error}") from error
    if len(data) > MOST:
        raise UserError(f"{doing}: it has more than {MOST >> 20} MiB", f"give its end: tail -c {MOST >> 20}M")
    return data.decode(errors="replace")


def load_kernel(folder: Folder) -> Kernel:
    """What a log of OUT's pruned kernel is read with.

    Raises:
        UserError: something of it is missing or damaged.
    """
    from prune.plan.plan_file import load_plan

    if not folder.pruned("tombstones.json").is_file():
        raise UserError(f"decoding a log: {folder.out} has no pruned kernel", f"kprune link {folder.out}")
    plan = load_plan(folder.plan)
    return Kernel(
        read_graveyard(folder.pruned("tombstones.json")),
        read_system_map(folder.pruned("System.map")),
        load_symbols(folder.base("symbols.json"), "production"),
        {unit[:2] for unit, keep in zip(plan.units, plan.keep.tolist(), strict=True) if keep},
    )


def _misses(found: Sequence[Decoded]) -> list[Miss]:
    """What can be healed, each function once."""
    misses: dict[tuple[str, str], Miss] = {}
    for each in found:
        if each.miss:
            misses.setdefault((each.miss.object, each.miss.section), each.miss)
    return list(misses.values())


def _learn(folder: Folder, misses: Sequence[Miss]) -> list[str]:
    """The names of the functions that are new in ``heal.json``."""
    from prune.run.passes import learn

    return [healed.function for healed in learn(folder, misses)]


def _mend(options: argparse.Namespace, healed: Path, build: str, misses: Sequence[Miss]) -> list[str]:
    """The command lines that mend it: what is not in ``heal.json`` yet goes there; it is linked again."""
    if not misses:
        return []
    known = load_healed(healed, build)
    is_known = add_misses(known, misses) == known
    add = shlex.join(["kprune", "decode", str(options.log), str(options.out), "--add"])
    return [*([] if is_known else [add]), shlex.join(["kprune", "heal", str(options.out)])]


def _answers(misses: Sequence[Miss]) -> Iterator[str]:
    """The builtin policies that may answer for a whole function, which then need not stay."""
    for miss in misses:
        for family in may_answer(miss.function) if miss.offset < 0 else ():
            yield f'or it returns an error: the builtin policy "{family}" may speak of {miss.function}'


def _by_hand(out: Path) -> str:
    return " && ".join(shlex.join(["kprune", verb, str(out)]) for verb in ("plan", "link", "verify"))


def _say_what(
    options: argparse.Namespace, found: Sequence[Decoded], misses: Sequence[Miss], added: Sequence[str]
) -> None:
    doubtful = sum(bool(each.missed) and each.miss is None for each in found)
    others = sum(not each.missed for each in found)
    say(f"missed functions: {len(misses):,}; oopses in doubt: {doubtful:,}; other reports: {others:,}")
    if options.add:
        say(f"{len(added):,} new in {Folder(options.out).healed}")


def told(each: Decoded) -> str:
    if each.missed == UNKNOWN:
        head = f"perhaps a miss: {each.what or 'an oops'}"
    elif each.missed and each.at:
        head = f"missed {each.at}: {_GONE[each.missed]}"
    else:
        what = each.what or ("a panic" if each.panic else "an oops")
        head = f"no miss: {what}" + f", at {each.at}" * bool(each.at)
    rows = [
        ("doubt", each.doubt),
        ("caller", str(each.caller) if each.caller else "unknown"),
        ("process", f"{each.comm}, PID {each.pid}, CPU {each.cpu}" if each.pid >= 0 else "unknown"),
        ("outcome", _OUTCOMES[each.outcome].format(panic=each.panic)),
    ]
    return "\n".join(
        [f"line {each.line}: {head}", *(f"  {name:9}{text}" for name, text in rows if text)]
    )  # fmt: skip
