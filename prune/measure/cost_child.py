"""Run a program and write down what it cost.

    python -I -S cost_child.py RESULT PROGRAM ARGUMENT ...

A small process of its own, since Linux counts what the parent of a program held when it was started as that
program's peak: measured from a process that has read an image of a kernel, all linkers need the same memory.
A bare Python is some 10 MiB.

RESULT gets one JSON object: ``seconds`` of wall-clock time; ``cpu_seconds`` on all processors, user and
system, of all that the program waits for; ``peak_bytes``: the larger of what the kernel says of the largest
process, mapped files included, and of the sum over the program and all that it started, looked at every few
milliseconds while there are several. It exits as the program does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time

_LOOK = 0.02  # seconds between two looks


def main() -> None:
    result, *command = sys.argv[1:]
    began = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, os.environ)
    together, ended = [0], threading.Event()
    watcher = threading.Thread(target=_watch, args=(pid, together, ended), daemon=True)
    watcher.start()
    _, status, used = os.wait4(pid, 0)
    seconds = time.perf_counter() - began
    ended.set()
    watcher.join()
    cost = {
        "seconds": seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_bytes": max(used.ru_maxrss, together[0]) * 1024,
    }
    with open(result, "w") as stream:
        json.dump(cost, stream)
    code = os.waitstatus_to_exitcode(status)
    sys.exit(code if code >= 0 else 128 - code)


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
