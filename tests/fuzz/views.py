"""Targets: what is asked about a kernel that runs somewhere: its console, its holes, programs on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from prune.commands.decode import load_kernel, read_log, told
from prune.commands.holdout import Held
from prune.commands.soak import table
from prune.folder import Folder
from prune.guests.consoles import compare, read_consoles
from prune.guests.decode import addresses, decode, with_lines
from prune.guests.held_out import KILLED, SAME, Fate, read_holdout, read_programs
from prune.guests.soaked import Soak, read_soak, shown, to_json
from prune.guests.system_map import read_system_map
from prune.report.page import as_script
from prune.security.cves import read_holes
from prune.security.exposure import read_exposure
from tests.fuzz.documents import OOPS, PLAN, STONES, SYMBOLS, dumped, written
from tests.fuzz.harness import ROOT, Target
from tests.fuzz.mutate import of_json, of_text
from tests.unit import pruned_run
from tests.unit.test_soak import NOTHING, SOAK


def _cves(name: str) -> Callable[[bytes, Path], object]:
    def read(data: bytes, folder: Path) -> object:
        holes = read_holes(written(data, folder, name))
        assert all(hole.functions and hole.id.isprintable() for hole in holes)
        # They are joined to a folder: no name may lead out of it.
        named = [each for hole in holes for each in hole.functions if each.file]
        assert all((folder / each.file).resolve().is_relative_to(folder.resolve()) for each in named)
        return holes

    return read


def _holdout(data: bytes, folder: Path) -> object:
    return as_script(read_holdout(written(data, folder, "holdout.json"))[1])


def _exposure(data: bytes, folder: Path) -> object:
    _, shown = read_exposure(written(data, folder, "security.json"))
    return as_script(shown)


def _soak(data: bytes, folder: Path) -> object:
    """The sums for the terminal and for the page, whose script takes no Infinity or NaN for JSON."""
    path = written(data, folder, "soak.json")
    soak = read_soak(path, "base" if b'"base"' in data else "pruned")
    return table(soak), json.dumps(shown([soak]), allow_nan=False), as_script(shown([soak]) or {})


def _decode(data: bytes, folder: Path) -> object:
    """A console log, of a run that is sound; reports, and all that is said of each."""
    path = written(data, folder, "console.log")
    for name, value in _RUN.items():
        written(value.encode(), folder, name)
    kernel = load_kernel(Folder(folder))
    found = decode(read_log(path), kernel)
    assert all(set(addresses([each]).values()) <= {"a.o", "b.o"} for each in found)
    wanted = with_lines(found, {4096: "a.c:1"})
    return [told(each) for each in wanted], [each.miss for each in wanted]


def _consoles(data: bytes, folder: Path) -> object:
    """The console of a pruned kernel, held against a sound one's; what the page shows of it."""
    path = written(data, folder, "console.log")
    said = compare([pruned_run.log("x86_64")] * 3, read_consoles([path]))
    assert max((len(line.text) for line in said.new), default=0) <= 400 and len(said.new) <= 50
    return as_script(asdict(said))


def _system_map(data: bytes, folder: Path) -> object:
    found = read_system_map(written(data, folder, "System.map"))
    return found.around(0xFFFFFFFF81000010), found.names_at(4096), found.has(0), len(found.names)


def _programs(data: bytes, folder: Path) -> object:
    (folder / "files").mkdir(exist_ok=True)
    return read_programs(written(data, folder, "programs.toml"))


_RUN = {
    "plan.json": json.dumps(PLAN), "pruned/tombstones.json": json.dumps(STONES),
    "base/symbols.json": json.dumps(SYMBOLS),
    "pruned/System.map": "00001000 T f\nffffffff81000000 t h\nffffffff81429000 T _etext\n",
}  # fmt: skip
_LOGS = (
    *(pruned_run.log(name).encode() for name in ("x86_64", "i386", "freed")),
    *OOPS,
    pruned_run.without_kallsyms("x86_64", 0x1E000000).encode(),
    b"[    1.0][    T1] kernel BUG at a.c:1!\n"
    b"[    1.0][    C0] int3: 0000 [#2]\n[    1.0][    C0] EIP: 0x2001\n"
    b"<4>[ 1.0] WARNING: CPU: 0 PID: 1 at a.c:2 f+0x1/0x2\nRIP: 0010:h+0x5/0x20\nCall Trace:\n g+0x1/0x8\n",
)
_PROGRAMS = ROOT / "examples" / "holdout" / "programs.toml"
_BRINGS = b"""\
schema_version = 1
memory = "256M"
packages = ["tar"]
omit = ["/usr/share/*"]
files = "files"

[[program]]
name = "a"
command = "/held/a"
timeout = 60
"""
_HELD = Held("ran", "block", 3, 2, (Fate("a", SAME), Fate("b", KILLED, ("f",), ("1", ""))))
_FATES = {
    "schema_version": 1, "build_id": "aa",
    "kernels": [_HELD.to_json()],
}  # fmt: skip
_SOAKS = (SOAK, Soak("base", ("fill",), SOAK.guests[1:]), NOTHING)
_CVES = b"""\
[[cve]]
id = "CVE-2022-0185"
file = "fs/fs_context.c"
functions = ["legacy_parse_param", "net/ipv4/esp4.c:esp_output_head"]
[[cve]]
id = "X-1"
note = "n"
functions = ["f"]
"""
_CVES_CSV = b"""\
cve,function,file,note
CVE-2022-0185,legacy_parse_param,fs/fs_context.c,"a, b"
X-1,f g,,
"""
_KERNEL = {
    "system_calls": {"64": 3}, "gadgets": 4, "indirect_targets": 5, "functions": {"functions": 6, "bytes": 7},
    "reachable": {how: {"functions": 6, "bytes": 7} for how in ("direct", "referred", "pointers")},
}  # fmt: skip
_BEHIND = {"direct": {"functions": 1, "bytes": 2}, "referred": {"functions": 3, "bytes": 4}}
_EXPOSURE = {
    "schema_version": 1, "build_id": {"base": "aa", "pruned": "bb"},
    "kernels": {"base": _KERNEL, "pruned": _KERNEL},
    "system_calls": [
        {"name": "read", "bits": 64, "entry": "__x64_sys_read", "base": _BEHIND, "pruned": _BEHIND},
        {"name": "bpf", "bits": 64, "entry": "__x64_sys_bpf", "base": _BEHIND, "pruned": None},
    ],
    "cves": [{"id": "X", "note": "", "verdict": "several", "functions": [
        {"function": "f", "file": "", "state": "several", "why": "", "pieces": [
            {"symbol": "f", "object": "a.o", "state": "gone", "base": 1, "pruned": 0},
            {"symbol": "f", "object": "b.o", "state": "present", "base": 1, "pruned": 1}]}]}],
}  # fmt: skip

TARGETS = [
    Target("decode", lambda _: _LOGS, _decode, of_text),
    Target("consoles", lambda _: _LOGS, _consoles, of_text),
    Target("system_map", lambda _: [_RUN["pruned/System.map"].encode()], _system_map, of_text),
    Target("programs", lambda _: [_PROGRAMS.read_bytes(), _BRINGS], _programs, of_text),
    Target("holdout", dumped(_FATES), _holdout, of_json),
    Target("soak", dumped(*(to_json(each) for each in _SOAKS)), _soak, of_json),
    Target("cves", lambda _: [_CVES], _cves("cves.toml"), of_text),
    Target("cves_csv", lambda _: [_CVES_CSV], _cves("cves.csv"), of_text),
    Target("security", dumped(_EXPOSURE), _exposure, of_json),
]  # fmt: skip
