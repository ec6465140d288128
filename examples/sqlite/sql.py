"""The host's client: `sql.py HOST PORT` sends SQL over several connections at a time, and leaves some.

$KPRUNE_SEED varies how much. In a slow guest time flies: a session is tried several times before it failed.
"""

import contextlib
import os
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable

SEED = int(os.environ.get("KPRUNE_SEED", "0"))
CHANCE = random.Random(SEED)
TRIES = 6
PATIENCE = 60.0
Address = tuple[str, int]


def main(host: str, port: int) -> None:
    address = (host, port)
    steps: list[Callable[[], None]] = [
        lambda: written(address, 20 + SEED % 30),
        lambda: rolled_back(address),
        lambda: wrong(address),
        lambda: large(address),
        lambda: at_a_time(address),
        lambda: left(address),
    ]
    CHANCE.shuffle(steps)
    for step in steps:
        retried(step)


def retried(what: Callable[[], None]) -> None:
    for turn in range(TRIES):
        try:
            what()
        except (OSError, AssertionError):
            if turn == TRIES - 1:
                raise
            time.sleep(0.3 * turn)
        else:
            return


def session(address: Address, sql: str) -> str:
    """What a session of its own answers, to its end."""
    with socket.create_connection(address, PATIENCE) as connection:
        connection.sendall(f"{sql}\nselect 'the end';\n.quit\n".encode())
        said = b""
        while part := connection.recv(65536):
            said += part
    assert b"the end" in said, f"the session broke off: {said[-200:]!r}"
    return said.decode()


def written(address: Address, number: int) -> None:
    values = ", ".join(f"(null, '{CHANCE.randbytes(20).hex()}')" for _ in range(number))
    said = session(address, f"select count(*) from t; begin; insert into t values {values}; commit;")
    assert int(said.split()[0]) >= 0


def rolled_back(address: Address) -> None:
    said = session(address, "begin; insert into t values (null, 'x'); select changes(); rollback;")
    assert said.split()[0] == "1"


def wrong(address: Address) -> None:
    assert "no such table" in session(address, "select * from nowhere;")


def large(address: Address) -> None:
    size = 50_000 + SEED * 1013 % 100_000
    assert str(2 * size) in session(
        address,
        f"insert into t values (null, hex(zeroblob({size})));"
        "select length(v), v from t order by k desc limit 1;",
    )


def at_a_time(address: Address) -> None:
    failed: list[Exception] = []

    def one() -> None:
        try:
            written(address, 5)
        except (OSError, AssertionError) as error:
            failed.append(error)

    threads = [threading.Thread(target=one) for _ in range(3 + SEED % 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def left(address: Address) -> None:
    """Sessions that end in the middle of a transaction, in order or not."""
    for reset in (False, True):
        with contextlib.suppress(OSError), socket.create_connection(address, PATIENCE) as connection:
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.sendall(b"begin immediate; insert into t values (null, 'left');\nselect v from t;\n")
            connection.recv(100)
    assert session(address, "select 1;")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
