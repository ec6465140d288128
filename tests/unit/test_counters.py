"""Where a kernel counts its pages, from vmlinux files: of a program with the same arrays, 32 and 64 bits."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from prune.guests.counters import find_counters, part_sizes, read_kernel_file
from tracer.host import UserError

SOURCE = """
const char * const vmstat_text[] = {"nr_free_pages", "nr_mlock", "numa_hit", "nr_inactive_anon",
    "nr_slab_unreclaimable", "nr_dirty_threshold"};
long vm_zone_stat[2] = {7, 8};
long vm_node_stat[2] = {30, -4};
long _totalram_pages = 99;
void _start(void) {}
"""


def program(folder: Path, *flags: str, source: str = SOURCE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "k.c").write_text(source)
    words = ["gcc", "-nostdlib", "-static", "-fno-pie", "-no-pie", "-fno-asynchronous-unwind-tables", *flags]
    subprocess.run([*words, "-o", folder / "vmlinux", folder / "k.c"], check=True)
    return folder / "vmlinux"


@pytest.mark.parametrize("flag", ["-m32", "-m64"])
def test_counts_by_name(tmp_path: Path, flag: str) -> None:
    """The zone's items come first, then one that is neither's, then the node's."""
    kernel = read_kernel_file(program(tmp_path, flag))
    counts = find_counters(kernel, kernel).read(kernel.bytes_at)
    assert counts == {
        "nr_free_pages": 7, "nr_mlock": 8, "nr_inactive_anon": 30, "nr_slab_unreclaimable": -4, "total": 99,
    }  # fmt: skip


def test_names_are_those_of_the_whole_kernel(tmp_path: Path) -> None:
    """A pruned kernel may have lost them."""
    whole = read_kernel_file(program(tmp_path / "base"))
    without = "\n".join(line for line in SOURCE.splitlines() if "nr_" not in line)
    pruned = read_kernel_file(program(tmp_path / "pruned", source=without))
    assert find_counters(whole, pruned).read(pruned.bytes_at)["nr_inactive_anon"] == 30
    with pytest.raises(UserError, match="there is no vmstat_text"):
        find_counters(pruned, pruned)


def test_a_part_without_symbols_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no _etext"):
        part_sizes(read_kernel_file(program(tmp_path)))


def test_no_kernel(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_kernel_file(tmp_path / "vmlinux")
    (tmp_path / "vmlinux").write_bytes(b"\x7fELF")
    with pytest.raises(UserError, match="not a whole ELF file"):
        read_kernel_file(tmp_path / "vmlinux")


@pytest.mark.parametrize("size", [1 << 40, 1 << 63])
def test_a_segment_that_ends_behind_the_file(tmp_path: Path, size: int) -> None:
    """As much memory as it says is more than anyone has."""
    path = program(tmp_path)
    with path.open("rb") as stream:
        elf = ELFFile(stream)
        field = elf.header["e_phoff"] + 32  # p_filesz of the first
        loads = [each["p_type"] for each in elf.iter_segments()]
    assert loads[0] == "PT_LOAD"
    data = bytearray(path.read_bytes())
    data[field : field + 8] = size.to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(UserError, match="not a whole ELF file"):
        read_kernel_file(path)
