"""Targets: what kprune itself writes, when somebody else has written it; what users write; consoles."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from prune.cmd_compare import compare, group_by, read_kernel, table
from prune.cmd_decode import load_kernel, read_log, told
from prune.cmd_ledger import read_units
from prune.cves import read_holes
from prune.decode import addresses, decode, with_lines
from prune.exposure import read_exposure
from prune.folder import Folder
from prune.graveyard import read_graveyard
from prune.grid_page import write_grid_page
from prune.heal import Healed, add_misses, healed_profile, load_healed, save_healed
from prune.held_out import read_programs
from prune.memory import of_console
from prune.misses import executed_blocks, find_answered, find_misses
from prune.options import read_options
from prune.page import as_script
from prune.plan_file import Plan, load_plan, save_plan
from prune.recorded import read_last_link, redirected
from prune.results import validation
from prune.rules import read_rules
from prune.settings import Settings, load_settings
from prune.system_map import read_system_map
from prune.verify_answers import read_option, read_planned
from prune.verify_read import read_blocks, read_fates, read_ran, read_stones, read_trimmed
from tests.fuzz.harness import ROOT, Target
from tests.fuzz.mutate import of_json, of_text
from tests.page.made_up_grid import made_up_grid
from tests.unit import pruned_run, test_misses, test_tracer_workload
from tests.unit.test_bench import ARGV
from tests.unit.test_tracer_profile import PROFILE
from tracer.algebra import merge
from tracer.host import UserError
from tracer.load import read_load
from tracer.outcome import console_end, panic_headline
from tracer.profile import KernelId, load_profile, save_profile, to_json
from tracer.saturation import saturation
from tracer.stale import accept, carry_over
from tracer.symbols import load_symbols, make_symbols
from tracer.workload import App
from tracer.workload_file import load_workload

_SYMBOLS = {
    "schema_version": 3, "kernel": "production", "build_id": "aa", "config": "c", "source": "s",
    "options": "", "version": "6.1", "files": {"net/a.o": "01"},
    "functions": [[4096, 16, "net/a.o", ".text.f", "f", True], [4112, 0, "net/a.o", ".text.g", "g", False]],
}  # fmt: skip
_PLAN = {
    "schema_version": 4, "arch": "x86_64", "build_id": "aa", "width": "ran", "unused_rules": ["x*"],
    "named": False, "objects": {"a.o": "01", "b.o": "02"},
    "columns": ["object", "section", "size", "fate", "reason"],
    "pieces": [["a.o", ".init.text", [[".init.text.f", 0, 8], [".init.text.g", 8, 8]]]],
    "cold": [["b.o", ".text.h", [[4, 8], [12, 16]]]],
    "answers": [["a.o", ".init.text.g", "g", "return", -25, "-ENOTTY", "ioctl"]],
    "units": [
        ["a.o", ".init.text.f", 8, "boot", "ran: web"], ["a.o", ".init.text.g", 8, "drop", ""],
        ["b.o", ".text.h", 32, "keep", "root: x"],
    ],
}  # fmt: skip
_STONES = {
    "schema_version": 4, "start": 4096,
    "tombstones": [
        {"symbol": "gone", "object": "a.o", "section": ".text.gone", "names": ["gone", "away"],
         "address": 4096, "size": 1, "answer": ""},
        {"symbol": "dump", "object": "x.o", "section": ".text.dump", "names": ["dump"],
         "address": 0xFFFFFFFF810E6D08, "size": 9, "answer": "-ENOTTY"},
    ],
    "freed": [{"symbol": "f", "object": "a.o", "section": ".init.text.f", "placed": "x", "size": 8,
               "address": 8192}],
    "trimmed": [{"symbol": "h", "object": "b.o", "section": ".text.h", "placed": ".text.h", "address": 12288,
                 "traps": [[4, 4], [5, 12]]}],
}  # fmt: skip
_HEALED = (
    Healed("f", "a.o", ".text.f", "caller", "boot", 2, 1),
    Healed("g", "a.o", ".text.g", "", "web", 1, 2, 4),
)
_BOOTS = {
    "schema_version": 1, "boots": 2, "passed": 1, "repeated": 0, "misses": [], "answered": [],
    "each": [{"number": 1, "variation": "none", "seconds": 2.5, "problem": "", "misses": []}],
}  # fmt: skip
_LEDGER = {
    "schema_version": 0,
    "columns": "object section symbol output kind base pruned reason removed_by resident".split(),
    "rows": [
        ["a.o", ".text.f", "f", ".text", "text", 16, 16, "ran: web", "", True],
        ["a.o", ".text.g", "g", ".text", "text", 16, 0, "", "never ran", False],
    ],
}  # fmt: skip


def _dumped(*values: Any) -> Callable[[Path], list[bytes]]:
    return lambda _: [json.dumps(value).encode() for value in values]


def _file(data: bytes, folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _profile(data: bytes, folder: Path) -> object:
    """Read, written, joined with another, carried to another build; and as verify reads it."""
    path = _file(data, folder, "profile.json")
    read_ran(path)
    read_blocks(path)
    found = load_profile(path)
    save_profile(found, folder / "again.json")
    assert load_profile(folder / "again.json") == found
    symbols = make_symbols("production", "zz", _SYMBOLS["functions"])  # type: ignore[arg-type]
    carry_over(found, symbols)
    saturation(found)
    return accept(replace(found, kernel=PROFILE.kernel, moved_from=()), symbols, True, "reading"), merge(
        [found, PROFILE]
    )


def _plan(data: bytes, folder: Path) -> object:
    path = _file(data, folder, "plan.json")
    read_fates(path)
    read_planned(path)
    plan: Plan = load_plan(path)
    save_plan(plan, folder / "again.json")
    return load_plan(folder / "again.json")


def _tombstones(data: bytes, folder: Path) -> object:
    path = _file(data, folder, "tombstones.json")
    fates = read_fates(_file(json.dumps(_PLAN).encode(), folder, "plan.json"))
    graves = read_graveyard(path)
    log = executed_blocks(test_misses.LOG)
    missed = find_misses(graves, log, test_misses.OOPS, ((0, "boot"),)), find_answered(graves, log)
    return str(missed), graves.range, read_stones(path), read_trimmed(path, fates)


def _heal(data: bytes, folder: Path) -> object:
    healed = load_healed(_file(data, folder, "heal.json"), "aa")
    made = healed_profile(add_misses(healed, []), KernelId("aa", "", "", ""), {})
    save_profile(made, folder / "profile.json")
    return load_profile(folder / "profile.json")


def _healed(folder: Path) -> list[bytes]:
    save_healed(_HEALED, folder / "heal.json", "aa")
    return [(folder / "heal.json").read_bytes()]


def _settings(data: bytes, folder: Path) -> object:
    _file(data, folder, "run.json")
    found = load_settings(folder)
    return found.needs_traced, found.traces_on_traced, json.dumps(str(found))


def _begun(folder: Path) -> list[bytes]:
    Settings(Path("/w"), folder).save()
    return [(folder / "run.json").read_bytes()]


def _symbols(data: bytes, folder: Path) -> object:
    found = load_symbols(_file(data, folder, "symbols.json"), "production")
    return carry_over(PROFILE, found)


def _link(data: bytes, folder: Path) -> object:
    found = read_last_link(_file(data, folder, "link.json"))
    return found.generates_code, redirected(found.argv, Path("out"))


def _results(data: bytes, folder: Path) -> object:
    _file(data, folder, "boots.json")
    return validation(Folder(folder))


def _ledger(data: bytes, folder: Path) -> object:
    from prune.ledger import SCHEMA

    value = data.replace(b'"schema_version": 0', b'"schema_version": %d' % SCHEMA)
    items = read_kernel(_file(value, folder, "ledger.json").parent)
    for side in ("base", "pruned"):
        read_units(folder, side, resident=True)
    return [
        table(compare(items, items[:1], group_by(what, 2)), what, 5) for what in ("function", "directory")
    ]


def _grid(data: bytes, folder: Path) -> object:
    _file(data, folder, "grid.json")
    write_grid_page(folder)
    page = (folder / "report.html").read_text()
    head = page.partition('type="application/json"')[2]
    assert head.count("</script") == page.count("<script") and "\u2028" not in head
    return as_script({})


def _workload(data: bytes, folder: Path) -> object:
    for name in ("page", "client.py"):
        (folder / name).write_text("x")
    found = load_workload(_file(data, folder, "workload.toml"))
    return found.content_hash(), found.load_hash(), found.ordered_apps(3)


def _cves(name: str) -> Callable[[bytes, Path], object]:
    def read(data: bytes, folder: Path) -> object:
        holes = read_holes(_file(data, folder, name))
        assert all(hole.functions and hole.id.isprintable() for hole in holes)
        # They are joined to a folder: no name may lead out of it.
        named = [each for hole in holes for each in hole.functions if each.file]
        assert all((folder / each.file).resolve().is_relative_to(folder.resolve()) for each in named)
        return holes

    return read


def _exposure(data: bytes, folder: Path) -> object:
    _, shown = read_exposure(_file(data, folder, "security.json"))
    return as_script(shown)


def _rules(data: bytes, folder: Path) -> object:
    found = read_rules(_file(data, folder, "rules.toml"))
    return [str(rule) for rule in (*found.keep, *found.policies)]


def _decode(data: bytes, folder: Path) -> object:
    """A console log, of a run that is sound; reports, and all that is said of each."""
    path = _file(data, folder, "console.log")
    for name, value in _RUN.items():
        _file(value.encode(), folder, name)
    kernel = load_kernel(Folder(folder))
    found = decode(read_log(path), kernel)
    assert all(set(addresses([each]).values()) <= {"a.o", "b.o"} for each in found)
    wanted = with_lines(found, {4096: "a.c:1"})
    return [told(each) for each in wanted], [each.miss for each in wanted]


def _system_map(data: bytes, folder: Path) -> object:
    found = read_system_map(_file(data, folder, "System.map"))
    return found.around(0xFFFFFFFF81000010), found.names_at(4096), found.has(0), len(found.names)


def _programs(data: bytes, folder: Path) -> object:
    return read_programs(_file(data, folder, "programs.toml"))


def _options(data: bytes, folder: Path) -> object:
    path = _file(data, folder, "config")
    return read_option(path, "CONFIG_A"), read_options(path)


def _console(data: bytes, folder: Path) -> object:
    path = _file(data, folder, "console.log")
    graves = read_graveyard(_file(json.dumps(_STONES).encode(), folder, "tombstones.json"))
    text = data.decode(errors="replace").replace("\r", "")
    missed = find_misses(graves, executed_blocks(data), text, ((0, "boot"), (5, "web")))
    of_console(path)
    raise UserError(f"missed {missed}: {panic_headline(text)}{console_end(text)}")


_OOPS = (
    test_misses.OOPS.encode() + test_misses.LOG,
    b"Memory: 1000K/2000K available\nFreeing unused kernel image (initmem) memory: 10K\n"
    b"kernel tried to execute NX-protected page - exploit attempt? (uid: 0)\n"
    b"BUG: unable to handle page fault for address: 0000000000002000\n"
    b"#PF: supervisor instruction fetch in kernel mode\nCall Trace:\n ? f+0x1/0x2\n start+0x2/0x4\n"
    b"[    1.0] Kernel panic - not syncing: Fatal exception\nRIP: 0010:0xffffffff810e6d08\n",
)
_RUN = {
    "plan.json": json.dumps(_PLAN), "pruned/tombstones.json": json.dumps(_STONES),
    "base/symbols.json": json.dumps(_SYMBOLS),
    "pruned/System.map": "00001000 T f\nffffffff81000000 t h\nffffffff81429000 T _etext\n",
}  # fmt: skip
_LOGS = (
    *(pruned_run.log(name).encode() for name in ("x86_64", "i386", "freed")),
    *_OOPS,
    pruned_run.without_kallsyms("x86_64", 0x1E000000).encode(),
    b"[    1.0][    T1] kernel BUG at a.c:1!\n"
    b"[    1.0][    C0] int3: 0000 [#2]\n[    1.0][    C0] EIP: 0x2001\n"
    b"<4>[ 1.0] WARNING: CPU: 0 PID: 1 at a.c:2 f+0x1/0x2\nRIP: 0010:h+0x5/0x20\nCall Trace:\n g+0x1/0x8\n",
)
_WEB = App("web", "httpd", "true", "", (), "", 5.0, "python3 load.py")
_LOADS = (
    b'starting\n{"requests": 4, "seconds": 2.0, "latencies_ms": [1, 2.5, 3, 40]}\n',
    b'{"requests": 312, "seconds": 2.01, "quantiles_ms": {"50": 5.9, "99": 31.2}}',
)
_PROGRAMS = ROOT / "examples" / "holdout" / "programs.toml"
_RULES = b"""\
[[keep]]
pattern = "tcp_*"
object = "net/*"
reason = "no loss"
[[keep]]
pattern = "f"
reason = "x"
"""
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
_POLICIES = b"""\
builtin = ["ioctl", "xattr"]
[[policy]]
functions = ["foo_*", "bar"]
object = "drivers/*"
types = ["int (struct foo *, *)"]
on_miss = "return"
value = "-ENODEV"
[[policy]]
functions = ["g"]
on_miss = "return"
value = "ERR_PTR(-ENOENT)"
[[policy]]
functions = ["h"]
on_miss = "return"
value = -22
[[policy]]
functions = ["i"]
on_miss = "keep"
[[policy]]
functions = ["j"]
on_miss = "panic"
"""
_OPTIONS = b'# c\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C="x"\n'
_LINK = {"schema_version": 1, "script": "./vmlinux.lds", "argv": ARGV}

TARGETS = [
    Target("profile", _dumped({"schema_version": 5, **to_json(PROFILE)}), _profile, of_json),
    Target("plan", _dumped(_PLAN), _plan, of_json),
    Target("tombstones", _dumped(_STONES), _tombstones, of_json),
    Target("heal", _healed, _heal, of_json),
    Target("settings", _begun, _settings, of_json),
    Target("symbols", _dumped(_SYMBOLS), _symbols, of_json),
    Target("link_json", _dumped(_LINK), _link, of_json),
    Target("boots", _dumped(_BOOTS), _results, of_json),
    Target("ledger", _dumped(_LEDGER), _ledger, of_json),
    Target("grid", _dumped(made_up_grid()), _grid, of_json, weight=4),
    Target("workload", lambda _: [test_tracer_workload.GOOD.encode()], _workload, of_text),
    Target("rules", lambda _: [_RULES, _POLICIES], _rules, of_text),
    Target("decode", lambda _: _LOGS, _decode, of_text),
    Target("system_map", lambda _: [_RUN["pruned/System.map"].encode()], _system_map, of_text),
    Target("programs", lambda _: [_PROGRAMS.read_bytes()], _programs, of_text),
    Target("cves", lambda _: [_CVES], _cves("cves.toml"), of_text),
    Target("cves_csv", lambda _: [_CVES_CSV], _cves("cves.csv"), of_text),
    Target("security", _dumped(_EXPOSURE), _exposure, of_json),
    Target("options", lambda _: [_OPTIONS], _options, of_text),
    Target("console", lambda _: _OOPS, _console, of_text),
    Target("load", lambda _: _LOADS, lambda data, _: read_load(_WEB, data.decode(errors="replace")), of_text),
    Target(
        "load_json", lambda _: [_LOADS[1], _LOADS[0].partition(b"\n")[2]],
        lambda data, _: read_load(_WEB, data.decode(errors="replace")), of_json,
    ),
]  # fmt: skip
