"""What is near the code that ran of a function: so many turns away, whatever lies between."""

from __future__ import annotations

import numpy as np

from prune.instructions import Instructions, read_instructions
from prune.knowledge import read_knowledge
from prune.near import TURNS, near


def code_of(text: bytes) -> Instructions:
    found = read_instructions(text, np.empty(0, np.int64), read_knowledge("x86_64"))
    assert found
    return found


JE, JMP, NOP, RET = b"\x74", b"\xeb", b"\x90", b"\xc3"


def test_each_branch_that_could_go_two_ways_is_a_turn() -> None:
    # Each piece has a branch to the next, and else returns: 0 ran.
    piece = JE + b"\x01" + RET
    code = code_of(piece * 4 + RET)
    ran = np.zeros(len(code.start), bool)
    ran[:2] = True
    assert TURNS == 2
    # The second piece's branch is the first turn's end, what it leads to is the second's.
    assert code.start[near(code, ran)].tolist() == [0, 2, 3, 5, 6]


def test_what_has_one_way_on_goes_it() -> None:
    back = JMP + b"\xf9"  # to the beginning, over everything
    code = code_of(JE + b"\x01" + RET + NOP * 2 + back + NOP)
    ran = code.start < 3
    # What nothing leads to stays cold.
    assert code.start[near(code, ran)].tolist() == [0, 2, 3, 4, 5]
    assert not near(code, np.zeros(len(code.start), bool)).any()
