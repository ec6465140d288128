"""Blocks of modules are known by their bytes, wherever a module lay and whatever lay there after it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tracer.host import UserError
from tracer.profiles.module_blocks import Area, Block, ModuleCode, by_phase, functions_of, load_module_code
from tracer.profiles.symbols import Identity

ONE, TWO, OTHER = (Identity(f"{name}.o", f".text.{name}", name) for name in ("one", "two", "other"))
BASE, LATER = 0xFFFFFFFFA0000000, 0xFFFFFFFFA0007000


def area(seed: int, *functions: Identity) -> Area:
    """A module of 64 bytes to a function; the bytes 8 to 12 of each are filled by relocations."""
    code = np.random.default_rng(seed).integers(0, 256, 64 * len(functions), np.uint8)
    known = np.ones(len(code), bool)
    for first in range(0, len(code), 64):
        known[first + 8 : first + 12] = False
    return Area(f"m{seed}", code, known, tuple((64 * i, 64 * i + 64, f) for i, f in enumerate(functions)))


A, B = area(1, ONE, TWO), area(2, OTHER)
CODE = ModuleCode((A, B))


def block(of: Area, at: int, size: int, base: int = BASE, fill: int = 0x55) -> Block:
    code = np.where(of.known, of.code, fill)[at : at + size].astype(np.uint8)
    return Block(base + at, code.tobytes())


def test_a_block_is_that_of_the_function_it_lies_in() -> None:
    found, outside = functions_of([block(A, 64, 32), block(A, 100, 10)], CODE)
    assert found == [(TWO,), (TWO,)] and not outside


def test_two_modules_at_one_place_one_after_the_other_are_told_apart() -> None:
    found, _ = functions_of([block(A, 0, 40), block(B, 0, 40), block(A, 64, 40)], CODE)
    assert found == [(ONE,), (OTHER,), (TWO,)]


def test_a_module_that_is_loaded_again_elsewhere_is_known_there_too() -> None:
    found, outside = functions_of([block(A, 0, 40), block(A, 64, 40, LATER)], CODE)
    assert found == [(ONE,), (TWO,)] and not outside


def test_what_the_kernel_has_patched_counts_where_the_module_is_known_to_lie() -> None:
    patched = Block(BASE + 70, b"\x0f\x1f\x44\x00\x00")
    assert functions_of([block(A, 0, 40), patched], CODE)[0] == [(ONE,), (TWO,)]


def test_few_bytes_say_nothing_and_strangers_are_counted() -> None:
    assert functions_of([block(A, 0, 5)], CODE) == ([()], 1)
    strange = Block(BASE + 0x5000, bytes(range(60)))
    assert functions_of([block(A, 0, 40), strange], CODE) == ([(ONE,), ()], 1)


def test_what_ran_is_told_by_phase() -> None:
    blocks = {0: [block(A, 0, 40)], 2: [block(A, 64, 40), block(A, 0, 40)]}
    assert by_phase(blocks, ("boot", "start", "app"), CODE) == (
        {"boot": frozenset({ONE}), "app": frozenset({ONE, TWO})}, 0,
    )  # fmt: skip


def test_a_kernel_without_modules_has_no_code(tmp_path: Path) -> None:
    assert load_module_code(tmp_path / "bzImage") == ModuleCode()


@pytest.mark.parametrize(
    "row",
    [
        {"module": "m", "code": "00", "known": "0101", "functions": []},
        {"module": "m", "code": "0", "known": "0", "functions": []},
        {"module": "m", "code": "00", "known": "01", "functions": {}},
        {"module": "m", "code": "00", "known": "01", "functions": [[0, 1, "a.o"]]},
        {"code": "00", "known": "01", "functions": []},
    ],
)
def test_damaged_code_is_an_error_that_names_the_file(tmp_path: Path, row: object) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/code.json").write_text(json.dumps({"schema_version": 1, "areas": [row]}))
    with pytest.raises(UserError, match=r"modules/code\.json is damaged"):
        load_module_code(tmp_path / "bzImage")
