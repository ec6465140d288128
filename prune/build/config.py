"""The kernel configuration: tinyconfig plus fragments, or the user's own, and nothing lost on the way."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from prune.build.source import Source
from prune.model.knowledge import FOLDER, read_toml
from prune.options import read_options
from tracer.host import BuildFailed, UserError, run_program, whole_file

# What kconfig finds out about tools and architecture; nobody asks for it. The exceptions have a prompt.
_PROBED = re.compile(
    r"CONFIG_(?!CC_OPTIMIZE_|GCC_PLUGIN|LD_DEAD_CODE_|ARCH_MEMORY_PROBE|ARCH_MMAP_RND_|RUST_(?:DEBUG|OVERFLOW)_)"
    r"(?:AS|CC|CLANG|GCC|LD|LLD|PAHOLE|RUST|RUSTC|TOOLS|HAVE|ARCH)_"
)
# How it is compiled and linked, which the user chooses.
_COMPILED = re.compile(r"CONFIG_(?:(?:HAS_)?LTO(?:_|$)|CC_OPTIMIZE_)")
# What make and kbuild take from the environment: an input that no key of a build would know, such as
# LLVM=1 of a shell, or the flags of the make that `make demo` is.
_LEFTOVER = re.compile(
    r"(?:KBUILD|KCONFIG|LLVM)_\w+|K(?:C|A|CPP|RUST)FLAGS|ARCH|SUBARCH|CROSS_COMPILE|LLVM|LOCALVERSION|"
    r"(?:C|A|LD)FLAGS_(?:KERNEL|MODULE|vmlinux)|HOST(?:C|CXX|LD)FLAGS|SOURCE_DATE_EPOCH|"
    r"MAKEFLAGS|MFLAGS|GNUMAKEFLAGS|MAKEFILES|MAKELEVEL|KPRUNE_PLAN"
)


def leftovers() -> list[str]:
    """Names in the environment that would change what kbuild does behind kprune's back."""
    return sorted(name for name in os.environ if _LEFTOVER.fullmatch(name))


def options_hash(config: Path) -> str:
    """Hash of what is set in a ``.config`` but for what the compiler, the linker and the way they are used
    decide: two builds of one source with the same hash do the same.

    Raises:
        UserError: unreadable.
    """
    options = {
        key: value
        for key, value in read_options(config).items()
        if value != "n" and not _PROBED.match(key) and not _COMPILED.match(key)
    }
    return hashlib.sha256(_as_text(dict(sorted(options.items()))).encode()).hexdigest()


def make_config(
    source: Source,
    arch: str,
    fragments: Sequence[Path],
    full_config: Path | None,
    tiny_target: str = "tinyconfig",
    more: Sequence[str] = (),
) -> str:
    """The text of the ``.config`` for these inputs, made in a folder of its own.

    Args:
        more: words for make: the toolchain's.

    Raises:
        UserError: an option that was asked for did not survive ``olddefconfig``.
        BuildFailed: kconfig itself failed.
    """
    folder = Path(tempfile.mkdtemp(prefix="kprune-config-"))
    try:
        make = kconfig(source, arch, folder, more)
        config = folder / ".config"
        asked: dict[str, str] = {}
        said = read_options(full_config) if full_config else {}
        if full_config is None:
            run_program([*make, tiny_target], doing="making the kernel configuration", failure=BuildFailed)
        else:
            config.write_text(_as_text(said))
            asked = {k: value for k, value in said.items() if value != "n" and not _PROBED.match(k)}
        for fragment in fragments:
            asked.update(read_options(fragment))
        # conf warns about an option that is set twice, so the fragments replace instead of adding.
        config.write_text(_as_text({**read_options(config), **_by_other_names({**said, **asked}), **asked}))
        run_program([*make, "olddefconfig"], doing="making the kernel configuration", failure=BuildFailed)
        files = [*([full_config] if full_config else []), *fragments]
        _check_survived(asked, read_options(config), files)
        return config.read_text()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def kconfig(source: Source, arch: str, folder: Path, more: Sequence[str]) -> list[str]:
    """The command that makes a ``.config`` in ``folder``, but for the target."""
    clean = [f"--unset={name}" for name in leftovers()]
    words = [*(["env", *clean] if clean else []), "make", "-s", "-C", str(source.path)]
    return [*words, f"O={folder}", f"ARCH={arch}", *more]


def _as_text(options: dict[str, str]) -> str:
    return "".join(f"{k}={v}\n" if v != "n" else f"# {k} is not set\n" for k, v in options.items())


def _renamed() -> dict[str, str]:
    """Option -> what later kernels call it, or earlier ones did."""
    later: dict[str, str] = read_toml(FOLDER / "kbuild.toml")["renamed"]
    return {**later, **{new: old for old, new in later.items()}}


def _by_other_names(said: dict[str, str]) -> dict[str, str]:
    """The same by the names that other kernels have for options, unless these are spoken of, too: kconfig
    passes over names that it does not know."""
    names = ((name, other) for name, other in _renamed().items() if name in said and other not in said)
    return {other: said[name] for name, other in names}


def _check_survived(asked: dict[str, str], got: dict[str, str], fragments: Sequence[Path]) -> None:
    lost = [
        f"{key}={value} became {got.get(key, 'n')}"
        for key, value in asked.items()
        if got.get(key, "n") != value and got.get(_renamed().get(key, key), "n") != value
    ]
    if lost:
        shown = "; ".join(lost[:8]) + (f"; and {len(lost) - 8} more" if len(lost) > 8 else "")
        raise UserError(
            f"making the kernel configuration: {shown} (asked in {', '.join(map(str, fragments))})",
            "this kernel has no such option, or one that it depends on is missing or wins over it",
        )


def write_config(text: str, path: Path) -> None:
    """Write ``.config`` only when it differs: kbuild compares times."""
    if not path.is_file() or path.read_text() != text:
        with whole_file(path) as stream:
            stream.write(text)
