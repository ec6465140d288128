"""The host's client: `get.py URL` fetches through the forwarded port, one after the other and at once."""

import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

LARGE = 1024 * 1024


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
    with ThreadPoolExecutor(8) as pool:
        pages = [pool.submit(fetch, f"{base}/index.html") for _ in range(16)]
        large = [pool.submit(fetch, f"{base}/large.bin") for _ in range(3)]
        assert all(b"kprune" in page.result() for page in pages)
        assert all(len(body.result()) == LARGE for body in large)


if __name__ == "__main__":
    main(sys.argv[1])
