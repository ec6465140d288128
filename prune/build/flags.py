"""How kernels of an architecture are compiled: what ``linkerscripts/kbuild.toml`` knows, and the words for
make that follow from a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prune.model.knowledge import FOLDER, read_toml
from tracer.host import UserError

KCFLAGS = "-ffunction-sections -fdata-sections"


def kbuild_knowledge(arch: str) -> Mapping[str, str]:
    """How to build for an architecture, from ``linkerscripts/kbuild.toml``.

    Raises:
        UserError: it is not described there.
    """
    known = read_toml(FOLDER / "kbuild.toml")
    if not isinstance(known.get(arch), dict):
        supported = ", ".join(
            name for name, row in known.items() if "arch" in (row if isinstance(row, dict) else ())
        )
        raise UserError(f"architecture {arch}: not supported; supported: {supported}")
    found: Mapping[str, str] = known[arch]
    return found


def compiler_flags(config: str) -> str:
    """What ``KCFLAGS`` is for a configuration."""
    return " ".join([KCFLAGS, *(row["words"] for row in _asked_for("flags", config))])


def object_flags(config: str) -> tuple[str, ...]:
    """Words for make that give some objects of a configuration flags of their own."""
    rows = _asked_for("object_flags", config)
    return tuple(f"CFLAGS_{name}={row['words']}" for row in rows for name in row["objects"])


def _asked_for(table: str, config: str) -> list[Any]:
    return [row for row in read_toml(FOLDER / "kbuild.toml")[table] if f"\n{row['option']}=y\n" in config]
