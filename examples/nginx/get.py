"""The host's client: `get.py HOST PORT` asks for everything there is, in ways that go well and that do not.

$KPRUNE_SEED varies order, sizes and how many connections there are at a time. In a slow guest time flies, so
that what is idle for a moment has run out of time: a request is tried several times before it has failed.
"""

import contextlib
import hashlib
import http.client
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable

SEED = int(os.environ.get("KPRUNE_SEED", "0"))
CHANCE = random.Random(SEED)
TRIES = 6
PATIENCE = 20.0


def main(host: str, port: int) -> None:
    address = (host, port)
    steps: list[Callable[[], None]] = [
        *(lambda path=path, wanted=wanted: fetch(address, path, wanted) for path, wanted in PATHS),
        lambda: kept_alive(address),
        lambda: pipelined(address),
        lambda: conditional(address),
        lambda: upload(address),
        lambda: aborted(address),
        lambda: slow_reader(address),
        lambda: half_said(address),
        lambda: nonsense(address),
        lambda: many_at_a_time(address),
        lambda: storm(address),
    ]
    CHANCE.shuffle(steps)
    for step in steps:
        step()
    tools(f"http://{host}:{port}")


PATHS = [
    ("/", 200), ("/index.html", 200), ("/style.css", 200), ("/large.bin", 200), ("/direct/large.bin", 200),
    ("/threads/large.bin", 200), ("/copied/large.bin", 200), ("/list/", 200), ("/list/list/7.html", 200),
    ("/proxy/large.bin", 200), ("/unix/style.css", 200), ("/broken/", 502), ("/nothing", 404),
    ("/private/", 403), ("/status", 200),
]  # fmt: skip


def retried(what: Callable[[], None]) -> None:
    for turn in range(TRIES):
        try:
            what()
        except (OSError, http.client.HTTPException, AssertionError):
            if turn == TRIES - 1:
                raise
            time.sleep(0.2 * turn)
        else:
            return


