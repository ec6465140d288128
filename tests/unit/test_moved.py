"""Where a kernel with KASLR lay is told from what it ran, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tracer.collecting.blocks import read_blocks
from tracer.collecting.moved import STEP, how_far
from tracer.host import ValidationFailed
from tracer.sessions.options import Mark

BASE = 0xFFFFFFFF81000000


def functions(seed: int, count: int = 3000) -> np.ndarray:
    """Where functions of a kernel begin: 16 bytes apart or more, as compilers align them."""
    random = np.random.default_rng(seed)
    return np.uint64(BASE) + np.cumsum(random.integers(1, 60, count)).astype(np.uint64) * np.uint64(16)


@pytest.mark.parametrize("steps", [0, 1, 2, 300, 1023])
def test_it_is_found_however_far(steps: int) -> None:
    known = functions(1)
    random = np.random.default_rng(2)
    inside = random.choice(known, 6000) + random.integers(1, 200, 6000).astype(np.uint64)
    ran = np.concatenate([random.choice(known, 1500), inside]) + np.uint64(steps * STEP)
    assert how_far(ran, known) == steps * STEP


def test_what_fits_nowhere_is_not_guessed() -> None:
    with pytest.raises(ValidationFailed, match="nothing fits"):
        how_far(functions(3) + np.uint64(8), functions(4))


def test_blocks_are_where_vmlinux_has_them(tmp_path: Path) -> None:
    known = functions(5, 400)
    far = 37 * STEP
    rows = [f"IN:\n0x{at + far:016x}:  90       nop\n\n" for at in known.tolist()]
    log = tmp_path / "blocks.log"
    log.write_text("IN:\n0x0000000000100000:  90       nop\n\n" + "".join(rows))
    blocks = read_blocks(log, (Mark("boot", 0),), 0xFFFFFFFF80000000, 0, 0, functions=known)
    assert blocks.starts.tolist() == known.tolist()
    assert (blocks.ends - blocks.starts).tolist() == [1] * len(known)
