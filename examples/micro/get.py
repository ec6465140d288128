"""The host's client: `get.py URL` fetches through the forwarded port."""

import sys
import urllib.error
import urllib.request

LARGE = 256 * 1024


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as answer:
        body: bytes = answer.read()
        return body


def main(base: str) -> None:
    for _ in range(5):
        assert b"kprune" in fetch(f"{base}/index.html")
    assert fetch(f"{base}/style.css")
    assert fetch(f"{base}/large.bin") == b"k" * LARGE
    try:
        fetch(f"{base}/nothing")
    except urllib.error.HTTPError as error:
        assert error.code == 404
    else:
        raise AssertionError("a file that is not there was served")


if __name__ == "__main__":
    main(sys.argv[1])
