"""What boots missed is remembered for its build, and brings what it calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from prune.heal import Healed, add_misses, load_healed, save_healed
from tracer.host import UserError

MISS = ("tcp_try_coalesce", "net/ipv4/tcp_input.o", ".text.tcp_try_coalesce", "tcp_queue_rcv")


def test_each_round_has_a_number_and_nothing_is_added_twice() -> None:
    first = add_misses((), [MISS, MISS])
    second = add_misses(first, [MISS, ("other", "mm/x.o", ".text.other", "")])
    assert [(each.function, each.round) for each in second] == [("tcp_try_coalesce", 1), ("other", 2)]


def test_what_was_healed_belongs_to_one_build(tmp_path: Path) -> None:
    path = tmp_path / "heal.json"
    assert load_healed(path, "one") == ()
    save_healed(add_misses((), [MISS]), path, "one")
    assert load_healed(path, "one") == (Healed(*MISS, 1),)
    assert load_healed(path, "two") == ()


@pytest.mark.parametrize(
    "text", ["", "{", '{"schema_version": 1}', '{"schema_version": 1, "build_id": "x", "healed": [{}]}']
)
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "heal.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"heal\.json"):
        load_healed(path, "x")
