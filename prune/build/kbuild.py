"""Building kernels: out of tree, once per content, with ``kprune-ld`` as the linker from the first object on.

A build lives in ``CACHE/builds/KEY/``: ``obj/`` is kbuild's tree, which stays for relinking; ``artefacts/``
holds what the unpruned build made. The key covers everything that goes in: source, configuration, flags,
tools, and the part of kprune that the unpruned link runs through.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prune.build.build_time import jobs_of
from prune.build.config import make_config, write_config
from prune.build.flags import compiler_flags, kbuild_knowledge, object_flags
from prune.build.make import run_make
from prune.build.modules import module_paths
from prune.build.source import Source
from prune.build.toolchain import Toolchain, find_toolchain
from prune.model.knowledge import CODE, option, read_places
from tracer.host import (
    BuildFailed,
    HostError,
    UserError,
    file_hash,
    read_json,
    say,
    whole_file,
    write_json,
)

SCHEMA = 1
#: The same source and configuration must give the same bytes.
FIXED = {
    "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
    "KBUILD_BUILD_USER": "kprune",
    "KBUILD_BUILD_HOST": "kprune",
    "KBUILD_BUILD_VERSION": "1",
}
#: Where a build says what it is called, below /lib/modules as in vermagic.
RELEASE = "include/config/kernel.release"
#: The folder of the artefacts that has the modules.
MODULES = "modules"
_UNPRUNED = ("vmlinux", "vmlinux.map", "link.json", "System.map", ".config")
_PRUNED = ("vmlinux", "vmlinux.map", "tombstones.json", "kprune.lds", "System.map")


@dataclass(frozen=True)
class KernelBuild:
    """One kernel: ``flavour`` is ``production`` or ``traced``; ``home`` is its folder in the cache."""

    flavour: str
    source: Source
    arch: str
    config: str
    home: Path
    toolchain: Toolchain = field(default_factory=find_toolchain)

    @property
    def module_targets(self) -> tuple[str, ...]:
        """What make has to make for the configuration's modules: () when it has none."""
        return ("modules",) if f"\n{option('modules')}=y\n" in self.config else ()

    @property
    def objtree(self) -> Path:
        return self.home / "obj"

    @property
    def artefacts(self) -> Path:
        return self.home / "artefacts"

    def make(self, *targets: str, jobs: int = 0) -> list[str]:
        """The make command; kbuild rebuilds everything when any of this changes."""
        kbuild = kbuild_knowledge(self.arch)
        return [
            "make", "-C", str(self.source.path), f"O={self.objtree}", f"ARCH={kbuild['arch']}",
            *self.toolchain.make,
            f"LD={_linker(self.home.parent.parent)}", f"KCFLAGS={compiler_flags(self.config)}",
            *object_flags(self.config),
            *(f"{key}={value}" for key, value in FIXED.items()),
            f"-j{jobs or len(os.sched_getaffinity(0))}", *targets,
        ]  # fmt: skip


def linker_wrapper() -> Path:
    """``kprune-ld`` of this installation.

    Raises:
        HostError: it is not installed beside the Python that runs.
    """
    wrapper = Path(sys.executable).with_name("kprune-ld")
    if not wrapper.is_file():
        raise HostError(
            f"looking for kprune-ld: {wrapper} is not there", "pip install the project: make setup"
        )
    return wrapper


def _linker(cache: Path) -> Path:
    """What the builds in the cache call ``LD``: a name that stays the same for every installation of
    kprune, since kbuild rebuilds everything when ``LD=`` changes. It runs the wrapper in $KPRUNE_WRAPPER.
    """
    shim = cache / "bin" / "kprune-ld"
    text = '#!/bin/sh\nexec "${KPRUNE_WRAPPER:-kprune-ld}" "$@"\n'
    if not shim.is_file() or shim.read_text() != text:
        with whole_file(shim) as stream:
            stream.write(text)
        shim.chmod(0o755)
    return shim


def describe_build(
    flavour: str,
    source: Source,
    arch: str,
    fragments: Sequence[Path],
    full_config: Path | None,
    cache: Path,
    toolchain: Toolchain | None = None,
) -> KernelBuild:
    """Make the configuration (or take it from the cache) and say where the kernel is to be built."""
    kbuild = kbuild_knowledge(arch)
    toolchain = toolchain or find_toolchain()
    fragments = [*fragments, *toolchain.fragments]
    tools = " / ".join(toolchain.versions().values())
    made_from = [
        source.content_hash,
        str(source.path),
        arch,
        tools,
        *(_text_hash(path) for path in fragments),
    ]
    made_from.append(_text_hash(full_config) if full_config else "")
    kept = cache / "configs" / f"{_hash(made_from)}.config"
    if not kept.is_file():
        text = make_config(source, kbuild["arch"], fragments, full_config, kbuild["tiny"], toolchain.make)
        write_config(text, kept)
    config = kept.read_text()
    flags = [compiler_flags(config), *object_flags(config)]
    key = _hash([source.content_hash, str(source.path), arch, config, *flags, tools])
    return KernelBuild(flavour, source, arch, config, cache / "builds" / f"{flavour}-{key}", toolchain)


