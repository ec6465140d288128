"""The load that speed is measured with: `load.py HOST PORT` runs redis-benchmark, round after round, until
$KPRUNE_LOAD_SECONDS seconds are over; then it prints one line of JSON (../micro/README.md).

redis-benchmark says how long requests took as points of a distribution: so many within so many milliseconds.
Those of all its tests are added up. A test that breaks off, because redis was killed or its disk is full, is
counted as requests that were lost, and the next round comes a little later.
"""

import bisect
import json
import os
import re
import subprocess
import sys
import time

TESTS = ("ping_mbulk", "set", "get", "incr", "lpush", "rpop", "sadd", "hset", "mset")
#: Of each test; a round is all of them, so that every window has the same mixture.
REQUESTS = 400
#: Seconds after a test that broke off; and that one may take: after a kill redis-benchmark may wait for ever.
PAUSE, AT_MOST = 0.2, 10
#: With $KPRUNE_LOAD_PIPELINE, so many commands are sent at once, to see many in little time.
PIPELINE = int(os.environ.get("KPRUNE_LOAD_PIPELINE", "1"))
POINT = re.compile(r"<= ([0-9.]+) milliseconds \(cumulative count ([0-9]+)\)")
#: How many there were; and how many in a second, which has more digits than the seconds that are printed.
SUMMARY = re.compile(r"([0-9]+) requests completed in .*?summary: ([0-9.]+) requests per second", re.S)


def main(host: str, port: str) -> None:
    wanted = float(os.environ.get("KPRUNE_LOAD_SECONDS", "2"))
    requests, lost, seconds = 0, 0, 0.0
    tests: list[list[tuple[float, int]]] = []
    while seconds < wanted:
        for name in TESTS:
            began = time.monotonic()
            said, good = benchmark(host, port, name)
            # The same distribution is printed twice, at other points of it each time.
            for part in said.split("requests completed in")[1:]:
                tests.append(sorted({(float(ms), int(count)) for ms, count in POINT.findall(part)}))
            found = SUMMARY.findall(said)
            requests += sum(int(number) for number, _ in found)
            if good:
                seconds += sum(int(number) / float(rate) for number, rate in found)
            else:
                lost += REQUESTS * PIPELINE
                time.sleep(PAUSE)
                seconds += time.monotonic() - began
    if not requests:
        raise SystemExit("nothing was answered")
    quantiles = {"50": quantile(tests, requests * 0.5), "99": quantile(tests, requests * 0.99)}
    answered = {"requests": requests, "quantiles_ms": quantiles}
    print(json.dumps(answered | {"seconds": round(seconds, 3), "lost": lost}))


def benchmark(host: str, port: str, name: str) -> tuple[str, bool]:
    """What redis-benchmark says of one test, and whether it came to its end."""
    words = ["redis-benchmark", "-h", host, "-p", port, "-c", "8", "-r", "1000", "-t", name]
    words += ["-n", str(REQUESTS * PIPELINE), "-P", str(PIPELINE)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=AT_MOST)
    except subprocess.TimeoutExpired:
        print(f"{name}: no end in {AT_MOST} seconds", file=sys.stderr)
        return "", False
    if done.returncode:
        print(f"{name}:", *(done.stdout + done.stderr).splitlines()[-1:], file=sys.stderr)
        return "", False
    return done.stdout, True


def quantile(tests: list[list[tuple[float, int]]], wanted: float) -> float:
    """The first of all points within which so many requests were answered."""
    points = sorted({ms for test in tests for ms, _ in test})
    return points[bisect.bisect_left(points, wanted, key=lambda ms: sum(within(test, ms) for test in tests))]


def within(test: list[tuple[float, int]], ms: float) -> int:
    row = bisect.bisect_right(test, (ms, sys.maxsize)) - 1
    return test[row][1] if row >= 0 else 0


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
