"""Where a guest's memory goes: rows that add up, from what a kernel says of itself."""

from __future__ import annotations

import pytest

from prune.guests.breakdown import MEANING, break_down, tightest
from tracer.host import UserError

CONSOLE = """\
[    0.000000] Dentry cache hash table entries: 4096 (order: 3, 32768 bytes, linear)
[    0.000000] Inode-cache hash table entries: 2048 (order: 2, 16384 bytes, linear)
[    0.000000] Memory: 15148K/26104K available (712K kernel code, 788K rwdata, 472K rodata, \
816K init, 424K bss, 10700K reserved, 0K cma-reserved)
Freeing initrd memory: 1988K
Freeing unused kernel image (initmem) memory: 816K
Freeing unused kernel image (text/rodata gap) memory: 1332K
"""
K = 1024
PARTS = {"text": 712 * K, "rodata": 472 * K, "data": 788 * K, "bss": 424 * K, "init": 816 * K,
         "reserved": 4600 * K}  # fmt: skip
COUNTS = {
    "total": 5000, "nr_free_pages": 2000, "nr_slab_reclaimable": 1, "nr_slab_unreclaimable": 700,
    "nr_page_table_pages": 18, "nr_anon_pages": 45, "nr_shmem": 560, "nr_file_pages": 700,
    "nr_kernel_stack": 352,
}  # fmt: skip


def test_every_byte_has_a_row() -> None:
    made = break_down(26 * 1024 * K, PARTS, CONSOLE, COUNTS, 4096)
    assert sum(made.rows.values()) == made.memory == 26 * 1024 * K
    assert list(made.rows) == list(MEANING)
    assert made.init == (816 + 1332) * K  # the initrd is no part of the image
    assert made.rows["firmware"] == (26 * 1024 - 26104) * K
    assert made.rows["image, rest"] == (4600 - 816 - 1332 - 712 - 472 - 788 - 424) * K
    assert made.rows["page cache"] == 140 * 4096
    assert made.rows["kernel stacks"] == 352 * K
    assert made.rows["other pages"] == (5000 - 2000 - 701 - 18 - 45 - 700) * 4096 - 352 * K
    assert made.hashes == {"Dentry cache": 32768, "Inode-cache": 16384}


def test_a_kernel_that_keeps_silent() -> None:
    with pytest.raises(UserError, match="did not say how much there is"):
        break_down(1 << 20, PARTS, "", COUNTS, 4096)


def test_the_tightest_moment_has_least_to_give() -> None:
    """A page of a file can be given up, one of a tmpfs cannot."""
    cached = {"nr_free_pages": 10, "nr_file_pages": 500, "nr_shmem": 20}
    full = {"nr_free_pages": 10, "nr_file_pages": 500, "nr_shmem": 400}
    assert tightest([cached, full, cached]) is full
