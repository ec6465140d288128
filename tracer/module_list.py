"""The list of a kernel's modules, ``modules/modules.json`` beside its boot image: who writes it, and who
reads it, agree on this."""

from __future__ import annotations

import re

SCHEMA = 1
FOLDER, LIST = "modules", "modules.json"
#: A module that every kernel has to refuse, for it needs a symbol that none exports.
REFUSED = "refused.ko"


_PATH = re.compile(r"(?:[\w+-][\w.+-]*/)*[\w+-][\w.+-]*\.ko")


def is_module_path(path: str) -> bool:
    """Whether it is one of a module below a folder, and leads nowhere else."""
    return bool(_PATH.fullmatch(path))


def module_name(path: str) -> str:
    """What the kernel calls a module (scripts/Makefile.lib, ``name-fix-token``)."""
    return path.rpartition("/")[2].removesuffix(".ko").replace("-", "_")
