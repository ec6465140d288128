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


NONE = np.empty(0, np.int64)
JE, JMP, NOP, RET = b"\x74", b"\xeb", b"\x90", b"\xc3"


def test_each_branch_that_could_go_two_ways_is_a_turn() -> None:
    # Each piece has a branch to the next, and else returns; the first one's branch ran.
    piece = JE + b"\x01" + RET
    code = code_of(piece * (TURNS + 3) + RET)
    ran = code.start < 2
    # The second piece's branch is at the end of the first turn, what it leads to at that of the second.
    assert code.start[near(code, ran, NONE)].tolist()[-2:] == [3 * TURNS - 1, 3 * TURNS]
    assert near(code, ran, NONE).sum() == 2 * TURNS + 1


def test_what_has_one_way_on_goes_it() -> None:
    back = JMP + b"\xf9"  # to the beginning, over everything
    code = code_of(JE + b"\x01" + RET + NOP * 2 + back + NOP)
    ran = code.start < 3
    # What nothing leads to stays cold.
    assert code.start[near(code, ran, NONE)].tolist() == [0, 2, 3, 4, 5]
    assert not near(code, np.zeros(len(code.start), bool), NONE).any()


def test_a_jump_through_a_table_is_one_turn_to_each_of_its_cases() -> None:
    """As tcp_fastretrans_alert has, by the state of a connection."""
    code = code_of(b"\xff\xe0" + RET + NOP + RET + NOP)  # jmp *%rax
    ran = code.start == 0
    assert code.start[near(code, ran, np.array([2]))].tolist() == [0, 3, 4]
    assert code.start[near(code, ran, NONE)].tolist() == [0]
