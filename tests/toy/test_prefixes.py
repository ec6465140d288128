"""What lies before a function, as call thunks and kCFI have it, belongs to it and is no function itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from prune.guests.system_map import read_system_map

from .toy import TARGETS, compiled

SOURCE = """
__attribute__((patchable_function_entry(16, 16))) void one(void) { asm volatile("" : : "i"(1)); }
asm(".pushsection .text.one,\\"ax\\"\\n.type __pfx_one,@function\\n"
    ".set __pfx_one, one - 16\\n.size __pfx_one, 16\\n.popsection");
"""


@pytest.mark.parametrize("arch", TARGETS)
def test_names_before_a_function_are_no_functions(arch: str, tmp_path: Path) -> None:
    made = compiled(arch, SOURCE, tmp_path)
    assert b"\0__pfx_one\0" in made.files[0].strtab
    assert [(offset, name) for _, offset, _, name in made.functions] == [(16, "one")]
    assert list(made.labels([made.unit_at("k/one.o", ".text.one")]).values()) == ["one"]


def test_they_name_no_caller(tmp_path: Path) -> None:
    listed = tmp_path / "System.map"
    listed.write_text("ff00 T zero\nff10 t __pfx_one\nff20 t one\n")
    assert read_system_map(listed).names == {"zero", "one"}
