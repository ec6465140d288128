"""``kprune cache``: what builds of kernels take on disk, and those go that nobody has used for a while."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prune.settings import cache_folder
from tracer.host import HostError, say, show

_DAY = 24 * 60 * 60
#: What a build's configuration begins with: "# Linux/x86_64 6.1.192 Kernel Configuration".
_TITLE = re.compile(r"^# Linux/(\S+) (\S+) ", re.M)


@dataclass(frozen=True)
class CachedBuild:
    """One kernel in the cache. ``kernel``: architecture and version, "" when it never got that far;
    ``size``: bytes on disk; ``unused``: days since a kprune last worked in it."""

    name: str
    kernel: str
    size: int
    unused: float


def add_parser(verbs: Any) -> None:
    """Add the verb to the command line's."""
    made = verbs.add_parser("cache", help="what the builds in the cache take, and which may go")
    made.add_argument(
        "--remove-unused", type=_days, metavar="DAYS", help="remove builds that nobody used for so long"
    )
    made.add_argument("--json", action="store_true", help="print the builds as JSON")
    made.set_defaults(handler=run)


def _days(text: str) -> float:
    value = float(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number of days")
    return value


def run(options: argparse.Namespace) -> int:
    """List the builds; remove first what is asked for.

    Raises:
        HostError: a folder cannot be read or removed.
    """
    home = cache_folder() / "builds"
    if options.remove_unused is not None:
        remove_unused(home, options.remove_unused)
    found = list(cached_builds(home))
    show(json.dumps([asdict(build) for build in found], indent=1) if options.json else _table(found))
    return 0


def cached_builds(home: Path, now: float | None = None) -> Iterator[CachedBuild]:
    """The builds below ``home``, the one that was used last first.

    Args:
        now: seconds since the epoch; the clock's for None.
    """
    folders = [path for path in home.iterdir() if path.is_dir()] if home.is_dir() else []
    for folder in sorted(folders, key=_used, reverse=True):
        unused = max(0.0, (time.time() if now is None else now) - _used(folder)) / _DAY
        yield CachedBuild(folder.name, _kernel(folder), _size(folder), round(unused, 2))


def remove_unused(home: Path, days: float) -> None:
    """Remove the builds that no kprune has worked in for so many days. One that is in use stays.

    Raises:
        HostError: a folder cannot be removed.
    """
    for build in list(cached_builds(home)):
        folder = home / build.name
        if build.unused < days:
            continue
        try:
            # Whoever begins to work in it while it goes waits for the lock, and then finds nothing.
            with (folder / "lock").open("a") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
        except BlockingIOError:
            say(f"{build.name} is in use: it stays")
        except OSError as error:
            raise HostError(f"removing {folder}: {error.strerror or error}") from error
        else:
            say(f"removed {build.name} ({_mib(build.size)})")


def _used(folder: Path) -> float:
    """Every stage that works in a build opens its lock for writing (:func:`prune.build.kbuild.locked`)."""
    lock = folder / "lock"
    return (lock if lock.exists() else folder).stat().st_mtime


def _kernel(folder: Path) -> str:
    with contextlib.suppress(OSError):
        title = _TITLE.search((folder / "artefacts" / ".config").read_text(errors="replace")[:400])
        return f"{title[1]} {title[2]}" if title else ""
    return ""


def _size(folder: Path) -> int:
    """Bytes on disk. kbuild may be at work: what goes while it is counted is not counted."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += path.lstat().st_blocks * 512
    return total


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _table(builds: list[CachedBuild]) -> str:
    rows = [("build", "kernel", "size", "last used")]
    rows += [
        (build.name, build.kernel or "not finished", _mib(build.size), f"{build.unused:.0f} days ago")
        for build in builds
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}"
        for row in rows
    ]
    return "\n".join([*lines, f"{len(builds)} builds, {_mib(sum(build.size for build in builds))}"])
