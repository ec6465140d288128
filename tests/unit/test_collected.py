"""The tar of a board: whole and as it was written, or refused; a board can do no harm."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.damage import damaged
from tests.unit.test_imported import folder, kernels
from tests.unit.test_read_trace_stat import table
from tracer.elsewhere.collected import is_collected, read_build_id, read_collected
from tracer.elsewhere.imported import import_collected
from tracer.elsewhere.manifest import checksum
from tracer.elsewhere.matching import Kernels
from tracer.host import KpruneError, UserError, printable
from tracer.outcome import AppFailed, LostEvents

__all__ = ["folder", "kernels"]  # fixtures
NOTES = struct.pack("<3I", 4, 4, 3) + b"GNU\0" + bytes.fromhex("0badcafe")
FILES: Mapping[str, bytes] = {
    "facts/version": b"Linux version 6.1.0\n",
    "facts/notes": NOTES,
    "facts/config.gz": gzip.compress(b"CONFIG_A=y\n", mtime=0),
    "facts/functions": b"schedule\ndo_sys_open\n",
    "apps/0/name": b"ps\n",
    "apps/0/command": b"ps\n",
    "apps/1/name": b"web\n",
    "apps/1/command": b"httpd -f\n",
    "runs/0.0/function0": table([("schedule", 3), ("do_sys_open", 1)]),
    "runs/0.0/function1": table([("schedule", 4)]),
    "runs/0.0/capacity": b"900 pages:4\n",
    "runs/0.0/said": b"\x1b[2Jdone\n",
    "runs/1.0/function0": table([("do_sys_open", 5), ("schedule", 0)]),
    "runs/1.0/function1": table([]),
    "runs/1.0/capacity": b"900 pages:4\n",
}
HEAD = "sum md5sum\nkeep-going {keep}\nruns 1\napp 0 ps\napp 1 web\nran 0 0 ok\n{last}cpus 2\n"
WEB_RAN = "ran 1 0 ok\n"


def manifest(files: Mapping[str, bytes], head: str) -> bytes:
    rows = "".join(f"file {len(d)} {hashlib.md5(d).hexdigest()} {name}\n" for name, d in files.items())
    body = f"kprune collect 1\n{head}{rows}".encode()
    return body + f"end {hashlib.md5(body).hexdigest()}\n".encode()


def pack(members: Mapping[str, bytes | tarfile.TarInfo]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


def board(
    changed: Mapping[str, bytes | None] = {}, *, keep: str = "no", last: str = WEB_RAN, head: str = HEAD
) -> bytes:  # fmt: skip
    """A tar; ``changed`` files are in the manifest as they are, None ones are not there."""
    files = {name: data for name, data in {**FILES, **changed}.items() if data is not None}
    text = head.format(keep=keep, last=last)
    members = {f"kprune/{name}": data for name, data in files.items()}
    return pack({"kprune/manifest": manifest(files, text), **members})


def read(tmp_path: Path, data: bytes) -> object:
    path = tmp_path / "board.tar"
    path.write_bytes(data)
    return read_collected(path)


def test_all_of_it_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "board.tar"
    path.write_bytes(board())
    assert is_collected(path)
    found = read_collected(path)
    assert found.apps == ("ps", "web") and found.facts.build_id == "0badcafe"
    assert found.facts.config == hashlib.sha256(b"CONFIG_A=y\n").hexdigest()
    assert found.facts.functions == {"schedule", "do_sys_open"}
    ps, web = found.runs
    assert {(s.name, s.count) for s in ps.sightings} == {("schedule", 7), ("do_sys_open", 1)}
    assert {(s.name, s.count) for s in web.sightings} == {("do_sys_open", 5)}
    assert ps.said == "?[2Jdone\n"


def test_it_becomes_a_profile(tmp_path: Path, kernels: Kernels) -> None:
    path = tmp_path / "board.tar"
    path.write_bytes(board())
    imported = import_collected(path, kernels)
    profile = imported.profile
    assert (profile.apps, profile.sources, imported.kernel) == (("ps", "web"), ("ftrace",), "another")
    seen = {f.symbol: {(s.app, s.count) for s in f.seen} for f in profile.functions}
    assert seen == {"schedule": {("ps", 7)}, "do_sys_open": {("ps", 1), ("web", 5)}}
    blind = {f.symbol for spot in profile.blind_spots for f in spot.functions}
    assert "leaf" in blind and "schedule" not in blind  # the board said what it can trace
    assert [run.outcome for run in profile.runs] == ["ok"]


def test_an_app_that_failed_ends_it_unless_told(tmp_path: Path) -> None:
    last = "ran 1 0 its command exited with status 9\n"
    with pytest.raises(AppFailed, match="running app web: its command exited with status 9"):
        read(tmp_path, board(last=last))
    runs = read_collected(written(tmp_path, board(keep="yes", last=last))).runs
    assert [run.outcome for run in runs] == ["ok", "its command exited with status 9"]


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "kept.tar"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (board({"runs/0.0/capacity": b"2 pages:1\n"}), "2 rows of at most 2"),
        (board({"runs/1.0/function1": None}), "those of 2 processors are not all"),
        (board(last=""), "does not have all runs"),
        (board(head=HEAD.replace("runs 1", "runs 2")), "does not have all runs"),
        (board().replace(b"schedule ", b"schedulE "), "is damaged"),
        (board().replace(b"app 1 web", b"app 1 wet"), "checksum differs"),
        (board()[:2000], "cut short"),
        (board({"runs/0.0/function0": b"no table\n"}), "heading"),
    ],
)
def test_what_is_lost_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(LostEvents, match=says):
        read(tmp_path, data)


def evil(kind: bytes, name: str, target: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return pack({"kprune/manifest": manifest({}, HEAD.format(keep="no", last=WEB_RAN)), name: info})


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (evil(tarfile.SYMTYPE, "kprune/facts/uname", "/etc/passwd"), "writes no such file"),
        (evil(tarfile.CHRTYPE, "kprune/facts/uname"), "writes no such file"),
        (board({"../../etc/passwd": b"x"}), "writes no such file"),
        (board({"facts/../../x": b"x"}), "writes no such file"),
        (pack({"kprune/facts/uname": b"x"}), "does not begin with a manifest"),
        (b"", "cut short"),
        (pack({"kprune/manifest": b"kprune collect 9\nend 0\n"}), "another version"),
    ],
)
def test_what_the_script_does_not_write_is_refused(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(UserError, match=says):
        read(tmp_path, data)


def test_a_size_that_no_file_has_is_refused_before_it_is_read(tmp_path: Path) -> None:
    header = bytearray(board()[:512])
    header[124:136] = b"77777777777\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(UserError, match="of 8589934591 bytes"):
        read(tmp_path, bytes(header))


@pytest.mark.parametrize("size", range(0, 16 * 1024, 256))
def test_cut_anywhere_is_lost(tmp_path: Path, size: int) -> None:
    with pytest.raises(LostEvents, match="cut short"):
        read(tmp_path, whole()[:size])


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tars_of_every_tool_are_read(tmp_path: Path, format: int) -> None:
    """Folders are members of their own; a pax header may tell times."""
    path = tmp_path / "made.tar"
    with tarfile.open(fileobj=io.BytesIO(whole())) as source, tarfile.open(path, "w", format=format) as made:
        for i, member in enumerate(source):
            if i == 1:
                folder = tarfile.TarInfo("kprune/facts")
                folder.type = tarfile.DIRTYPE
                made.addfile(folder)
            member.mtime = 1.5 if i else 0  # type: ignore[assignment]
            made.addfile(member, source.extractfile(member))
    assert read_collected(path) == read_collected(written(tmp_path, whole()))


def changed(add: Mapping[str, bytes | tarfile.TarInfo], format: int = tarfile.USTAR_FORMAT) -> bytes:
    """The good tar, and then members that are not in its manifest."""
    end = whole().rstrip(b"\0")
    made = io.BytesIO()
    made.write(end + bytes(-len(end) % 512))
    with tarfile.open(fileobj=made, mode="w", format=format) as tar:
        for name, content in add.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            data = content if isinstance(content, bytes) else b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def with_path(path: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo("kprune/facts/uname")
    info.pax_headers = {"path": path}
    return info


@pytest.mark.parametrize(
    ("add", "says"),
    [
        ({"kprune/facts/uname": b"x"}, "is not in its manifest"),
        ({"kprune/facts/version": FILES["facts/version"]}, "twice"),
        ({"kprune/manifest": b"x"}, "is not in its manifest"),
        ({"x": with_path("/etc/passwd")}, "of type b'x'"),
    ],
)
def test_members_that_the_manifest_does_not_know(
    tmp_path: Path, add: Mapping[str, bytes | tarfile.TarInfo], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        read(tmp_path, changed(add, tarfile.PAX_FORMAT))


def test_what_is_kept_is_bounded_not_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many processors have as many rows and no more functions: once, a large machine was refused."""
    monkeypatch.setattr("tracer.elsewhere.collected.MAX_SIGHTINGS", 3)
    read(tmp_path, whole())  # of 4 rows
    monkeypatch.setattr("tracer.elsewhere.collected.MAX_SIGHTINGS", 2)
    with pytest.raises(UserError, match="more than 2 functions of all apps"):
        read(tmp_path, whole())
    monkeypatch.setattr("tracer.elsewhere.collected.MAX_FUNCTIONS", 3)
    with pytest.raises(UserError, match="a table of more than 3 functions"):
        read(tmp_path, whole())


