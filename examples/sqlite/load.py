"""The load that speed is measured with: `load.py HOST PORT` sends the same statements over and over.

On one connection, until $KPRUNE_LOAD_SECONDS seconds are over; then it prints one line of JSON
(../micro/README.md). What fails, because the disk is full or the other end was killed, is counted as lost;
what it had begun is rolled back, and where the session is gone, another one is asked.
"""

import json
import os
import socket
import sys
import time

STATEMENTS = (
    "begin; insert into t values (null, hex(randomblob(50))); commit;",
    "select count(*) from (select * from t order by k desc limit 100);",
    "begin; update t set v = hex(randomblob(50)) where k = (select max(k) from t); commit;",
    "begin; delete from t where k = (select max(k) from t); rollback;",
    "delete from t where k = (select min(k) from t);",
)
#: Seconds after something failed.
PAUSE = 0.2


class Shell:
    """SQLite's, at the other end of a connection."""

    def __init__(self, host: str, port: int) -> None:
        self.connection = socket.create_connection((host, port), 60)
        self.answers = self.connection.makefile("r")

    def ask(self, statement: str, mark: str) -> bool:
        """Whether there was an answer without an error; on a line of its own, the mark comes in any case.

        Raises:
            OSError: the other end is gone.
        """
        self.connection.sendall(f"{statement}\nselect '{mark}';\n".encode())
        good = True
        for line in self.answers:
            if line.strip() == mark:
                return good
            if "rror" in line:
                good = False
                print(line.strip(), file=sys.stderr)
        raise ConnectionError("the session broke off")


def main(host: str, port: int) -> None:
    wanted = float(os.environ.get("KPRUNE_LOAD_SECONDS", "2"))
    latencies: list[float] = []
    lost = 0
    shell: Shell | None = None
    began = now = time.perf_counter()
    while now - began < wanted:
        for number, statement in enumerate(STATEMENTS):
            asked = time.perf_counter()
            try:
                shell = shell or Shell(host, port)
                good = shell.ask(statement, f"done {len(latencies)} {number}")
                if not good:
                    shell.ask("rollback;", f"rolled back {lost}")
            except OSError as error:
                print(error, file=sys.stderr)
                shell, good = None, False
            now = time.perf_counter()
            if good:
                latencies.append(round((now - asked) * 1000, 3))
            else:
                lost += 1
                time.sleep(PAUSE)
    if not latencies:
        raise SystemExit("nothing was answered")
    said = {
        "requests": len(latencies),
        "seconds": round(now - began, 4),
        "lost": lost,
        "latencies_ms": latencies,
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
