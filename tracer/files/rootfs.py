"""Build the guest's root file system: a newc archive that the kernel unpacks and runs, or a disk.

Layers, later ones win: folders and device nodes, busybox and its links, Debian packages, the user's
files, the agent with the apps' scripts. The tree is merged-usr (``/bin`` is a link to ``usr/bin``), so that
packages from before and after Debian's merge land in the same place.
"""

from __future__ import annotations

import io
import re
import stat
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from threading import Lock

from tracer.files.debian import fetch_packages, host_architecture
from tracer.files.modules import module_tree
from tracer.files.newc import Entry, character_device, directory, regular, symlink, write_newc
from tracer.files.romfs import write_romfs
from tracer.files.squashfs import write_squashfs
from tracer.host import HostError, KpruneError, UserError, whole_file
from tracer.machines.machine import MachineKind, machine_kind
from tracer.workloads.workload import AGENT, App, Workload

BUSYBOX = Path("/bin/busybox")
#: The disk of the machine (tracer/machines/qemu.py), as its kernel names it.
DISK = "/dev/vda"
MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
#: Scripts of an app in the guest, in ``/kprune/app.N``.
COMMAND, READY, CHECK, CLIENT = "command", "ready", "check", "client"

#: Strings of names, one behind the other, and an empty one.
_NAMES = re.compile(rb"(?:[!-.0-~]{1,31}\0)+\0")

Tree = dict[str, Entry]


def build_root(workload: Workload, into: Path, cache: Path, more: Mapping[str, Entry] | None = None) -> Path:
    """Write ``into/initrd.cpio``, or the disk that the workload asks for, and return its path. ``cache`` is
    where downloaded packages stay, ``more`` what is in the tree besides.

    Raises:
        HostError: no static busybox, or a package cannot be fetched or unpacked.
        UserError: a file of the workload cannot be read, or collides with the tree, or all of it does not fit
            into the guests' memory.
    """
    kind = machine_kind(workload.arch)
    tree: Tree = {}
    tree.update(base_tree())
    source, busybox = read_busybox(workload, kind, cache)
    if workload.rootfs.busybox:
        tree.update(busybox_links(source, busybox))
    for deb in fetch_packages(workload.rootfs.packages, kind.debian, cache):
        files = package_tree(deb) if workload.rootfs.owners else _of_root(package_tree(deb))
        tree |= {name: entry for name, entry in files.items() if not _omitted(name, workload.rootfs.omit)}
    tree.setdefault("usr/bin/sh", symlink("/kprune/busybox"))
    if workload.rootfs.modules:  # as the kernel calls it (CONFIG_MODPROBE_PATH)
        tree.setdefault("usr/sbin/modprobe", symlink("/kprune/busybox"))
    tree.update(user_tree(workload))
    tree["kprune/busybox"] = regular(busybox, 0o755)
    tree["init"] = regular(AGENT.read_bytes(), 0o755)
    for number, app in enumerate(workload.apps):
        tree.update(app_scripts(number, app))
    tree.update(more or {})
    for disk in workload.disks:  # on a root file system that is read-only, the agent cannot make it
        tree.setdefault(merged_name(disk.mount), directory())
    if workload.rootfs.device:
        tree.update(ports())
    made = write_root(tree, workload.rootfs.device, into)
    size, memory = made.stat().st_size, workload.machine.memory
    if size >= memory and not workload.rootfs.device:
        raise UserError(
            f"making the root file system: {size >> 20} MiB, for guests of {memory >> 20} MiB",
            "give them more memory, or leave out some of the packages' files (omit)",
        )
    return made


class Roots:
    """The root file system for each kernel: one for all, but where the workload ships modules, which each
    kernel has of its own. Made when it is first asked for, by whichever thread."""

    def __init__(
        self, workload: Workload, into: Path, cache: Path, more: Mapping[str, Entry] | None = None
    ) -> None:
        self._workload, self._into, self._cache, self._more = workload, into, cache, more
        self._made: dict[Path, Path] = {}
        self._lock = Lock()

    def of(self, kernel: Path) -> Path:
        """That for the kernel whose boot image this is; raises what :func:`build_root` does."""
        modular = bool(self._workload.rootfs.modules)
        folder = kernel.absolute().parent if modular else Path()
        with self._lock:
            if folder not in self._made:
                into = self._into / f"root-{len(self._made)}" if modular else self._into
                more = {**module_tree(kernel), **(self._more or {})} if modular else self._more
                self._made[folder] = build_root(self._workload, into, self._cache, more)
            return self._made[folder]


def write_root(tree: Tree, device: str, into: Path) -> Path:
    """The tree as a file of the format ``device``, or as an initial RAM file system; its path."""
    path = into / (f"root.{device}" if device else "initrd.cpio")
    if device == "squashfs":
        into.mkdir(parents=True, exist_ok=True)
        write_squashfs(tree, path)
        return path
    with whole_file(path, "wb") as stream:
        stream.write(write_romfs(tree) if device == "romfs" else write_newc(tree))
    return path


def root_words(device: str) -> list[str]:
    """What the kernel's command line says of the root file system."""
    return [f"root={DISK}", "ro", f"rootfstype={device}", "init=/init"] if device else []


def ports() -> Tree:
    """The nodes that the agent would make for a kernel without devtmpfs, if it could write to the disk."""
    nodes = {"zero": (1, 5), "ttyS0": (4, 64), "ttyS1": (4, 65)}
    return {f"dev/{name}": character_device(*numbers) for name, numbers in nodes.items()}


def _omitted(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(f"/{name}", pattern) for pattern in patterns)


