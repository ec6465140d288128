"""What boots missed is remembered for its build, and brings what it calls."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from prune.guests.heal import (
    ALIKE,
    Healed,
    add_misses,
    boots_to_repeat,
    healed_profile,
    load_healed,
    rounds,
    save_healed,
)
from prune.guests.misses import Miss
from tracer.host import UserError
from tracer.profiles.profile import KernelId, Seen

MISS = Miss("tcp_try_coalesce", "net/ipv4/tcp_input.o", ".text.tcp_try_coalesce", "tcp_queue_rcv", "web")
OTHER = Miss("other", "mm/x.o", ".text.other", "")


def test_each_round_has_a_number_and_nothing_is_added_twice() -> None:
    first = add_misses((), [MISS, MISS])
    second = add_misses(first, [MISS, OTHER])
    assert [(each.function, each.round, each.boots) for each in second] == [
        ("tcp_try_coalesce", 1, 2), ("other", 2, 1),
    ]  # fmt: skip
    assert (rounds(()), rounds(first), rounds(second)) == (0, 1, 2)


def test_of_boots_that_missed_the_same_some_are_repeated() -> None:
    same = [{"number": 1000 + i, "misses": [asdict(MISS)]} for i in range(10)]
    rest = [
        {"number": 2000, "misses": [asdict(OTHER)]},
        {"number": 2001, "misses": [asdict(MISS), asdict(OTHER)]},
        {"number": 2002, "misses": []},
    ]
    assert boots_to_repeat([*rest, *same]) == [*range(1000, 1000 + ALIKE), 2000, 2001]


def test_a_caller_that_one_boot_could_name_is_named() -> None:
    silent = Miss(MISS.function, MISS.object, MISS.section, "", "boot")
    assert add_misses((), [silent, MISS])[0].caller == "tcp_queue_rcv"


def test_what_was_healed_belongs_to_one_build(tmp_path: Path) -> None:
    path = tmp_path / "heal.json"
    assert load_healed(path, "one") == ()
    save_healed(add_misses((), [MISS]), path, "one")
    assert load_healed(path, "one") == (Healed(*list(vars(MISS).values())[:5], 1, 1),)
    assert load_healed(path, "two") == ()


def test_healed_functions_are_a_profile() -> None:
    kernel = KernelId("id", "c", "s", "6.1")
    profile = healed_profile(add_misses((), [MISS, OTHER]), kernel, {MISS.object: "d", "gone.o": "x"})
    assert profile.kernel == kernel and profile.sources == ("heal",)
    assert profile.files == ((MISS.object, "d"),)
    by_name = {function.symbol: function.seen for function in profile.functions}
    assert by_name["tcp_try_coalesce"] == (Seen("web", "heal", 1, "tcp_queue_rcv"),)
    assert by_name["other"] == (Seen("heal", "heal", 1, ""),)


@pytest.mark.parametrize(
    "text", ["", "{", '{"schema_version": 2}', '{"schema_version": 2, "build_id": "x", "healed": [{}]}']
)
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "heal.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"heal\.json"):
        load_healed(path, "x")


def test_what_boot_missed_can_be_missed_again_after_boot() -> None:
    """Once kept for booting alone, it is freed; a miss after that makes it stay."""
    early = replace(MISS, phase="boot")
    first = add_misses((), [early])
    assert add_misses(first, [early]) == first
    second = add_misses(first, [replace(MISS, phase="start")])
    assert [each.app for each in second] == ["boot", "start"]
    assert add_misses(second, [early, MISS]) == second
    profile = healed_profile(second, KernelId("", "", "", ""), {})
    assert [seen.app for seen in profile.functions[0].seen] == ["boot", "start"]
