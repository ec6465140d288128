"""``kprune doctor``: what this machine lacks, and the one command that mends it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prune.build.source import DEBIAN_PACKAGE, INSTALLED
from prune.model.knowledge import CODE
from tracer.host import HostError, host_path

_PACKAGES = CODE / "apt-packages.txt"
_PYTHON_PACKAGES = ("elftools", "capstone", "lief", "networkx", "numpy")
#: A production and a traced build of a lean kernel, and an unpacked source.
_CACHE_GIB = 6
#: A few compilers side by side; "2 GB" machines report less than 2 GiB.
_MEMORY_GIB = 1.5
#: Program -> (package, oldest version that serves, why); () is any: then the version is only shown.
_VERSIONS: dict[str, tuple[str, tuple[int, ...], str]] = {
    "gcc": ("gcc", (5, 1), "Linux 6.1 states 5.1 (scripts/min-tool-version.sh)"),
    "ld": ("binutils", (2, 30), "Linux 6.16 and newer ask for it (kbuild: require gcc-8 and binutils-2.30)"),
    "make": ("make", (3, 82), "Linux 6.1 states 3.82 (Documentation/process/changes.rst)"),
    "qemu-system-x86_64": ("qemu-system-x86", (), "tested with 7.2"),
    "qemu-system-i386": ("qemu-system-x86", (), "tested with 7.2"),
}


@dataclass(frozen=True)
class Check:
    """One thing that is needed: ``mend`` is the command that provides it, "" when none is needed."""

    name: str
    ok: bool
    found: str
    why: str
    mend: str


def doctor(cache: Path) -> list[Check]:
    """Look at everything that any stage needs."""
    return [
        _python(),
        *(_debian(*row) for row in _read_packages()),
        *(_version(program) for program in _VERSIONS if shutil.which(program)),
        *(_python_package(name) for name in _PYTHON_PACKAGES),
        _busybox(),
        _kernel_source(),
        _disk(cache),
        _memory(),
    ]


def require(commands: Iterable[str], more: Mapping[str, str] | None = None) -> None:
    """Stop before a stage begins that would fail for lack of a program. ``more``: packages of programs that
    not every run needs.

    Raises:
        HostError: names all that are missing and the command that installs them.
    """
    packages = {proof: package for package, proof, _ in _read_packages()} | dict(more or {})
    missing = [command for command in commands if not _where(command)]
    if missing:
        raise HostError(
            f"looking for programs: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not there",
            _apt(_package(command, packages) for command in missing),
        )


def _package(command: str, packages: Mapping[str, str]) -> str:
    """The package of a program, which may be one of several versions: ld.lld-19 is in lld-19."""
    found = re.fullmatch(r"(.+?)(-[0-9]+)", command)
    if found and found[1] in packages:
        return packages[found[1]] + found[2]
    return packages.get(command, command)


def table(checks: Iterable[Check]) -> str:
    """For a person; the last line is the one command that mends what apt can mend."""
    rows = list(checks)
    width = max(len(check.name) for check in rows)
    lines = [f"{'ok     ' if c.ok else 'MISSING'} {c.name:{width}}  {c.found or c.why}" for c in rows]
    broken = [check for check in rows if not check.ok]
    other = [f"{check.name}: {check.mend}" for check in broken if not check.mend.startswith("apt-get")]
    apt = _apt(check.mend.split()[-1] for check in broken if check.mend.startswith("apt-get"))
    lines += ["", *other] if other else [""]
    return "\n".join([*lines, apt if broken and len(other) < len(broken) else "", ""]).rstrip() + (
        "\nall there" if not broken else ""
    )


def to_json(checks: Iterable[Check]) -> list[dict[str, Any]]:
    return [asdict(check) for check in checks]


def _apt(packages: Iterable[str]) -> str:
    return "apt-get install --no-install-recommends " + " ".join(dict.fromkeys(packages))


def _read_packages() -> list[tuple[str, str, str]]:
    rows = []
    for line in _PACKAGES.read_text().splitlines():
        if line and not line.startswith("#"):
            package, proof, why = line.split(maxsplit=2)
            rows.append((package, proof, why))
    return rows


def _where(proof: str) -> str:
    """The path of a file or a program, "" when it is not there."""
    if proof.startswith("/"):
        return proof if Path(proof).exists() else ""
    return shutil.which(proof, path=host_path()) or ""


def _debian(package: str, proof: str, why: str) -> Check:
    found = _where(proof)
    return Check(package, bool(found), found, why, "" if found else _apt([package]))


def _version(program: str) -> Check:
    """A program that is there but too old; one that does not say its version is not too old."""
    package, oldest, why = _VERSIONS[program]
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    found = parse_version(said)
    ok = not found or found >= oldest
    needed = f" (needs {'.'.join(map(str, oldest))})" if not ok else ""
    text = ".".join(map(str, found)) or "version unknown"
    return Check(f"{program} version", ok, text + needed, why, "" if ok else _apt([package]))


def parse_version(said: str) -> tuple[int, ...]:
    """The version on the first line of ``--version``, () when there is none.

    What distributions add in parentheses holds numbers too: ``gcc (Debian 12.2.0-14) 12.2.0``.
    """
    first = re.sub(r"\([^)]*\)", "", said.partition("\n")[0])
    number = re.search(r"\d{1,9}(?:\.\d{1,9})+", first)
    return tuple(map(int, number[0].split("."))) if number else ()


def _python() -> Check:
    ok = sys.version_info >= (3, 11)
    return Check(
        "python", ok, sys.version.split()[0], "3.11 or newer", "" if ok else "use Debian 12's python3"
    )


def _python_package(name: str) -> Check:
    ok = importlib.util.find_spec(name) is not None
    return Check(f"python: {name}", ok, "", "installed by make setup", "" if ok else "make setup")


def _busybox() -> Check:
    """The guest has no shared libraries, so its busybox must need none."""
    path = Path("/bin/busybox")
    why = "the guest's busybox must be static"
    if not path.is_file():
        return Check("busybox is static", False, "", why, _apt(["busybox-static"]))
    if importlib.util.find_spec("elftools") is None:
        return Check("busybox is static", False, "", why, "make setup")
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        with path.open("rb") as stream:
            ok = not any(segment["p_type"] == "PT_INTERP" for segment in ELFFile(stream).iter_segments())
    except (OSError, ELFError):
        ok = False
    return Check("busybox is static", ok, str(path), why, "" if ok else _apt(["busybox-static"]))


def _kernel_source() -> Check:
    fetch = shutil.which("apt-get") is not None
    installed = INSTALLED / f"{DEBIAN_PACKAGE}.tar.xz"
    found = str(installed) if installed.is_file() else ("fetched when first needed" if fetch else "")
    mend = "" if found else "give --kernel"
    return Check(DEBIAN_PACKAGE, bool(found), found, "the kernel source, unless --kernel is given", mend)


def _disk(cache: Path) -> Check:
    place = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(place).free / 2**30
    ok = free >= _CACHE_GIB
    return Check(
        "disk", ok, f"{free:.0f} GiB free in {place}", f"{_CACHE_GIB} GiB for sources and builds",
        "" if ok else "free some space, or set KPRUNE_CACHE",
    )  # fmt: skip


def _memory() -> Check:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    ok = total >= _MEMORY_GIB
    return Check(
        "memory", ok, f"{total:.1f} GiB", f"{_MEMORY_GIB} GiB for compilers and guests",
        "" if ok else "give the machine more memory, or build with --jobs 1",
    )  # fmt: skip