def base_tree() -> Tree:
    folders = ("dev", "etc", "proc", "root", "run", "sys", "tmp", "var", "usr/bin", "usr/sbin", "usr/lib")
    tree = {name: directory() for name in folders}
    tree["tmp"] = directory(0o1777)
    tree["root"] = directory(0o700)
    for name in MERGED:
        tree[name] = symlink(f"usr/{name}")
        tree[f"usr/{name}"] = directory()
    tree["dev/console"] = character_device(5, 1)
    tree["dev/null"] = character_device(1, 3, 0o666)
    tree["etc/passwd"] = regular(b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
    tree["etc/group"] = regular(b"root:x:0:\nnogroup:x:65534:\n")
    tree["etc/hosts"] = regular(b"127.0.0.1 localhost\n")
    return tree


def read_busybox(workload: Workload, kind: MachineKind, cache: Path) -> tuple[Path, bytes]:
    """The busybox of the guest, which must run without libraries, and where it is from: the workload's own,
    the host's, or that of Debian for another architecture than the host's.

    Raises:
        HostError: it is missing, or not static.
        UserError: the workload's own is missing, not static, or for another architecture.
    """
    own = workload.rootfs.own_busybox
    wrong: type[KpruneError] = HostError
    if own:
        source, remedy = own, "build it with CONFIG_STATIC=y for the guest"
        wrong = UserError
    elif kind.debian == host_architecture():
        source, remedy = BUSYBOX, "apt-get install busybox-static"
    else:
        found = fetch_packages(("busybox-static",), kind.debian, cache, alone=True)
        if len(found) != 1:
            raise HostError(f"fetching busybox-static for {kind.debian}: apt knows {len(found)} of them")
        source, remedy = found[0], f"delete {found[0]}"
    doing = f"building the root file system: {source}"
    if source.suffix == ".deb":
        entry = package_tree(source).get("usr/bin/busybox")
        data = entry.data if entry else b""
    else:
        try:
            data = source.read_bytes()
        except OSError as error:
            raise wrong(f"{doing}: {error.strerror}", remedy) from error
    # A program that names an ELF interpreter is not static.
    if data[:4] != b"\x7fELF" or b"/ld-linux" in data[:4096] or b"/ld-musl" in data[:4096]:
        raise wrong(f"{doing} is not statically linked", remedy)
    if int.from_bytes(data[18:20], "little") != kind.elf:
        raise wrong(f"{doing} is not for {kind.arch}", remedy)
    return source, data


def busybox_links(source: Path, busybox: bytes) -> Tree:
    """A link for each applet. A program of the guest's cannot be asked for them here, so they are read: they
    lie in it one behind the other, in order (``applet_names`` in busybox's include/applet_tables.h).

    Raises:
        HostError: they are not found.
    """
    for table in _NAMES.finditer(busybox):
        names = table[0].rstrip(b"\0").decode().split("\0")
        # The string before the first is none of theirs, unless by chance it is in order, too.
        first = max((i for i in range(1, len(names)) if names[i - 1] >= names[i]), default=0)
        if "sh" in names[first:]:
            return {f"usr/bin/{applet}": symlink("/kprune/busybox") for applet in names[first:]}
    raise HostError(f"building the root file system: {source} has no list of its applets")


def user_tree(workload: Workload) -> Tree:
    tree: Tree = {}
    for file in workload.rootfs.files:
        try:
            data = file.source.read_bytes()
        except OSError as error:
            raise UserError(f"building the root file system: {file.source}: {error.strerror}") from error
        tree[merged_name(file.target)] = regular(data, file.mode)
    return tree


def app_scripts(number: int, app: App) -> Tree:
    scripts = {COMMAND: app.command, READY: app.ready, CHECK: app.check}
    scripts |= {f"{CLIENT}{i}": line for i, line in enumerate(app.client)}
    folder = f"kprune/app.{number}"
    return {f"{folder}/{name}": regular(f"{text}\n".encode()) for name, text in scripts.items() if text}


def package_tree(deb: Path) -> Tree:
    """The files of a ``.deb``. Read as a tar stream: modes, owners and links without being root."""
    try:
        done = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(deb)], capture_output=True, check=False)
        if done.returncode:
            raise HostError(f"unpacking {deb}: {done.stderr.decode(errors='replace').strip()}")
        tree: Tree = {}
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            for member in archive:
                name = merged_name(member.name)
                if name and name not in MERGED:
                    tree[name] = _from_member(archive, member)
    except (OSError, tarfile.TarError, KeyError, ValueError) as error:
        raise HostError(f"unpacking {deb}: {error}", "delete the file and run again") from error
    return tree


def _of_root(tree: Tree) -> Tree:
    return {
        name: replace(entry, owner=(0, 0), mode=entry.mode & ~(stat.S_ISUID | stat.S_ISGID))
        for name, entry in tree.items()
    }


def _from_member(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Entry:
    owner = (member.uid, member.gid)
    if member.isdir():
        return Entry(stat.S_IFDIR | member.mode, owner=owner)
    if member.issym():
        return symlink(member.linkname)
    if member.ischr():
        return Entry(stat.S_IFCHR | member.mode, device=(member.devmajor, member.devminor), owner=owner)
    # A hard link's content is that of the member it names.
    content = archive.extractfile(member)
    return Entry(stat.S_IFREG | member.mode, content.read() if content else b"", owner=owner)


def merged_name(path: str) -> str:
    """The path in the archive of a guest path: relative, and below usr/ where the tree is merged."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise HostError(f"building the root file system: {path!r} leads out of it")
    if len(parts) > 1 and parts[0] in MERGED:
        parts.insert(0, "usr")
    return "/".join(parts)
