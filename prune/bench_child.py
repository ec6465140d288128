"""Runs one command and says what it cost; ``python -I -S bench_child.py COMMAND...`` prints a line of JSON.

A small process of its own, since Linux counts what the parent of a program held when it was started as that
program's peak: measured from the bench itself, which has read an image, all linkers need the same memory.

``wall`` and ``cpu`` in seconds; ``peak`` in KiB: the larger of what the kernel says of the largest process,
and of the sum over all processes of the command, looked at every few milliseconds while there are several.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time

_LOOK = 0.02  # seconds between two looks


def main() -> None:
    """Exits as the command did; what it says goes to stderr."""
    began = time.perf_counter()
    pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
    together, ended = [0], threading.Event()
    watcher = threading.Thread(target=_watch, args=(pid, together, ended), daemon=True)
    watcher.start()
    _, status, used = os.wait4(pid, 0)
    wall = time.perf_counter() - began
    ended.set()
    watcher.join()
    peak = max(used.ru_maxrss, together[0])
    print(json.dumps({"wall": wall, "cpu": used.ru_utime + used.ru_stime, "peak": peak}))
    sys.exit(os.waitstatus_to_exitcode(status) & 255)


def _watch(pid: int, together: list[int], ended: threading.Event) -> None:
    while not ended.wait(_LOOK):
        family = _family(pid)
        if len(family) > 1:
            together[0] = max(together[0], sum(_resident(each) for each in family))


def _family(pid: int) -> list[int]:
    """A process and all that it started and that lives."""
    found = [pid]
    try:
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 -- no pathlib: it is to stay small
            with open(f"/proc/{pid}/task/{task}/children") as stream:
                found += [each for child in stream.read().split() for each in _family(int(child))]
    except OSError:  # It ended while we looked.
        pass
    return found


def _resident(pid: int) -> int:
    """Resident memory in KiB; of what it shares with others, its share."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as stream:
            return next((int(line.split()[1]) for line in stream if line.startswith("Pss:")), 0)
    except OSError:
        return 0


if __name__ == "__main__":
    main()
