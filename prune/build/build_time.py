"""How long a build took: what the stamp of a build in the cache says, or its files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from tracer.host import UserError, read_json

SCHEMA = 1
#: What kbuild makes first of all, in a tree in which nothing is.
_FIRST = "HOSTCC  scripts/basic/fixdep"


def jobs_of(command: Sequence[str]) -> int:
    """The number of jobs in a make command."""
    return next(int(word[2:]) for word in command if re.fullmatch(r"-j\d+", word))


def build_time(home: Path) -> tuple[float, int] | None:
    """Wall-clock seconds that make took for a finished build, and its number of jobs; None if nobody knows.

    What went on from where an earlier make had stopped is no measure of a build: the log must have the first
    program that kbuild makes. A build by an earlier kprune kept no time, but its files do: the configuration
    is written just before make starts, and make's last word ends the log.

    Args:
        home: the build's folder in the cache.
    """
    log = home / "build.log"
    try:
        stamp = read_json(home / "build.json", "stamp of a build", SCHEMA)
        text = log.read_text(errors="replace")
        if "sha256" not in stamp or _FIRST not in text:
            return None
        if "took" in stamp:
            return float(stamp["took"]["seconds"]), int(stamp["took"]["jobs"])
        seconds = log.stat().st_mtime - (home / "obj" / ".config").stat().st_mtime
        return round(seconds, 2), jobs_of(shlex.split(text.partition("\n")[0]))
    except (UserError, OSError, ValueError, KeyError, TypeError, StopIteration):
        return None
