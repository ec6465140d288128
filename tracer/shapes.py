"""The shape of each table of ``workload.toml`` and of other files that users write (lists of programs and of
CVEs, policies), as data, and a table checked against its shape.

A key that is not in the shape is an error that names the nearest one that is, because a silently ignored line
would be a silently smaller profile.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

#: Names of Debian packages (Debian Policy, 5.6.1), an architecture behind them.
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.:-]*")
#: table -> key -> accepted Python types
SHAPES: dict[str, dict[str, tuple[type, ...]]] = {
    "": {
        "schema_version": (int,), "name": (str,), "arch": (str, list), "kernel_config": (str, list),
        "any_order": (bool,), "needs": (list,), "machine": (dict,), "rootfs": (dict,), "app": (list,),
        "server": (list,), "on": (dict,), "disk": (list,),
    },
    "machine": {
        "memory": (str,), "tight": (str,), "cmdline": (str,), "forward": (list,), "cpu": (str,),
        "nic": (str,), "cpus": (int,),
    },
    "disk": {"format": (str,), "size": (str,), "mount": (str,)},
    "rootfs": {
        "busybox": (bool, str), "device": (str,), "packages": (list,), "omit": (list,), "file": (list,),
        "modules": (list,),
    },
    "on": {
        "kernel_config": (str, list), "cpu": (str,), "nic": (str,), "tight": (str,), "busybox": (str,),
    },
    "rootfs.file": {"source": (str,), "target": (str,), "mode": (str,)},
    "app": {
        "name": (str,), "command": (str,), "ready": (str,), "check": (str,), "client": (str, list),
        "host": (str,), "timeout": (int, float), "load": (str,),
    },
    "server": {
        "name": (str,), "command": (str,), "ready": (str,), "ports": (list,), "timeout": (int, float),
    },
    "programs": {
        "schema_version": (int,), "packages": (list,), "omit": (list,), "files": (str,), "memory": (str,),
        "program": (list,),
    },
    "program": {"name": (str,), "command": (str,), "timeout": (int, float)},
    "policy": {
        "functions": (list,), "object": (str,), "types": (list,), "on_miss": (str,), "value": (str, int),
    },
    "cves": {"cve": (list,)},
    "cve": {"id": (str,), "functions": (list,), "file": (str,), "note": (str,)},
}  # fmt: skip
REQUIRED: dict[str, tuple[str, ...]] = {
    "": ("schema_version", "name", "arch", "app"),
    "rootfs.file": ("source", "target"),
    "disk": ("format", "size", "mount"),
    "app": ("name", "command", "timeout"),
    "server": ("name", "command", "ready", "timeout"),
    "programs": ("schema_version", "program"),
    "program": ("name", "command"),
    "policy": ("functions",),
    "cve": ("id", "functions"),
}
WORDS = {str: "a string", int: "a whole number", float: "a number", bool: "true or false",
         list: "a list", dict: "a table"}  # fmt: skip


class WrongShape(Exception):
    """What is wrong with a table, and what may have been meant."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy


def package_name(name: object) -> str:
    """An element of a list ``packages``.

    Raises:
        WrongShape: it is not the name of a Debian package.
    """
    if not isinstance(name, str) or not PACKAGE.fullmatch(name):
        raise WrongShape(f"packages: {name!r} is not the name of a Debian package")
    return name


def path_pattern(pattern: object) -> str:
    """An element of a list ``omit``.

    Raises:
        WrongShape: it is not a pattern of absolute paths.
    """
    if not isinstance(pattern, str) or not pattern.startswith("/"):
        raise WrongShape(f"omit: {pattern!r} is not a pattern of absolute paths")
    return pattern


def check_shape(raw: object, table: str) -> dict[str, Any]:
    """One table: nothing unknown, nothing missing, every type right.

    Raises:
        WrongShape: it is not so.
    """
    if not isinstance(raw, dict):
        raise WrongShape("must be a table")
    shape = SHAPES[table]
    for key, value in raw.items():
        if key not in shape:
            near = difflib.get_close_matches(key, shape, n=1, cutoff=0.0)[0]
            raise WrongShape(f'there is no key "{key}"', f'did you mean "{near}"?')
        # bool is an int in Python, and is not one here
        if not isinstance(value, shape[key]) or (isinstance(value, bool) and bool not in shape[key]):
            expected = " or ".join(WORDS[kind] for kind in shape[key])
            raise WrongShape(f'"{key}" must be {expected}, not {value!r}')
    for key in REQUIRED.get(table, ()):
        if key not in raw:
            raise WrongShape(f'the key "{key}" is missing')
    return raw
