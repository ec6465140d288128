"""What the readers of foreign traces share: bounded lines, a bounded sum of sightings.

Readers are total: whatever the bytes are, they raise one of the two errors below or return a trace, in
time and memory proportional to the file. Text is read line by line and never decoded whole.

    UserError   not this format, damaged, cut short, or nothing of use in it
    LostEvents  the tracer itself says that it dropped something
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field

from tracer.host import UserError
from tracer.readers.sightings import ForeignTrace, Sighting

#: More places than any kernel has, times more apps than anybody runs: such a file is damaged.
MAX_SIGHTINGS = 1 << 22
#: perf prints whole C++ signatures on a line; nobody prints more than this.
MAX_LINE = 1 << 16
#: More digits than any counter has. (Python refuses to convert very many.)
COUNT = r"\d{1,20}"

Place = tuple[str, str, str, int, bool]


def text_lines(data: bytes, doing: str) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end) of a text, whatever its line ends; bad UTF-8 is replaced.

    Raises:
        UserError: a line is longer than any of these tools prints, or binary.
    """
    for number, line in enumerate(io.BytesIO(data), start=1):
        if len(line) > MAX_LINE or b"\0" in line:
            raise UserError(f"{doing}: line {number} is not text")
        yield number, line.decode(errors="replace").rstrip("\r\n")


def bad_line(doing: str, number: int, line: str, remedy: str = "") -> UserError:
    """The error for a line that the format does not have."""
    return UserError(f"{doing}: line {number} is {line[:60]!r}", remedy)


def need_app(app: str, doing: str) -> str:
    """The caller's name for the app, where the format knows none.

    Raises:
        UserError: there is none.
    """
    if not app:
        raise UserError(f"{doing}: it does not say which app ran", "name the app")
    return app


@dataclass
class Tally:
    """Sightings of one file, added up by app and place, in order of first appearance."""

    doing: str
    apps: dict[str, None] = field(default_factory=dict)
    counts: dict[Place, int | None] = field(default_factory=dict)

    def add(
        self, app: str, count: int | None, name: str = "", file: str = "", address: int = 0, cut: bool = False
    ) -> None:
        """Count one place. A count that is None stays None.

        Raises:
            UserError: more places than a kernel can have.
        """
        place = (app, name, file, address, cut)
        before = self.counts.get(place, 0)
        self.apps.setdefault(app)
        self.counts[place] = None if count is None or before is None else before + count
        if len(self.counts) > MAX_SIGHTINGS:
            raise UserError(f"{self.doing}: more than {MAX_SIGHTINGS} places; no kernel has so many")

    def trace(self, source: str, build_id: str = "") -> ForeignTrace:
        """What was added up, as the result of a reader."""
        sightings = tuple(
            Sighting(app, count, name, file, address, cut)
            for (app, name, file, address, cut), count in self.counts.items()
        )
        return ForeignTrace(source, tuple(self.apps), sightings, build_id)
