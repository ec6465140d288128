"""The kernel's modules in the guest: ``/lib/modules/RELEASE`` as depmod would make it.

Each kernel has modules of its own, in the folder ``modules`` beside its boot image, with ``modules.json``
(written by prune): the traced one's call the tracer, the pruned one's have lost what is cold.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tracer.files.newc import Entry, regular
from tracer.host import UserError, read_json
from tracer.module_list import FOLDER, LIST, REFUSED, SCHEMA, is_module_path

_RELEASE = re.compile(r"[\w.+~-]{1,64}")


def module_tree(kernel: Path) -> dict[str, Entry]:
    """The files of the modules that the workload ships, for the kernel whose boot image is ``kernel``.

    Raises:
        UserError: that kernel has no modules, or their list is damaged.
    """
    folder = kernel.parent / FOLDER
    value = read_json(folder / LIST, "list of modules", SCHEMA)
    try:
        return _tree(folder, value)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"reading the list of modules: {folder / LIST} is damaged: {error!r}", "kprune build"
        ) from error
    except OSError as error:
        raise UserError(f"reading modules: {error.filename}: {error.strerror}", "kprune build") from error


def _tree(folder: Path, value: Mapping[str, Any]) -> dict[str, Entry]:
    release = value["release"]
    rows = [row for row in value["modules"] if row["shipped"]]
    path_of = {row["name"]: row["path"] for row in rows}
    if not _RELEASE.fullmatch(release) or not all(map(is_module_path, path_of.values())):
        raise KeyError("a name that is none of a file")
    home = f"usr/lib/modules/{release}"
    tree = {f"{home}/kernel/{path}": regular((folder / path).read_bytes()) for path in path_of.values()}
    needed = [
        f"kernel/{row['path']}:{''.join(f' kernel/{path_of[n]}' for n in row['depends'])}" for row in rows
    ]
    aliases = [f"alias {alias} {row['name']}" for row in rows for alias in row["aliases"]]
    tree[f"{home}/modules.dep"] = regular("".join(f"{line}\n" for line in needed).encode(errors="replace"))
    tree[f"{home}/modules.alias"] = regular("".join(f"{line}\n" for line in aliases).encode(errors="replace"))
    refused = folder / REFUSED
    if refused.is_file():
        tree[f"kprune/{REFUSED}"] = regular(refused.read_bytes())
    return tree
