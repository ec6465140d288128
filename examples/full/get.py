"""The host's client: `get.py URL` fetches what the guest's web server has, in an order and of a size that
$KPRUNE_SEED varies (workload.toml)."""

import os
import random
import sys
import urllib.error
import urllib.request

SEED = int(os.environ.get("KPRUNE_SEED", "0"))
LARGE = (256 + SEED % 64) * 1024


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        body: bytes = answer.read()
        return body


def ask(base: str, name: str) -> None:
    try:
        body = get(f"{base}/{name}")
    except urllib.error.HTTPError as error:
        assert (name, error.code) == ("nothing", 404)
    else:
        assert name != "nothing" and (name != "large.bin" or body == b"k" * LARGE)


def main(base: str) -> None:
    names = ["index.html"] * (3 + SEED % 3) + ["large.bin", "", "nothing"]
    if SEED:
        random.Random(SEED).shuffle(names)
    for name in names:
        try:
            ask(base, name)
        except (OSError, AssertionError) as error:
            sys.exit(f"asking for {name or '/'}: {error or 'another answer than expected'}")


if __name__ == "__main__":
    main(sys.argv[1])