def fetch(
    address: tuple[str, int], path: str, wanted: int, method: str = "GET", body: bytes | None = None
) -> None:
    def once() -> None:
        connection = http.client.HTTPConnection(*address, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(method, path, body, {"Accept-Encoding": CHANCE.choice(("gzip", "identity"))})
            answer = connection.getresponse()
            data = answer.read()
            assert answer.status == wanted, f"{method} {path}: {answer.status} instead of {wanted}"
            if path.endswith("large.bin"):
                assert set(data) == {ord("k")} and len(data) >= 256 << 10, f"{path}: wrong content"

    retried(once)


def kept_alive(address: tuple[str, int]) -> None:
    """Many requests on one connection."""

    def once() -> None:
        connection = http.client.HTTPConnection(*address, timeout=PATIENCE)
        with contextlib.closing(connection):
            for _ in range(10 + SEED % 10):
                connection.request("GET", CHANCE.choice(("/index.html", "/style.css", "/nothing")))
                connection.getresponse().read()

    retried(once)


def pipelined(address: tuple[str, int]) -> None:
    def once() -> None:
        with socket.create_connection(address, PATIENCE) as connection:
            wanted = 8 + SEED % 8
            ask = b"GET /index.html HTTP/1.1\r\nHost: x\r\n\r\n" * (wanted - 1)
            connection.sendall(ask + b"GET /index.html HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert everything(connection).count(b"HTTP/1.1 200") == wanted

    retried(once)


def everything(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def conditional(address: tuple[str, int]) -> None:
    """304, a range, a range that is not there, a file that is asked after only."""

    def once() -> None:
        for headers, method, wanted in (
            ({"If-Modified-Since": "Fri, 01 Jan 2038 00:00:00 GMT"}, "GET", 304),
            ({"Range": "bytes=1000-70000"}, "GET", 206),
            ({"Range": "bytes=90000000-"}, "GET", 416),
            ({}, "HEAD", 200),
            ({}, "POST", 405),
        ):
            connection = http.client.HTTPConnection(*address, timeout=PATIENCE)
            with contextlib.closing(connection):
                connection.request(method, "/large.bin", headers=headers)
                answer = connection.getresponse()
                answer.read()
                assert answer.status == wanted, f"{method} {headers}: {answer.status} instead of {wanted}"

    retried(once)


def upload(address: tuple[str, int]) -> None:
    size = 1000 + 7919 * SEED % 400000
    body = hashlib.sha256(str(SEED).encode()).digest() * (size // 32)

    def put() -> None:
        connection = http.client.HTTPConnection(*address, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("PUT", "/up/host", body)
            assert connection.getresponse().status in (201, 204)

    retried(put)
    fetch(address, "/up/host", 200)
    with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
        fetch(address, "/up/host", 204, "DELETE")
    fetch(address, "/up/host", 404, "DELETE")
    fetch(address, "/up/large", 413, "PUT", bytes(2_200_000)) if SEED % 2 else None


def aborted(address: tuple[str, int]) -> None:
    """Connections that are reset while a large answer is on its way, or before anything was asked."""
    for turn in range(4):
        with contextlib.suppress(OSError), socket.create_connection(address, PATIENCE) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if turn:
                connection.sendall(b"GET /large.bin HTTP/1.0\r\n\r\n")
                connection.recv(1000)


def slow_reader(address: tuple[str, int]) -> None:
    def once() -> None:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(PATIENCE)
            connection.connect(address)
            connection.sendall(b"GET /large.bin HTTP/1.0\r\n\r\n")
            for _ in range(10):
                assert connection.recv(2048)
                time.sleep(0.02)
            everything(connection)

    retried(once)


def half_said(address: tuple[str, int]) -> None:
    """A request that is never finished, and one that is, byte by byte."""
    with contextlib.suppress(OSError), socket.create_connection(address, PATIENCE) as connection:
        connection.sendall(b"GET /index.html HT")
        time.sleep(0.3)
        connection.shutdown(socket.SHUT_WR)
        everything(connection)

    def once() -> None:
        with socket.create_connection(address, PATIENCE) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in b"GET / HTTP/1.0\r\n\r\n":
                connection.sendall(bytes([byte]))
                time.sleep(0.005)
            assert b" 200 " in everything(connection)

    retried(once)


def nonsense(address: tuple[str, int]) -> None:
    with contextlib.suppress(OSError), socket.create_connection(address, PATIENCE) as connection:
        connection.sendall(CHANCE.randbytes(300) + b"\r\n\r\n")
        everything(connection)


def many_at_a_time(address: tuple[str, int]) -> None:
    threads = [
        threading.Thread(target=fetch, args=(address, path, 200))
        for path in CHANCE.choices(
            ("/index.html", "/style.css", "/large.bin", "/proxy/style.css"), k=6 + SEED % 12
        )
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def storm(address: tuple[str, int]) -> None:
    """More connections than are ever answered, all at once; then they go."""
    held = []
    for _ in range(60 + SEED % 100):
        with contextlib.suppress(OSError):
            connection = socket.socket()
            held.append(connection)
            connection.setblocking(False)
            connection.connect_ex(address)
    time.sleep(0.3)
    for connection in held:
        connection.close()


def tools(base: str) -> None:
    """The usual clients."""
    for words in (
        ["ab", "-q", "-k", "-n", str(200 + SEED % 100), "-c", str(2 + SEED % 14), f"{base}/index.html"],
        ["ab", "-q", "-n", "60", "-c", str(1 + SEED % 7), f"{base}/style.css"],
        ["wrk", "-t1", f"-c{4 + SEED % 12}", "-d1s", "--timeout", "20s", f"{base}/index.html"],
    ):
        for turn in range(TRIES):
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                break
            assert turn < TRIES - 1, f"{' '.join(words)}: {done.stderr.strip()}"


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