def _hash(parts: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _text_hash(path: Path) -> str:
    try:
        return file_hash(path)
    except OSError as error:
        raise UserError(f"reading kernel configuration {path}: {error.strerror}") from error


def build_kernel(build: KernelBuild, jobs: int = 0, dry_run: bool = False) -> None:
    """Build the kernel, unless it is there.

    Raises:
        BuildFailed: the compiler or the linker failed; the message names the first error and the log.
    """
    image = kbuild_knowledge(build.arch)
    command = build.make(image["target"], "vmlinux", *build.module_targets, jobs=jobs)
    if dry_run:
        print(shlex.join(command))
        return
    with locked(build):
        if _is_built(build):
            return
        write_config(build.config, build.objtree / ".config")
        # Objects of an earlier kprune serve; what its linker wrapper made does not.
        _remove_linked(build)
        say(f"building the {build.flavour} kernel {build.source.version} in {build.home}")
        began = time.monotonic()
        _make(build, command, build.home / "build.log", {})
        seconds = round(time.monotonic() - began, 2)
        _export(build, _UNPRUNED, build.artefacts)
        if build.module_targets:
            export_modules(build, module_paths(build.objtree), build.artefacts / MODULES)
        files = (path for path in build.artefacts.rglob("*") if path.is_file())
        names = sorted(str(path.relative_to(build.artefacts)) for path in files)
        hashes = {name: file_hash(build.artefacts / name) for name in names}
        stamp = {"schema_version": SCHEMA, "linker": _linker_code(), "sha256": hashes}
        took = {"seconds": seconds, "jobs": jobs_of(command)}
        write_json(build.home / "build.json", stamp | {"took": took})


def _is_built(build: KernelBuild) -> bool:
    """Whether artefacts and object tree, which relinks need, are there and of this kprune's making."""
    try:
        found = read_json(build.home / "build.json", "stamp of a build", SCHEMA)
    except UserError:  # None, damaged, or of another kprune: the build makes it anew.
        return False
    hashes = found.get("sha256")
    if found.get("linker") != _linker_code() or not isinstance(hashes, dict):
        return False
    if not (build.objtree / ".config").is_file():
        return False
    if build.module_targets and not any(name.startswith(f"{MODULES}/") for name in hashes):
        return False  # of a kprune that did not build modules
    files = {name: build.artefacts / name for name in hashes}
    return all(path.is_file() and file_hash(path) == hashes[name] for name, path in files.items())


def relink(
    build: KernelBuild,
    plan: Path | None,
    into: Path,
    log: Path,
    *,
    image: bool = True,
    dry_run: bool = False,
    before: Callable[[], None] | None = None,
) -> None:
    """Link the kernel again from the objects of a finished build, pruned by ``plan`` if one is given.

    ``into`` gets vmlinux, its map, tombstones.json, the script and the boot image (``image``). ``before`` is
    called when nobody else uses the object tree any more.

    Raises:
        BuildFailed: the link failed.
    """
    kbuild = kbuild_knowledge(build.arch)
    command = build.make(*([kbuild["target"]] if image else []), "vmlinux")
    if dry_run:
        print(shlex.join(["env", *([f"KPRUNE_PLAN={plan}"] if plan else []), *command]))
        return
    with locked(build):
        if before:
            before()
        _remove_linked(build)
        _make(build, command, log, {"KPRUNE_PLAN": str(plan)} if plan else {})
        _export(build, _PRUNED if plan else _UNPRUNED, into, image)


def _linker_code() -> str:
    """Hash of what an unpruned link runs through."""
    code = [(CODE / "linking" / name).read_text() for name in ("ld.py", "script.py")]
    return _hash([*code, repr(read_places())])


def _remove_linked(build: KernelBuild) -> None:
    image = kbuild_knowledge(build.arch)["image"]
    for name in ("vmlinux", "vmlinux.unstripped", "vmlinux.map", "tombstones.json", image):
        (build.objtree / name).unlink(missing_ok=True)


def _export(build: KernelBuild, names: Sequence[str], into: Path, image: bool = True) -> None:
    """Copy what a build made; a relink removes and remakes the files in the object tree."""
    boot_image = kbuild_knowledge(build.arch)["image"]
    pairs = [(build.objtree / name, into / name) for name in names]
    if image:
        pairs.append((build.objtree / boot_image, into / Path(boot_image).name))
    _copy(build, pairs)


def export_modules(build: KernelBuild, paths: Sequence[str], into: Path) -> None:
    """Copy the modules that a build made, under their paths in the object tree, and its release."""
    shutil.rmtree(into, ignore_errors=True)
    names = [(path, path) for path in (*paths, RELEASE)]
    _copy(build, [(build.objtree / source, into / target) for source, target in names])


def _copy(build: KernelBuild, pairs: Sequence[tuple[Path, Path]]) -> None:
    for source, target in pairs:
        if not source.is_file():
            raise BuildFailed(
                f"building the {build.flavour} kernel: make left no {source}", "is LD=kprune-ld in use?"
            )
        with source.open("rb") as stream, whole_file(target, "wb") as copy:
            shutil.copyfileobj(stream, copy)


def _make(build: KernelBuild, command: Sequence[str], log: Path, extra: Mapping[str, str]) -> None:
    own = {"KPRUNE_WRAPPER": str(linker_wrapper()), "KPRUNE_LD": build.toolchain.real_linker}
    run_make(f"{build.flavour} kernel", command, log, {**own, **extra})


@contextlib.contextmanager
def locked(build: KernelBuild) -> Iterator[None]:
    """One process at a time in a build's folder."""
    try:
        build.home.mkdir(parents=True, exist_ok=True)
        with (build.home / "lock").open("w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"another kprune is at work in {build.home}; waiting")
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise HostError(f"building in {build.home}: {error.strerror or error}", "free some space") from error
