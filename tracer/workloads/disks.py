"""Disks for the guest's data: made afresh for each guest, in the folder of its run, and gone after it.

What a disk holds at the beginning is an empty file system without anything left to do (ext4 can put its inode
tables off to a thread of the kernel's, which would be at work in some runs and in others not).
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from tracer.host import HostError
from tracer.workloads.workload import Disk, Workload

#: Format -> the program that makes it, with its options; the disk's file comes behind them.
FORMATS = {
    "ext4": (
        "mkfs.ext4",
        "-q",
        "-F",
        "-m",
        "0",
        "-E",
        "lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0",
    ),
}
PACKAGES = {"ext4": "e2fsprogs"}


@contextlib.contextmanager
def made_disks(disks: Sequence[Disk], into: Path) -> Iterator[tuple[Path, ...]]:
    """New disks, as files that are sparse, for the time of the block.

    Raises:
        HostError: the program that makes the file system is not there, or failed.
    """
    paths = tuple(into / f"disk-{number}.img" for number in range(len(disks)))
    try:
        for disk, path in zip(disks, paths, strict=True):
            _make(disk, path)
        yield paths
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def _make(disk: Disk, path: Path) -> None:
    program, *options = FORMATS[disk.format]
    doing = f"making the disk for {disk.mount}, {path}"
    # What only root is likely to have in its path.
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if not found:
        raise HostError(f"{doing}: {program} is not there", f"apt-get install {PACKAGES[disk.format]}")
    try:
        with path.open("wb") as stream:
            stream.truncate(disk.size)
        done = subprocess.run([found, *options, str(path)], capture_output=True, check=False)
    except OSError as error:
        raise HostError(f"{doing}: {error.strerror}") from error
    if done.returncode:
        raise HostError(f"{doing}: {program}: {done.stderr.decode(errors='replace').strip()}")


def disk_words(workload: Workload) -> list[str]:
    """What the kernel's command line tells the agent of the disks: device, format, folder. The kernel numbers
    them in the order of QEMU's command line, that of the root file system being the first if there is one."""
    first = 1 if workload.rootfs.device else 0
    return [
        f"kprune.disk=/dev/vd{chr(ord('a') + first + number)}:{disk.format}:{disk.mount}"
        for number, disk in enumerate(workload.disks)
    ]
