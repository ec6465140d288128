"""lcov tracefiles (``.info``): the functions that gcov counted, with their source file.

The format is in geninfo(1), of lcov 1.x and 2.x. A section per source file:

    SF:/usr/src/linux/fs/open.c
    FNDA:12,do_sys_open             count, function
    FNA:3,12,do_sys_open            the same in lcov 2: index (of FNL), count, function
    end_of_record
"""

from __future__ import annotations

import re

from tracer.host import UserError
from tracer.readers.common import COUNT, Tally, bad_line, text_lines
from tracer.readers.sightings import ForeignTrace

DOING = "reading the lcov file"
#: Documented records that say nothing of which function ran.
_PASSED = frozenset("VER FN FNL FNF FNH BRDA BRF BRH DA LF LH MCDC MCF MCH".split())
_COUNTED = {"FNDA": re.compile(rf"({COUNT}),(.+)"), "FNA": re.compile(rf"{COUNT},({COUNT}),(.+)")}
END = "end_of_record"


def read_lcov(data: bytes, app: str) -> ForeignTrace:
    """Functions with a count above zero; counts of several sections of one file are added up.

    With ``app`` "", an app is the name of a test (``TN``).

    Raises:
        UserError: malformed, cut short, or without records of functions.
    """
    tally = Tally(DOING)
    test = file = ""
    records = 0
    for number, line in text_lines(data, DOING):
        kind, colon, rest = line.partition(":")
        counted = _COUNTED[kind].fullmatch(rest) if kind in _COUNTED else None
        if not line.strip() or line.startswith("#"):
            continue
        if kind == "TN" and colon and not file:
            # lcov 2 marks what it subtracted from another file.
            test = rest.removesuffix(",diff")
        elif kind == "SF" and rest and not file:
            file = rest
        elif line == END and file:
            file = ""
        elif counted and file:
            records += 1
            who = app or test
            if not who:
                raise UserError(f"{DOING}: line {number} belongs to no test", "name the app")
            tally.apps.setdefault(who)
            if int(counted[1]):
                tally.add(who, int(counted[1]), counted[2], file)
        elif kind not in _PASSED or not colon or not file:
            raise bad_line(DOING, number, line)
    if file:
        raise UserError(f"{DOING}: it ends in the middle of {file[:200]}; it is cut short")
    if not records:
        raise UserError(
            f"{DOING}: it has no records of functions", "capture with lcov --rc function_coverage=1"
        )
    return tally.trace("lcov")
