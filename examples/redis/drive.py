"""The host's clients: `drive.py HOST PORT` runs redis-benchmark and redis-cli, and what neither does.

$KPRUNE_SEED varies sizes and how many connections there are at a time. In a slow guest time flies, so that
what is idle for a moment has run out of time: a step is tried several times before it has failed.
"""

import contextlib
import os
import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable

SEED = int(os.environ.get("KPRUNE_SEED", "0"))
CHANCE = random.Random(SEED)
TRIES = 6
PATIENCE = 20.0
#: All but those that ask for hundreds of values at once.
ALL = "ping,set,get,incr,lpush,rpush,lpop,rpop,sadd,hset,spop,zadd,zpopmin,lrange_100,mset"


def main(host: str, port: int) -> None:
    where = ["-h", host, "-p", str(port)]
    address = (host, port)
    steps: list[Callable[[], None]] = [
        lambda: benchmark(
            where, "-n", "40", "-c", str(2 + SEED % 20), "-d", str(3 + SEED * 97 % 3000), "-t", ALL
        ),
        lambda: benchmark(
            where, "-n", "200", "-c", "8", "-P", str(4 + SEED % 12), "-t", "set,get,incr,lpush,lpop"
        ),
        lambda: benchmark(where, "-n", "30", "-c", "10", "-k", "0", "-t", "ping,set,get"),
        lambda: benchmark(where, "-n", "20", "-c", "2", "-d", "60000", "-t", "set,get"),
        lambda: benchmark(where, "-n", "100", "-r", "1000", "-c", "5", "-t", "sadd,hset,zadd,spop,zpopmin"),
        lambda: transactions(where),
        lambda: waiting(where),
        lambda: evicted(where),
        lambda: refused(where),
        lambda: subscribed(address),
        lambda: aborted(address),
        lambda: slow_reader(address),
        lambda: nonsense(address),
        lambda: storm(address),
    ]
    CHANCE.shuffle(steps)
    for step in steps:
        retried(step)


def retried(what: Callable[[], None]) -> None:
    for turn in range(TRIES):
        try:
            what()
        except (OSError, AssertionError, subprocess.TimeoutExpired):
            if turn == TRIES - 1:
                raise
            time.sleep(0.2 * turn)
        else:
            return


def benchmark(where: list[str], *words: str) -> None:
    done = subprocess.run(
        ["redis-benchmark", *where, "-q", *words], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, f"redis-benchmark {' '.join(words)}: {done.stderr.strip()}"


def cli(where: list[str], commands: str) -> str:
    """Commands, one a line, on one connection."""
    done = subprocess.run(
        ["redis-cli", *where], input=commands, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, f"redis-cli: {done.stderr.strip()}"
    return done.stdout


def transactions(where: list[str]) -> None:
    said = cli(where, "multi\nset a 1\nincr a\nexec\nmulti\nset a 9\ndiscard\nget a\n")
    assert said.split()[-1] == "2", said
    cli(where, 'watch a\nset a 5\nmulti\nget a\nexec\neval \'return redis.call("get", "a")\' 0\n')


def waiting(where: list[str]) -> None:
    """Keys that expire, lists that stay empty."""
    cli(where, "set gone x px 50\nblpop nothing 0.2\nget gone\n")
    time.sleep(0.3)
    assert "x" not in cli(where, "get gone\n")


def evicted(where: list[str]) -> None:
    """More than there is memory for: the oldest go."""
    benchmark(where, "-n", str(150 + SEED % 50), "-r", "100000", "-c", "4", "-d", "70000", "-t", "set")
    cli(where, "flushall async\n")


def refused(where: list[str]) -> None:
    said = cli(where, "nosuchcommand\nset\nincr list0\nlpush list0 1\nincr list0\n")
    assert "ERR" in said and "WRONGTYPE" in said, said


def subscribed(address: tuple[str, int]) -> None:
    with socket.create_connection(address, PATIENCE) as listener:
        listener.sendall(b"SUBSCRIBE news\r\n")
        assert listener.recv(1000)
        with socket.create_connection(address, PATIENCE) as speaker:
            for number in range(5):
                speaker.sendall(f"PUBLISH news {number}\r\n".encode())
                assert speaker.recv(1000)
                assert listener.recv(1000)


def aborted(address: tuple[str, int]) -> None:
    """Connections that are reset in the middle of a command, or of its answer."""
    for said in (b"", b"*3\r\n$3\r\nSET\r\n$5\r\nabo", b"GET abort\r\n" * 200):
        with contextlib.suppress(OSError), socket.create_connection(address, PATIENCE) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(said)
            time.sleep(0.05)


def slow_reader(address: tuple[str, int]) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(PATIENCE)
        connection.connect(address)
        size = 300_000 + SEED * 1009 % 100_000
        connection.sendall(
            b"*3\r\n$3\r\nSET\r\n$4\r\nslow\r\n$%d\r\n%s\r\nGET slow\r\n" % (size, b"s" * size)
        )
        got = 0
        while got < size:
            part = connection.recv(2048 if got < 30000 else 65536)
            assert part
            got += len(part)
            if got < 30000:
                time.sleep(0.01)


def nonsense(address: tuple[str, int]) -> None:
    with contextlib.suppress(OSError), socket.create_connection(address, PATIENCE) as connection:
        connection.sendall(b"*99999999\r\n" + CHANCE.randbytes(200) + b"\r\n")
        connection.recv(1000)


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


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
