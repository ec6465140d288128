"""Lines of consoles that only one kind of kernel says."""

from __future__ import annotations

from pathlib import Path

import pytest

from prune.guests.consoles import Line, Said, compare, read_consoles

WHOLE = """\
[    0.000000] Linux version 6.1.192
[    0.000000][    T0] Memory: 110012K/130552K available (2936K kernel code)
[    0.512000] TCP: Hash tables configured (established 1024 bind 1024)
[    0.600000] rcu: 7 callbacks
Freeing unused kernel image (initmem) memory: 812K
"""


def pruned(*more: str, without: str = "nothing") -> str:
    lines = [line.replace("1024", "512").replace("2936K", "716K") for line in WHOLE.splitlines()]
    return "\n".join([*(line for line in lines if without not in line), *more])


def test_numbers_times_and_the_layout_of_the_image_do_not_differ() -> None:
    said = compare([WHOLE] * 3, [pruned("Freeing unused kernel image (text/rodata gap) memory: 1200K")])
    assert said == Said(3, 1)


@pytest.mark.parametrize("line", ["stable (824513, -3161)->(718299, 1030)", "of -12 or a-3", "skew=-4"])
def test_a_number_below_zero_is_a_number(line: str) -> None:
    other = line.replace("-3161", "3161").replace("-12", "12").replace("=-4", "=4")
    assert compare([f"{WHOLE}{line}"] * 3, [pruned(other)]) == Said(3, 1)
    assert compare([f"{WHOLE}a-3"] * 3, [pruned("a3")]).new == (Line("a3", 1),)


def test_what_a_pruned_kernel_complains_of_is_found_and_counted() -> None:
    """As BPF did when the stubs of TCP cubic were gone (kernel/bpf/bpf_struct_ops.c)."""
    complaint = "Cannot find the stub function 0xffffffff81a0b2c4 in btf"
    said = compare([WHOLE] * 3, [pruned(f"[  0.7] {complaint}"), pruned("once 1"), pruned(complaint)])
    assert said.new == (Line(complaint, 2), Line("once 1", 1))
    assert said.missing == ()


def test_what_every_whole_kernel_says_and_no_pruned_one_is_found() -> None:
    sometimes = WHOLE + "random: crng init done\n"
    said = compare([WHOLE, sometimes, WHOLE], [pruned(without="rcu"), pruned(without="rcu")])
    assert said.missing == (Line("rcu: 7 callbacks", 3),)
    assert compare([WHOLE, sometimes, WHOLE], [pruned(without="rcu"), pruned()]).missing == ()


def test_with_nothing_to_compare_nothing_differs(tmp_path: Path) -> None:
    assert compare([], [WHOLE]) == Said(0, 1)
    assert compare([WHOLE], []) == Said(1, 0)
    # With a profile from elsewhere, the only whole kernels are those of healing.
    assert compare([WHOLE] * 2, [pruned("tsc: Fast TSC calibration failed")]) == Said(2, 1)
    (tmp_path / "console.log").write_bytes(b"\xff\n")
    assert len(list(read_consoles([tmp_path / "console.log", tmp_path / "none"]))) == 1


def test_a_console_without_end_is_cut() -> None:
    said = compare([WHOLE] * 3, ["x" * 100_000 + "\n" + "\n".join(f"line {'a' * n}" for n in range(1000))])
    assert len(said.new) == 50 and max(len(line.text) for line in said.new) == 400
