"""The host's client: `get.py URL` fetches through the forwarded port.

$KPRUNE_SEED varies the order and the number of requests.
"""

import hashlib
import os
import random
import sys
import urllib.error
import urllib.request
from collections.abc import Callable

SEED = int(os.environ.get("KPRUNE_SEED", "0"))


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as answer:
        body: bytes = answer.read()
        return body


def get_index(base: str) -> None:
    assert b"kprune" in fetch(f"{base}/index.html")


def get_style(base: str) -> None:
    assert fetch(f"{base}/style.css")


def get_large(base: str) -> None:
    wanted = fetch(f"{base}/large.md5").split()[0].decode()
    assert hashlib.md5(fetch(f"{base}/large"), usedforsecurity=False).hexdigest() == wanted


def get_nothing(base: str) -> None:
    try:
        fetch(f"{base}/nothing")
    except urllib.error.HTTPError as error:
        assert error.code == 404
    else:
        raise AssertionError("a file that is not there was served")


def requests_in_order() -> list[Callable[[str], None]]:
    requests: list[Callable[[str], None]] = [get_index] * (5 + SEED % 3)
    requests += [get_style, get_large, get_nothing]
    if SEED:
        random.Random(SEED).shuffle(requests)
    return requests


if __name__ == "__main__":
    for request in requests_in_order():
        try:
            request(sys.argv[1])
        except (OSError, AssertionError) as error:
            sys.exit(f"{request.__name__}: {error or 'another answer than expected'}")
