"""The kernel source: a tree, a tarball, or a package of Debian's by name or file. It is never written to."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tracer.host import HostError, UserError, file_hash, run_program, say, whole_file

DEBIAN_PACKAGE = "linux-source-6.1"
#: Older kernels were never tried; of later ones everything is probed.
_OLDEST = 6
INSTALLED = Path("/usr/src")
#: What a package of the source has in /usr/src.
_TARBALL = "linux-source-*.tar.*"
_PACKAGE = re.compile(r"linux-source-[0-9]+\.[0-9]+")
_UNPACKERS = {".xz": "xz", ".gz": "gzip", ".tgz": "gzip", ".bz2": "bzip2", ".zst": "zstd", ".tar": "tar"}
# Of what tar says when it fails: the machine's fault, not the tarball's.
_MACHINE = re.compile(
    r"No space left|Wrote only|Read-only file|quota|Permission denied|Cannot allocate|Input/output"
)


@dataclass(frozen=True)
class Source:
    """A kernel tree, its version ("6.1.192") and the hash of its content."""

    path: Path
    version: str
    content_hash: str


def resolve_source(kernel: Path | None, cache: Path) -> Source:
    """Find the kernel source, unpacking or fetching it into the cache when needed.

    Args:
        kernel: a tree, a tarball, a .deb that holds one, or the name of Debian's; None for Debian's 6.1.

    Raises:
        UserError: not a clean tree of Linux 6.0 or later.
        HostError: Debian's package cannot be fetched, or the disk is full.
    """
    if kernel is None or is_package(kernel):
        package = kernel.name if kernel else DEBIAN_PACKAGE
        installed = INSTALLED / f"{package}.tar.xz"
        kernel = installed if installed.is_file() else _fetch(package, cache)
    if kernel.is_dir():
        return Source(kernel.absolute(), tree_version(kernel), _tree_hash(kernel.absolute(), cache))
    if not kernel.is_file():
        raise UserError(f"looking for the kernel source: {kernel} does not exist")
    tarball = _tarball_of(kernel, cache) if kernel.suffix == ".deb" else kernel
    digest = file_hash(tarball)
    tree = _unpack(tarball, digest, cache)
    return Source(tree, tree_version(tree), digest)


def is_package(kernel: Path) -> bool:
    """Whether it is the name of one of Debian's source packages, and no file or folder."""
    return bool(_PACKAGE.fullmatch(str(kernel))) and not kernel.exists()


def tree_version(tree: Path) -> str:
    """The version that the top Makefile states.

    Raises:
        UserError: no Linux tree, one from before 6.0, or a tree that was built in.
    """
    try:
        text = (tree / "Makefile").read_text(errors="replace")
    except OSError:
        text = ""
    parts = {
        key: re.search(rf"^{key} = *(\S*)$", text, re.M) for key in ("VERSION", "PATCHLEVEL", "SUBLEVEL")
    }
    if not (tree / "Kconfig").is_file() or parts["VERSION"] is None:
        raise UserError(f"reading the kernel source: {tree} is not a Linux tree")
    version = ".".join(found[1] for found in parts.values() if found)
    if not parts["VERSION"][1].isdigit() or int(parts["VERSION"][1]) < _OLDEST:
        raise UserError(
            f"reading the kernel source: {tree} is Linux {version}", f"kprune supports {_OLDEST}.0 and later"
        )
    if (tree / ".config").exists() or (tree / "include" / "config").exists():
        raise UserError(
            f"reading the kernel source: {tree} was built in, which kbuild refuses for O= builds",
            f"make -C {tree} mrproper, or give a copy",
        )
    return version


def _fetch(package: str, cache: Path) -> Path:
    """The tarball of Debian's source package, out of its .deb, in the cache: works without root."""
    home = cache / "debian"
    found = home / "unpacked" / "usr" / "src" / f"{package}.tar.xz"
    if found.is_file():
        return found
    say(f"fetching {package} (140 MB) from Debian ...")
    home.mkdir(parents=True, exist_ok=True)
    try:
        run_program(["apt-get", "download", package], doing=f"fetching {package}", cwd=home)
    except HostError as error:
        raise HostError(str(error), "apt-get update (as root) and try again, or give --kernel") from error
    archive = max(home.glob(f"{package}_*.deb"), key=lambda path: path.stat().st_mtime)
    if _take_tarball(archive, found.parent) != found:
        raise HostError(f"fetching {package}: {archive.name} holds no {found.name}", "give --kernel")
    return found


