"""Run a program and write down what it cost.

    python -I -S child_cost.py RESULT PROGRAM ARGUMENT ...

This is a program of its own because the kernel counts the peak memory of a child from the fork on: a parent
that holds an image of the kernel would be the smallest number that it can report. A bare Python is some 10
MiB. RESULT gets one JSON object: ``seconds`` of wall-clock time; ``cpu_seconds`` on all processors, user
and system; ``peak_bytes``, the largest resident set, mapped files included. Of children that the program
waits for, too. It exits as the program does.
"""

import json
import os
import sys
import time


def main() -> None:
    result, *command = sys.argv[1:]
    began = time.monotonic()
    child = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(child, 0)
    seconds = time.monotonic() - began
    cost = {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,
    }
    with open(result, "w") as stream:
        json.dump(cost, stream)
    code = os.waitstatus_to_exitcode(status)
    sys.exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
