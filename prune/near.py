"""The code around what ran of a function, where chance decides which way it goes next time.

A late answer, a queue that is full, a lock that somebody holds: each is a branch that no run took, and what
follows it has branches of its own. With all that any of them leads to, examples/sqlite by the block has 2.4%
more text than with what is :data:`TURNS` branches away. Boots missed blocks that are three and four away, and
none that is further.
"""

from __future__ import annotations

import numpy as np

from prune.elf import Rows
from prune.instructions import Instructions

#: Branches that may go another way than they ever did, one after the other.
TURNS = 4


def near(code: Instructions, hot: Rows, cases: Rows) -> Rows:
    """Mask of the instructions that ``hot``, the mask of those that ran, comes to in so many turns.

    Args:
        cases: rows that a jump through a table may go to.
    """
    following: list[list[int]] = [[] for _ in code.start]
    for row in np.flatnonzero(code.falls[:-1]).tolist():
        following[row].append(row + 1)
    jumps = np.flatnonzero(code.target >= 0)
    for row, to in zip(jumps.tolist(), np.searchsorted(code.start, code.target[jumps]).tolist(), strict=True):
        following[row].append(to)
    for row in np.flatnonzero(code.anywhere).tolist():
        following[row] += cases.tolist()
    reached = hot.copy()
    turning = np.flatnonzero(hot).tolist()
    for _ in range(TURNS):
        ahead = [to for row in turning for to in following[row]]
        turning = []
        while ahead:
            row = ahead.pop()
            if reached[row]:
                continue
            reached[row] = True
            if len(following[row]) > 1:
                turning.append(row)
            else:
                ahead += following[row]
    return reached
