"""verify finds each thing that it is there for, when it is broken on purpose."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from prune.verify.verify import Check
from tracer.host import UserError

from .toy import Toy


def patch(vmlinux: Path, address: int, data: bytes) -> None:
    """Write ``data`` at a virtual address."""
    with vmlinux.open("r+b") as stream:
        (offset,) = list(ELFFile(stream).address_offsets(address, len(data)))
        stream.seek(offset)
        stream.write(data)


def address_of(toy: Toy, name: str) -> int:
    said = subprocess.run(["nm", toy.tree / "vmlinux"], capture_output=True, text=True, check=True).stdout
    return next(int(line.split()[0], 16) for line in said.splitlines() if line.split()[2] == name)


def content_of(toy: Toy, address: int, size: int) -> bytes:
    with (toy.tree / "vmlinux").open("rb") as stream:
        (offset,) = list(ELFFile(stream).address_offsets(address, size))
        stream.seek(offset)
        return stream.read(size)


def broken(toy: Toy) -> dict[str, Check]:
    return {check.name: check for check in toy.verify().checks if not check.ok}


def edit(toy: Toy, name: str) -> tuple[Path, Any]:
    path = toy.tree / name
    return path, json.loads(path.read_text())


def test_an_untouched_kernel_passes(spoilt: Toy) -> None:
    assert not broken(spoilt)


def test_a_pointer_to_another_tombstone(spoilt: Toy) -> None:
    """table[0] means cold_one; cold_two's trap is as dead, but not the same function."""
    patch(
        spoilt.tree / "vmlinux",
        address_of(spoilt, "table"),
        struct.pack("<Q", address_of(spoilt, "cold_two")),
    )
    found = broken(spoilt)["references"]
    assert found.findings == (
        "init/one.o:.data.table+0x0 refers to dropped init/one.o:.text.cold_one past its tombstone",
    )


def test_a_reference_into_freed_text(spoilt: Toy) -> None:
    patch(spoilt.tree / "vmlinux", address_of(spoilt, "table") + 16, struct.pack("<Q", 0x400FF0))
    assert "init/one.o:.data.table+0x10 should reach native_clock" in broken(spoilt)["references"].findings[0]


def test_a_call_into_nowhere(spoilt: Toy) -> None:
    start = address_of(spoilt, "_start")
    patch(spoilt.tree / "vmlinux", start + 9, struct.pack("<i", 0x100000))
    found = broken(spoilt)
    assert "init/main.o:.head.text" in found["branches"].findings[0]
    assert "init/main.o:.head.text" in found["references"].findings[0]


def test_two_tombstones_with_one_address(spoilt: Toy) -> None:
    path, value = edit(spoilt, "tombstones.json")
    value["tombstones"][0]["address"] = value["tombstones"][1]["address"]
    path.write_text(json.dumps(value))
    assert any("has the address of" in finding for finding in broken(spoilt)["tombstones"].findings)


def test_a_tombstone_without_its_trap(spoilt: Toy) -> None:
    patch(spoilt.tree / "vmlinux", address_of(spoilt, "cold_one"), b"\x90")
    assert "holds no trap" in broken(spoilt)["tombstones"].findings[0]


@pytest.mark.parametrize(
    ("where", "says"), [("cold_one", "a tombstone"), ("__start_once", "outside kept text")]
)
@pytest.mark.parametrize("table", ["__ex_table", "__bug_table", "orc_unwind_ip", "runtime_ptr_limit"])
def test_a_table_entry_that_points_wrong(spoilt: Toy, table: str, where: str, says: str) -> None:
    entry = address_of(spoilt, f"__start_{table}")
    patch(spoilt.tree / "vmlinux", entry, struct.pack("<i", address_of(spoilt, where) - entry))
    found = broken(spoilt)["tables"].findings
    assert len(found) == 1 and table in found[0] and f"entry 0 points {says}" in found[0]


def test_code_that_names_another_entry_than_its_own(spoilt: Toy) -> None:
    """In 7.x WARN() hands the address of its entry on."""
    place = address_of(spoilt, "own_entry")
    code = content_of(spoilt, place, 32)
    field = place + code.index(b"\x48\x8d") + 3
    entry = address_of(spoilt, "__start___bug_table")  # that of run()
    patch(spoilt.tree / "vmlinux", field, struct.pack("<i", entry - field - 4))
    (finding,) = broken(spoilt)["references"].findings
    assert "should reach the entry of __bug_table about init/one.o:.text.own_entry" in finding


def test_a_flipped_byte(spoilt: Toy) -> None:
    patch(spoilt.tree / "vmlinux", address_of(spoilt, "native_clock"), b"\x91")
    assert broken(spoilt)["bytes"].findings == (
        "lib/two.o:.text.native_clock+0x0 is not what the compiler made",
    )


def test_code_that_nobody_accounts_for(spoilt: Toy) -> None:
    """Bytes in the padding behind the last function."""
    _, value = edit(spoilt, "tombstones.json")
    end = max(row["address"] + row["size"] for row in value["tombstones"])
    patch(spoilt.tree / "vmlinux", end, b"\xd6")
    found = broken(spoilt)
    assert "accounting" in found or "bytes" in found


def test_a_dropped_unit_that_is_still_there(spoilt: Toy) -> None:
    path, value = edit(spoilt, "plan.json")
    for row in value["units"]:
        if row[:2] == ["lib/two.o", ".text.native_clock"]:
            row[3] = "drop"
    path.write_text(json.dumps(value))
    assert (
        "lib/two.o:.text.native_clock was dropped and is in the image"
        in broken(spoilt)["references"].findings
    )


def test_a_stripped_kernel_is_refused(spoilt: Toy) -> None:
    subprocess.run(["strip", spoilt.tree / "vmlinux"], check=True)
    with pytest.raises(UserError, match="no symbols"):
        spoilt.verify()


@pytest.mark.parametrize("name", ["vmlinux", "vmlinux.map", "plan.json", "tombstones.json", "init/one.o"])
@pytest.mark.parametrize("spoil", ["cut", "gone"])
def test_a_damaged_input_is_one_clear_error(spoilt: Toy, name: str, spoil: str) -> None:
    path = spoilt.tree / name
    content = path.read_bytes()
    path.unlink()
    if spoil == "cut":
        path.write_bytes(content[: len(content) // 3])
    with pytest.raises(UserError, match=name.rsplit("/", 1)[-1]):
        spoilt.verify()
