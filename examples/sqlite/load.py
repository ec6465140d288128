"""The load that speed is measured with: `load.py HOST PORT` sends the same statements over and over.

On one connection, until $KPRUNE_LOAD_SECONDS seconds are over; then it prints one line of JSON
(../micro/README.md).
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


def main(host: str, port: int) -> None:
    wanted = float(os.environ.get("KPRUNE_LOAD_SECONDS", "2"))
    latencies: list[float] = []
    with socket.create_connection((host, port), 60) as connection:
        answers = connection.makefile("r")
        began = now = time.perf_counter()
        while now - began < wanted:
            for statement in STATEMENTS:
                asked = now
                mark = f"done {len(latencies)}"
                connection.sendall(f"{statement} select '{mark}';\n".encode())
                for line in answers:
                    if line.strip() == mark:
                        break
                    assert "rror" not in line, line
                else:
                    raise SystemExit("the session broke off")
                now = time.perf_counter()
                latencies.append(round((now - asked) * 1000, 3))
    print(
        json.dumps({"requests": len(latencies), "seconds": round(now - began, 4), "latencies_ms": latencies})
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
