"""``symbols.json``: every function of one kernel with its identity, for the tracer to look addresses up.

Identity is object + section + symbol and comes from the link map, never from a name alone. Assembly
labels have no size; they reach to the next symbol of their section.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from prune.model.image import Image
from tracer.host import write_json

SCHEMA = 4


def write_symbols(image: Image, kernel: str, identity: Mapping[str, str], entry: int, path: Path) -> None:
    """Write ``symbols.json``: rows of address, size, object, section, symbol, traceable.

    Args:
        kernel: ``production`` or ``traced``.
        identity: ``build_id``, ``config``, ``source``, ``version``, ``options``.
        entry: where the kernel is entered, as its ELF header has it.
    """
    traceable = _traceable(image)
    rows = []
    for unit, offset, size, name in _with_sizes(image):
        rows.append(
            [
                int(image.units["address"][unit]) + offset, size,
                image.objects[int(image.units["object"][unit])], image.names[unit], name,
                any((unit, offset + skew) in traceable for skew in range(0, 9)),
            ]
        )  # fmt: skip
    rows.sort(key=lambda row: (row[0], row[4]))
    head = {
        "schema_version": SCHEMA,
        "kernel": kernel,
        **identity,
        "entry": entry,
        "files": source_files(image),
    }
    write_json(path, {**head, "functions": rows})


def source_files(image: Image) -> dict[str, str]:
    """Object -> BLAKE2 of the source file that kbuild says it was compiled from (``.NAME.o.cmd``,
    scripts/Makefile.build); an object that was linked from others, or whose source is gone, is not listed.
    """
    found: dict[str, str] = {}
    for name in image.objects:
        path = image.root / name
        try:
            command = path.with_name(f".{path.name}.cmd").read_text(errors="replace")
            source = re.search(rf"^source_{re.escape(name)} := (\S+)", command, re.M)
            if source:
                content = (image.root / source[1]).read_bytes()
                found[name] = hashlib.blake2b(content, digest_size=8).hexdigest()
        except OSError:
            continue
    return found


def _with_sizes(image: Image) -> list[tuple[int, int, int, str]]:
    by_unit: dict[int, list[int]] = {}
    for unit, offset, _, _ in image.functions:
        by_unit.setdefault(unit, []).append(offset)
    for unit, offsets in by_unit.items():
        by_unit[unit] = [*sorted(set(offsets)), int(image.units["size"][unit])]
    found = []
    for unit, offset, size, name in image.functions:
        if not size:
            following = by_unit[unit]
            size = following[following.index(offset) + 1] - offset if offset < following[-1] else 0
        if size:
            found.append((unit, offset, size, name))
    return found


def _traceable(image: Image) -> set[tuple[int, int]]:
    """(unit, offset) of every ftrace call site, from ``__mcount_loc`` (include/linux/ftrace.h).

    The site is the function's first instruction, or lies behind an endbr of four bytes.
    """
    tables = np.array([name == "__mcount_loc" for name in image.names], bool)
    rows = image.relocations[tables[image.relocations["unit"]]]
    offsets = image.symbol_value[rows["symbol"]] + rows["addend"]
    return set(zip(rows["target"].tolist(), offsets.tolist(), strict=True))
