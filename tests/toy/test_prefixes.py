"""What lies before a function, as call thunks and kCFI have it, belongs to it and is no function itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from prune.knowledge import read_knowledge
from prune.system_map import read_system_map
from tests.conftest import image

from .toy import CFLAGS, TARGETS

SOURCE = """
__attribute__((patchable_function_entry(16, 16))) void one(void) { asm volatile("" : : "i"(1)); }
asm(".pushsection .text.one,\\"ax\\"\\n.type __pfx_one,@function\\n"
    ".set __pfx_one, one - 16\\n.size __pfx_one, 16\\n.popsection");
"""


@pytest.mark.parametrize("arch", TARGETS)
def test_names_before_a_function_are_no_functions(arch: str, tmp_path: Path) -> None:
    source, compiled = tmp_path / "one.c", tmp_path / "one.o"
    source.write_text(SOURCE)
    subprocess.run(["gcc", *CFLAGS, *TARGETS[arch].flags, "-c", source, "-o", compiled], check=True)
    symbols = subprocess.run(["nm", compiled], capture_output=True, text=True, check=True).stdout
    assert "__pfx_one" in symbols
    made = image(tmp_path, {"k/one.o": compiled.read_bytes()}, knowledge=read_knowledge(arch))
    assert [(offset, name) for _, offset, _, name in made.functions] == [(16, "one")]
    assert list(made.labels([made.unit_at("k/one.o", ".text.one")]).values()) == ["one"]


def test_they_name_no_caller(tmp_path: Path) -> None:
    listed = tmp_path / "System.map"
    listed.write_text("ff00 T zero\nff10 t __pfx_one\nff20 t one\n")
    assert read_system_map(listed).names == {"zero", "one"}
