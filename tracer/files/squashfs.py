"""Write a squashfs image, compressed, through the ``sqfstar`` program.

It reads a tar, so device nodes and root's ownership need no root; without time stamps the same input gives
the same bytes.
"""

from __future__ import annotations

import io
import stat
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from tracer.files.newc import Entry, with_parents
from tracer.host import HostError

#: Bytes of a block. The kernel holds some of them, and what it unpacks them with (fs/squashfs/cache.c): the
#: default of 128 KB is for larger machines.
BLOCK = 16384
_TYPES = {
    stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFREG: tarfile.REGTYPE, stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE, stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFIFO: tarfile.FIFOTYPE,
}  # fmt: skip


def write_squashfs(entries: Mapping[str, Entry], path: Path) -> None:
    """Write the image to ``path``, whole or not at all.

    Raises:
        HostError: there is no ``sqfstar``, or it failed.
    """
    made = path.with_name(f"{path.name}.new")
    made.unlink(missing_ok=True)  # it would add to what is there
    command = [
        "sqfstar", "-quiet", "-no-progress", "-no-xattrs", "-comp", "gzip", "-b", str(BLOCK),
        "-all-time", "0", "-mkfs-time", "0", "-root-mode", "755", str(made),
    ]  # fmt: skip
    doing = f"writing the root file system {path}"
    try:
        done = subprocess.run(command, input=_tar(entries), capture_output=True, check=False)
    except FileNotFoundError:
        raise HostError(f"{doing}: sqfstar is not there", "apt-get install squashfs-tools") from None
    if done.returncode:
        raise HostError(f"{doing}: sqfstar: {done.stderr.decode(errors='replace').strip()}")
    made.replace(path)


def _tar(entries: Mapping[str, Entry]) -> bytes:
    stream = io.BytesIO()
    complete = with_parents(entries)
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(complete):
            entry = complete[name]
            member = tarfile.TarInfo(name)
            member.type = _TYPES[stat.S_IFMT(entry.mode)]
            member.mode = stat.S_IMODE(entry.mode)
            member.uid, member.gid = entry.owner
            member.devmajor, member.devminor = entry.device
            if member.type == tarfile.SYMTYPE:
                member.linkname = entry.data.decode()
            elif member.type == tarfile.REGTYPE:
                member.size = len(entry.data)
            archive.addfile(member, io.BytesIO(entry.data))
    return stream.getvalue()
