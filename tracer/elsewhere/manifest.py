"""The outside of ``collect.sh``'s tar: plain files only, the first of them a manifest of all others.

kprune collect 1
sum md5sum|cksum                which program made the sums
keep-going yes|no
runs R
app N NAME                      in order, from 0
ran N R OUTCOME                 run R of app N, in the order in which they were made
cpus COUNT
file SIZE SUM NAME              of every other file
end SUM                         of all lines before
"""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from tracer.host import UserError
from tracer.outcome import LostEvents

DOING = "reading the collected trace"
OK = "ok"
ROOT = "kprune/"
MANIFEST = f"{ROOT}manifest"
MAX_MEMBER = 1 << 26
MAX_MEMBERS = 1 << 18
_BLOCK = 512
_NAME = re.compile(
    r"kprune/(?:manifest|facts/(?:uname|version|cmdline|config\.gz|notes|functions|symbols)"
    r"|apps/\d{1,6}/(?:name|command|check|ready|host|timeout|client\d{1,6})"
    r"|runs/\d{1,6}\.\d{1,6}/(?:capacity|said|function\d{1,6}))"
)
#: What a pax header may say, for it changes nothing.
_HARMLESS = re.compile(rb"(?:\d+ (?:[amc]time|[ug]id|[ug]name)=[^\n]*\n)*")
_LINES = {
    "app": re.compile(r"(\d{1,6}) ([a-z0-9-]{1,200})"),
    "ran": re.compile(r"(\d{1,6}) (\d{1,6}) (.{1,5000})"),
    "file": re.compile(r"(\d{1,10}) ([0-9a-f]{1,32}) (\S{1,99})"),
    "sum": re.compile(r"(md5sum|cksum)"),
    "keep-going": re.compile(r"(yes|no)"),
    "runs": re.compile(r"(\d{1,6})"),
    "cpus": re.compile(r"(\d{1,6})"),
}
_ONCE = frozenset({"sum", "keep-going", "runs", "cpus"})


def read_members(stream: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every file, in order, until the end mark.

    Raises:
        UserError: a member that collect.sh does not write.
        LostEvents: the tar ends before its end mark, or a header is damaged.
    """
    left = os.fstat(stream.fileno()).st_size
    for _ in range(MAX_MEMBERS):
        header = stream.read(_BLOCK)
        if len(header) < _BLOCK:
            raise LostEvents(f"{DOING}: it is cut short")
        if not any(header):
            return
        name, kind, size = _parse_header(header)
        if size > MAX_MEMBER:
            raise UserError(f"{DOING}: {name[:80]!r} is of {size} bytes; collect.sh writes no such file")
        padded = -(-size // _BLOCK) * _BLOCK
        left -= _BLOCK + padded
        if left < 0:
            raise LostEvents(f"{DOING}: it is cut short in the middle of {name[:80]!r}")
        data = stream.read(padded)[:size]
        if kind == b"5" and not size:
            continue
        if kind in (b"x", b"g") and _HARMLESS.fullmatch(data):
            continue
        if kind not in (b"0", b"\0") or not _NAME.fullmatch(name):
            raise UserError(
                f"{DOING}: it holds {name[:80]!r} of type {kind!r}; collect.sh writes no such file"
            )
        yield name, data
    raise UserError(f"{DOING}: it holds more than {MAX_MEMBERS} files")


def _parse_header(header: bytes) -> tuple[str, bytes, int]:
    """(name, type, size) of a ustar header (POSIX, pax(1))."""
    total = sum(header) - sum(header[148:156]) + 8 * ord(" ")
    if _octal(header[148:156]) != total or header[257:262] != b"ustar":
        raise LostEvents(f"{DOING}: a header of the tar is damaged")
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    full = b"/".join(part for part in (prefix, name) if part)
    return full.decode(errors="replace"), header[156:157], _octal(header[124:136])


def _octal(data: bytes) -> int:
    digits = data.strip(b" \0")
    if not re.fullmatch(rb"[0-7]{1,11}", digits):
        raise LostEvents(f"{DOING}: a header of the tar is damaged")
    return int(digits, 8)


@dataclass
class Manifest:
    """``ran``: (app, run) -> outcome; ``files``: name -> (size, sum)."""

    values: dict[str, str] = field(default_factory=dict)
    apps: list[str] = field(default_factory=list)
    ran: dict[tuple[int, int], str] = field(default_factory=dict)
    files: dict[str, tuple[int, str]] = field(default_factory=dict)

    def take(self, kind: str, found: re.Match[str]) -> bool:
        """Take one line in; whether it is not there already."""
        if kind in _ONCE:
            new = kind not in self.values
            self.values[kind] = found[1]
        elif kind == "app":
            new = int(found[1]) == len(self.apps) and found[2] not in self.apps
            self.apps.append(found[2])
        elif kind == "ran":
            key = (int(found[1]), int(found[2]))
            new = key not in self.ran
            self.ran[key] = found[3]
        else:
            new = found[3] not in self.files
            self.files[found[3]] = (int(found[1]), found[2])
        return new

    @property
    def failed(self) -> list[tuple[int, int]]:
        return [key for key, outcome in self.ran.items() if outcome != OK]

    def complete(self) -> bool:
        """Whether it says all that it must: every run was made, or the last one failed and ended it."""
        if self.values.keys() != _ONCE or not self.apps or not self.ran:
            return False
        made, apps, total = list(self.ran), len(self.apps), len(self.apps) * int(self.values["runs"])
        in_order = all(key == (i % apps, i // apps) for i, key in enumerate(made))
        if self.values["keep-going"] == "no" and self.failed:
            return in_order and self.failed == made[-1:] and len(made) <= total
        return in_order and len(made) == total


def read_manifest(data: bytes) -> Manifest:
    """Raises UserError for another version, LostEvents for damage."""
    lines = data.decode(errors="replace").split("\n")
    if not lines[0].startswith("kprune collect "):
        raise LostEvents(f"{DOING}: the manifest is damaged")
    if lines[0] != "kprune collect 1":
        raise UserError(
            f"{DOING}: it is of another version ({lines[0][:40]!r})", "use this kprune's collect.sh"
        )
    if len(lines) < 3 or lines[-1] or not re.fullmatch(r"end [0-9a-f]{1,32}", lines[-2]):
        raise LostEvents(f"{DOING}: the end of the manifest is lost")
    manifest = Manifest()
    for number, line in enumerate(lines[1:-2], start=2):
        kind, _, rest = line.partition(" ")
        found = _LINES[kind].fullmatch(rest) if kind in _LINES else None
        if not found or not manifest.take(kind, found):
            raise LostEvents(f"{DOING}: line {number} of the manifest is {line[:60]!r}")
    body = data[: data.rindex(b"end ")]
    if "sum" not in manifest.values or checksum(manifest.values["sum"], body) != lines[-2].split()[1]:
        raise LostEvents(f"{DOING}: the manifest is damaged: its checksum differs")
    if not manifest.complete():
        raise LostEvents(f"{DOING}: the manifest does not have all runs")
    return manifest


def checksum(program: str, data: bytes) -> str:
    """What ``md5sum`` or ``cksum`` (POSIX) print for the data, without the rest of their line."""
    if program == "md5sum":
        return hashlib.md5(data, usedforsecurity=False).hexdigest()
    # The CRC of cksum is that of zlib with all bits the other way round, of the data and then its length.
    length = len(data).to_bytes((len(data).bit_length() + 7) // 8, "little")
    reflected = zlib.crc32((data + length).translate(_MIRRORED), 0xFFFFFFFF)
    return str(int(f"{reflected:032b}"[::-1], 2))


_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
