"""The host's client: `get.py URL` fetches through the forwarded port.

$KPRUNE_SEED varies the order and the number of requests, and how large the large file is (workload.toml).
"""

import os
import random
import sys
import urllib.error
import urllib.request
from collections.abc import Callable

SEED = int(os.environ.get("KPRUNE_SEED", "0"))
LARGE = (256 + SEED % 64) * 1024


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as answer:
        body: bytes = answer.read()
        return body


def get_index(base: str) -> None:
    assert b"kprune" in fetch(f"{base}/index.html")


def get_style(base: str) -> None:
    assert fetch(f"{base}/style.css")


def get_large(base: str) -> None:
    assert fetch(f"{base}/large.bin") == b"k" * LARGE


def get_status(base: str) -> None:
    answer = fetch(f"{base}/cgi-bin/status?seed={SEED}").decode()
    assert answer.startswith(f"GET seed={SEED}\n"), answer


def get_nothing(base: str) -> None:
    try:
        fetch(f"{base}/nothing")
    except urllib.error.HTTPError as error:
        assert error.code == 404
    else:
        raise AssertionError("a file that is not there was served")


def requests_in_order() -> list[Callable[[str], None]]:
    requests: list[Callable[[str], None]] = [get_index] * (5 + SEED % 3)
    requests += [get_style, get_large, get_status, get_status, get_nothing]
    if SEED:
        random.Random(SEED).shuffle(requests)
    return requests


def main(base: str) -> None:
    for request in requests_in_order():
        try:
            request(base)
        except (OSError, AssertionError) as error:
            sys.exit(f"{request.__name__}: {error or 'another answer than expected'}")


if __name__ == "__main__":
    main(sys.argv[1])
