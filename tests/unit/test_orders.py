"""Orders to the agent in a guest arrive whole."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from pathlib import Path

import pytest

from tracer.files.rootfs import BUSYBOX

AGENT = (Path(__file__).parents[2] / "tracer/guest/init").read_text()


@pytest.mark.skipif(not BUSYBOX.exists(), reason="busybox is not installed")
@pytest.mark.parametrize("orders", [b"ready 0 ready 240\n", b"\nready 0 ready 240\n"])
@pytest.mark.parametrize("cut", [1, 8, 17])
def test_an_order_is_not_lost_when_a_child_ends_while_it_comes(orders: bytes, cut: int) -> None:
    """busybox's shell forgets what it has read of a line when it is interrupted. Guests with two processors
    in which a service was not ready for a minute hung of that."""
    setting = re.search(r"^\$box stty .*$", AGENT, re.M)
    loop = AGENT[AGENT.index("while read -r order") :]
    assert setting
    script = [
        f"box={BUSYBOX}", setting[0], 'answer() { echo "$*" >&3; }', 'ready() { answer "done $1 $3"; }',
        "answer hello", "$box sleep 0.1 &", loop,
    ]  # fmt: skip
    host, guest = pty.openpty()
    words = [str(BUSYBOX), "sh", "-c", "\n".join([f"exec 3<&{guest} 3>&{guest}", *script])]
    with subprocess.Popen(words, pass_fds=[guest]) as shell:
        try:
            assert said(host) == b"hello\n"
            os.write(host, orders[:cut])
            time.sleep(0.2)
            os.write(host, orders[cut:])
            assert said(host) == b"done 0 240\n"
        finally:
            shell.kill()
            os.close(host)
            os.close(guest)


def said(host: int) -> bytes:
    """A line of the agent's; less when it says none."""
    line = b""
    while not line.endswith(b"\n") and select.select([host], [], [], 5)[0]:
        line += os.read(host, 100)
    return line
