"""Where a kernel that chooses its addresses (KASLR) lay, from what it ran.

Blocks begin where functions do, all of them as far from where ``vmlinux`` says; of the distances that are
possible the one is right for which most blocks do. Physical addresses are chosen apart from virtual ones
(arch/x86/boot/compressed/kaslr.c), so this is about blocks that ran with paging on.
"""

from __future__ import annotations

import numpy as np

from tracer.host import ValidationFailed
from tracer.profiles.symbols import Addresses

#: A kernel lies at a multiple of this (so is CONFIG_PHYSICAL_ALIGN), and less than so far away.
STEP, FARTHEST = 1 << 20, 1 << 30
#: So many blocks are enough to tell, if so large a part of them fits, and half as many nowhere else.
_SAMPLE, _ENOUGH = 4000, 0.05


def how_far(blocks: Addresses, functions: Addresses) -> int:
    """Bytes that the kernel lay above its addresses in ``vmlinux``.

    Args:
        blocks: where blocks begin that it ran; ``functions``: where functions do, in ``vmlinux``.

    Raises:
        ValidationFailed: it cannot be told.
    """
    found = np.unique(blocks)
    found = found[:: max(len(found) // _SAMPLE, 1)]
    known = np.unique(functions)
    scores = np.zeros(FARTHEST // STEP, np.int64)
    for number in range(len(scores)):
        at = np.searchsorted(known, found - np.uint64(number * STEP))
        scores[number] = np.count_nonzero(known[at % len(known)] == found - np.uint64(number * STEP))
    best, second = np.argsort(scores)[:-3:-1]
    if scores[best] < _ENOUGH * len(found) or scores[best] < 2 * scores[second]:
        raise ValidationFailed("finding where a kernel with KASLR lay: nothing fits", "trace again")
    return int(best) * STEP
