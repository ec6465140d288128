"""Targets: modules, and what kprune writes of them."""

from __future__ import annotations

from pathlib import Path

from prune.build.modules import load_modules, read_modules, shipped
from prune.guests.graveyard import read_graveyard
from prune.guests.misses import find_misses
from prune.model.elf import parse_object
from prune.modules.refused import refused
from prune.modules.symbols import without_unneeded
from tests.conftest import X86
from tests.fuzz.documents import STONES, dumped, written
from tests.fuzz.harness import Target
from tests.fuzz.mutate import of_elf, of_json
from tests.unit.test_misses import OOPS_IN_MODULE
from tests.unit.test_modules import ko
from tracer.files.modules import module_tree
from tracer.host import UserError
from tracer.profiles.module_blocks import Block, functions_of, load_module_code

_ROW = {"path": "net/a.ko", "shipped": True, "aliases": ["net-*"], "exports": ["f"], "needs": ["kfree"]}
_LIST = {
    "schema_version": 1, "release": "6.1.0",
    "modules": [
        {**_ROW, "name": "a", "depends": ["b"]}, {**_ROW, "name": "b", "path": "net/b.ko", "depends": []},
    ],
}  # fmt: skip
_CODE = {
    "schema_version": 1,
    "areas": [
        {"module": "a", "code": bytes(range(64)).hex(), "known": (b"\1" * 64).hex(),
         "functions": [[0, 40, "a.o", ".text.f", "f"], [40, 24, "a.o", ".text.g", "g"]]},
    ],
}  # fmt: skip
_STONES = {
    "schema_version": 1,
    "modules": {"8021q": [{"symbol": "f", "object": "a.o", "section": ".text.f", "names": ["f", "f.2"]}]},
}


def _listed(data: bytes, folder: Path) -> object:
    written(data, folder, "modules/modules.json")
    for name in ("a", "b"):
        written(b"\x7fELF", folder, f"modules/net/{name}.ko")
    problems = []
    try:
        load_modules(folder)
    except UserError as error:
        problems.append(str(error))
    return module_tree(folder / "bzImage"), problems


def _code(data: bytes, folder: Path) -> object:
    written(data, folder, "modules/code.json")
    code = load_module_code(folder / "bzImage")
    blocks = [Block(0xFFFFFFFFA0000000 + at, bytes(range(at, at + 30))) for at in (0, 20, 34)]
    return functions_of(blocks, code)


def _stones(data: bytes, folder: Path) -> object:
    written(dumped(STONES)(folder)[0], folder, "tombstones.json")
    written(data, folder, "modules/tombstones.json")
    return find_misses(read_graveyard(folder / "tombstones.json"), (), OOPS_IN_MODULE)


def _module(data: bytes, folder: Path) -> object:
    written(data, folder, "net/a.ko")
    found = shipped(read_modules(folder, ["net/a.ko"], X86.machine), ["*"])
    file = parse_object(folder / "net/a.ko", data, X86.machine)
    parse_object(folder / "net/a.ko", without_unneeded(file), X86.machine)
    return found, refused(file, "a")


TARGETS = [
    Target("modules_json", dumped(_LIST), _listed, of_json),
    Target("module_code", dumped(_CODE), _code, of_json),
    Target("module_stones", dumped(_STONES), _stones, of_json),
    Target("module", lambda _: [ko("a", ("f", "kfree"), ("g",), "x*"), ko("a", ("f",))], _module, of_elf),
]
