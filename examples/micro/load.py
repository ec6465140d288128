"""The load that speed is measured with: `load.py URL` asks for what get.py asks for, one after the other.

Whole rounds of requests until $KPRUNE_LOAD_SECONDS seconds are over, so that every window has the same
mixture; then one line of JSON (README.md).
"""

import json
import os
import sys
import time

from get import requests_in_order


def main(base: str) -> None:
    wanted = float(os.environ.get("KPRUNE_LOAD_SECONDS", "2"))
    latencies: list[float] = []
    began = now = time.perf_counter()
    while now - began < wanted:
        for request in requests_in_order():
            asked = now
            request(base)
            now = time.perf_counter()
            latencies.append(round((now - asked) * 1000, 3))
    print(
        json.dumps({"requests": len(latencies), "seconds": round(now - began, 4), "latencies_ms": latencies})
    )


if __name__ == "__main__":
    main(sys.argv[1])
