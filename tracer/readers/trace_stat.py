"""The function profiler's ``trace_stat/functionN`` from another machine, one or all processors' in a row.

    cat /sys/kernel/tracing/trace_stat/function* > FILE

The profiler cuts names at 30 characters and gives no addresses. It has room for the functions that ftrace
knew when it was switched on, and does not say when that was too little (kernel/trace/ftrace.c,
ftrace_profile_init_cpu): only modules loaded later can make it so.
"""

from __future__ import annotations

from collections import Counter

from tracer.host import UserError
from tracer.readers.common import MAX_SIGHTINGS, bad_line, need_app, text_lines
from tracer.readers.ftrace import NAME_WIDTH, Row, parse_rows
from tracer.readers.sightings import ForeignTrace, Sighting

DOING = "reading the function profile"
_MAX_ROW = 200


def read_trace_stat(data: bytes, app: str) -> ForeignTrace:
    """Functions of all processors, in order of first appearance.

    Functions that share a name (or what is left of it) have a row each; then the result has as many sightings
    of the name as any one processor has rows. Which row of one processor goes with which of another is not
    known, so of several such rows on several processors the counts are None.

    Raises:
        UserError: not such a file, or nothing ran.
        LostEvents: see :func:`tracer.readers.ftrace.parse_rows`.
    """
    need_app(app, DOING)
    tables = [parse_rows(part) for part in _tables(data)]
    rows = [[row for row in table if row.hits] for table in tables]
    if not any(rows):
        raise UserError(f"{DOING}: it has no functions", "switch function_profile_enabled on before the app")
    sightings = [
        Sighting(app, count, name, cut=len(name) == NAME_WIDTH)
        for name, counts in _combine(rows).items()
        for count in counts
    ]
    return ForeignTrace("trace_stat", (app,), tuple(sightings))


def is_heading(line: str) -> bool:
    return line.split()[:2] == ["Function", "Hit"]


def _tables(data: bytes) -> list[bytes]:
    """The text of each processor."""
    parts: list[list[str]] = []
    if not data.endswith(b"\n"):
        raise UserError(f"{DOING}: it ends in the middle of a line; it is cut short")
    for number, line in text_lines(data, DOING):
        if len(line) > _MAX_ROW:
            raise bad_line(DOING, number, line)
        if is_heading(line):
            parts.append([])
        elif not parts:
            raise UserError(f"{DOING}: it does not begin with a heading")
        if number > MAX_SIGHTINGS:
            raise UserError(f"{DOING}: more than {MAX_SIGHTINGS} rows; no kernel has so many functions")
        parts[-1].append(line)
    return ["\n".join(part).encode() for part in parts]


def _combine(tables: list[list[Row]]) -> dict[str, list[int | None]]:
    """The counts of each name: one for each function that bears it."""
    if len(tables) == 1:
        result: dict[str, list[int | None]] = {row.name: [] for row in tables[0]}
        for row in tables[0]:
            result[row.name].append(row.hits)
        return result
    bearers: dict[str, int] = {}
    totals: Counter[str] = Counter()
    for table in tables:
        for name, number in Counter(row.name for row in table).items():
            bearers[name] = max(number, bearers.get(name, 0))
        for row in table:
            totals[row.name] += row.hits
    return {name: [totals[name]] if k == 1 else [None] * k for name, k in bearers.items()}
