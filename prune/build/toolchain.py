"""With which compiler, linker and optimisation a kernel is built: rows of ``linkerscripts/kbuild.toml``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from prune.model.knowledge import FOLDER, read_toml
from tracer.host import UserError, run_program

TOOLCHAINS = ("gcc", "clang")
_NAME = re.compile(rf"({'|'.join(TOOLCHAINS)})(-[1-9][0-9]?)?")
LTO = ("none", "thin", "full")
#: What the configuration says; for size; for speed.
OPTIMISATIONS = ("config", "s", "2")


@dataclass(frozen=True)
class Toolchain:
    """``make``: words for every make; ``linker``: the program behind kprune-ld; ``tools``: what must be
    there; ``fragments``: of the configuration."""

    name: str
    lto: str
    opt: str
    make: tuple[str, ...]
    linker: str
    tools: tuple[str, ...]
    fragments: tuple[Path, ...]

    def __str__(self) -> str:
        words = [self.name, *([f"{self.lto} LTO"] if self.lto != "none" else [])]
        return " ".join([*words, *([f"-O{self.opt}"] if self.opt != "config" else [])])

    @property
    def real_linker(self) -> str:
        """The user's own choice first."""
        return os.environ.get("KPRUNE_LD", self.linker)

    def versions(self) -> dict[str, str]:
        """Tool -> the first line of what it says to ``--version``."""
        names = {
            **{tool: self.real_linker if tool == self.linker else tool for tool in self.tools}, "make": "make"
        }  # fmt: skip
        return {label: version_of(tool) for label, tool in names.items()}


def version_of(tool: str) -> str:
    """The first line of what a tool says to ``--version``.

    Raises:
        HostError: it is not there.
    """
    return run_program([tool, "--version"], doing=f"asking {tool} for its version").splitlines()[0]


def toolchain_name(text: str) -> str:
    """A compiler, or one of its versions as Debian's packages call them: ``clang``, ``clang-19``.

    Raises:
        ValueError: nothing of the kind.
    """
    if not _NAME.fullmatch(text):
        raise ValueError(f"{text} is neither of {' and '.join(TOOLCHAINS)} nor a version such as clang-19")
    return text


def find_toolchain(name: str = "gcc", lto: str = "none", opt: str = "config") -> Toolchain:
    """A toolchain by its names.

    Raises:
        UserError: it has no LTO, or there is nothing of that name.
    """
    known = read_toml(FOLDER / "kbuild.toml")
    found = _NAME.fullmatch(name)
    if not found:
        raise UserError(f"building with {name}: not supported", f"--toolchain of {', '.join(TOOLCHAINS)}")
    row, version = known["toolchain"][found[1]], found[2] or ""
    if lto not in row["lto"]:
        raise UserError(
            f"building with {name} and LTO {lto}: the kernel supports that with clang alone",
            "--toolchain clang",
        )
    files = [*row["lto"][lto], *known["optimisation"][opt]]

    def words(key: str) -> tuple[str, ...]:
        return tuple(word.format(version=version) for word in row[key])

    return Toolchain(
        name, lto, opt, words("versioned" if version else "make"), row["linker"].format(version=version),
        words("tools"), tuple(FOLDER / file for file in files),
    )  # fmt: skip