def _tarball_of(archive: Path, cache: Path) -> Path:
    """The tarball in a .deb of the user's, in the cache.

    Raises:
        UserError: there is none, or the file is damaged.
    """
    home = cache / "debian" / "unpacked" / file_hash(archive)[:12]
    try:
        found = next(home.glob(_TARBALL), None) or _take_tarball(archive, home)
    except HostError as error:
        raise UserError(str(error), "is the package whole?") from error
    if found is None:
        raise UserError(
            f"reading the kernel source: {archive} holds no {_TARBALL}", "known: linux-source-*.deb"
        )
    return found


def _take_tarball(archive: Path, into: Path) -> Path | None:
    """Put the tarball that a Debian package has, whatever the package's file is called, into a folder."""
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=into) as temporary:
        run_program(["dpkg-deb", "-x", archive, temporary], doing=f"unpacking {archive.name}")
        tarball = next((Path(temporary) / "usr" / "src").glob(_TARBALL), None)
        return tarball and tarball.rename(into / tarball.name)


def _unpack(tarball: Path, digest: str, cache: Path) -> Path:
    """The tree of a tarball, unpacked once per content.

    Raises:
        UserError: no tarball, a damaged one, or one without a kernel.
        HostError: its decompressor is missing, or the disk is full.
    """
    unpacker = _UNPACKERS.get(tarball.suffix)
    if unpacker is None:
        raise UserError(
            f"reading the kernel source: {tarball} is no tarball", f"known: {' '.join(_UNPACKERS)}"
        )
    if shutil.which(unpacker) is None:
        raise HostError(f"unpacking {tarball}: {unpacker} is not there", "install it, or give a folder")
    home = cache / "src" / f"{tarball.name.partition('.tar')[0]}-{digest[:12]}"
    if not home.is_dir():
        say(f"unpacking {tarball} ...")
        home.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=home.parent))
        try:
            # In English, since what it says is read below.
            command: list[str | Path] = ["tar", "-xf", tarball, "-C", temporary]
            run_program(command, doing=f"unpacking {tarball}", env={"LC_ALL": "C"})
            _settle(temporary, home)
        except HostError as error:
            if _MACHINE.search(str(error)):
                raise
            raise UserError(str(error), "is the tarball whole?") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    trees = [path.parent for path in (home / "Kconfig", *home.glob("*/Kconfig")) if path.is_file()]
    if len(trees) != 1:
        raise UserError(f"reading the kernel source: {tarball} holds no Linux tree")
    return trees[0]


def _settle(temporary: Path, home: Path) -> None:
    """Rename into place; another kprune that was faster has put the same content there."""
    try:
        temporary.rename(home)
    except OSError:
        if not home.is_dir():
            raise


def _read_index(path: Path) -> dict[str, list[object]]:
    """Path -> [size, mtime_ns, inode, hash]; empty when there is none, or a damaged one."""
    try:
        index = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    rows = index.values() if isinstance(index, dict) else [None]
    return index if all(isinstance(row, list) and len(row) == 4 for row in rows) else {}


def _content(path: Path, mode: int) -> str:
    if stat.S_ISLNK(mode):
        return str(path.readlink())
    # A fifo or socket that somebody left there would block the reader.
    return file_hash(path) if stat.S_ISREG(mode) else "special"


def _tree_hash(tree: Path, cache: Path) -> str:
    """Hash of a tree's content. As git does, a file of the same size, time and inode is not read again."""
    index_file = cache / "index" / f"{hashlib.sha256(str(tree).encode()).hexdigest()[:16]}.json"
    index = _read_index(index_file)
    if not index:
        say(f"hashing {tree} ...")
    fresh: dict[str, list[object]] = {}
    digest = hashlib.sha256()
    for folder, folders, files in os.walk(tree):
        folders[:] = sorted(name for name in folders if name != ".git")
        for name in sorted(files):
            path = Path(folder) / name
            status = path.lstat()
            stat_key = [status.st_size, status.st_mtime_ns, status.st_ino]
            key = str(path.relative_to(tree))
            known = index.get(key)
            if known is None or known[:3] != stat_key:
                known = [*stat_key, _content(path, status.st_mode)]
            fresh[key] = known
            digest.update(f"{key}\0{known[3]}\0{status.st_mode & 0o111}\n".encode())
    if fresh != index:
        with whole_file(index_file) as stream:
            json.dump(fresh, stream)
    return digest.hexdigest()