def test_a_long_outcome_is_no_damage(tmp_path: Path) -> None:
    """The status of a host command names its log, whose path may be long."""
    last = f"ran 1 0 its use from outside failed: see /{'long/' * 300}log\n"
    assert len(read_collected(written(tmp_path, board(keep="yes", last=last))).runs[1].outcome) > 1500


@cache
def whole() -> bytes:
    return board()


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_damage_never_gives_a_profile_that_lacks_something(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.tar"
    path.write_bytes(data.draw(damaged(whole())))
    try:
        found = read_collected(path)
    except KpruneError as error:
        assert str(error) and "\n" not in str(error)
    else:
        good = path.with_name("good.tar")
        good.write_bytes(whole())
        assert found == read_collected(good)


@given(st.binary(max_size=300))
def test_the_sum_is_that_of_the_tools(data: bytes) -> None:
    assert checksum("md5sum", data) == hashlib.md5(data).hexdigest()
    assert checksum("cksum", data).isdigit()


def test_cksum_is_that_of_posix() -> None:
    """The values are what cksum of coreutils prints."""
    assert checksum("cksum", b"") == "4294967295"
    assert checksum("cksum", b"123456789") == "930766865"


@given(st.binary(max_size=200))
def test_notes_of_any_bytes_are_survived(data: bytes) -> None:
    assert read_build_id(data + NOTES) in ("", "0badcafe") or read_build_id(data)


def test_a_terminal_is_safe() -> None:
    assert printable(b"a\x1b]0;x\x07\xff\n") == "a?]0;x?\ufffd\n"
