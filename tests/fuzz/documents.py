"""Targets: what kprune itself writes, when somebody else has written it; what users write; consoles."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from prune.build.recorded import read_last_link, redirected
from prune.commands.compare import compare, group_by, read_kernel, table
from prune.commands.ledger import read_units
from prune.folder import Folder
from prune.grid.page import write_grid_page
from prune.guests.graveyard import read_graveyard
from prune.guests.heal import Healed, add_misses, healed_profile, load_healed, save_healed
from prune.guests.memory import console_of, memory_after_boot
from prune.guests.misses import find_answered, find_misses
from prune.options import read_options
from prune.plan.plan_file import Plan, load_plan, save_plan
from prune.plan.rules import read_rules
from prune.report.page import as_script
from prune.run.results import validation
from prune.settings import Settings, load_settings
from prune.verify.answers import read_option, read_planned
from prune.verify.read import read_blocks, read_fates, read_ran, read_stones, read_trimmed
from tests.fuzz.harness import Target
from tests.fuzz.mutate import of_json, of_text
from tests.page.made_up_grid import made_up_grid
from tests.unit import test_misses, test_tracer_workload
from tests.unit.test_bench import ARGV
from tests.unit.test_tracer_profile import PROFILE
from tracer.host import UserError
from tracer.outcome import console_end, panic_headline
from tracer.profiles.algebra import merge
from tracer.profiles.profile import KernelId, load_profile, save_profile, to_json
from tracer.profiles.saturation import saturation
from tracer.profiles.stale import accept, carry_over
from tracer.profiles.symbols import load_symbols, make_symbols
from tracer.sessions.executed import executed_blocks
from tracer.workloads.load import read_load
from tracer.workloads.workload import App
from tracer.workloads.workload_file import load_workload

SYMBOLS = {
    "schema_version": 4, "kernel": "production", "build_id": "aa", "config": "c", "source": "s",
    "options": "", "version": "6.1", "entry": 4096, "files": {"net/a.o": "01"},
    "functions": [[4096, 16, "net/a.o", ".text.f", "f", True], [4112, 0, "net/a.o", ".text.g", "g", False]],
}  # fmt: skip
PLAN = {
    "schema_version": 5, "arch": "x86_64", "build_id": "aa", "width": "ran", "unused_rules": ["x*"],
    "named": False, "objects": {"a.o": "01", "b.o": "02"},
    "columns": ["object", "section", "size", "fate", "reason"],
    "pieces": [["a.o", ".init.text", [[".init.text.f", 0, 8], [".init.text.g", 8, 8]]]],
    "cold": [["b.o", ".text.h", [[4, 8], [12, 16]]]],
    "stops": [["a.o", ".init.text.g", [4, 12]]],
    "answers": [["a.o", ".init.text.g", "g", "return", -25, "-ENOTTY", "ioctl"],
                ["a.o", ".init.text.f", "f", "refuse", 0, "-ENOSYS", "refuser"]],
    "units": [
        ["a.o", ".init.text.f", 8, "boot", "ran: web"], ["a.o", ".init.text.g", 8, "drop", ""],
        ["b.o", ".text.h", 32, "keep", "root: x"],
    ],
}  # fmt: skip
STONES = {
    "schema_version": 5, "start": 4096,
    "tombstones": [
        {"symbol": "gone", "object": "a.o", "section": ".text.gone", "names": ["gone", "away"],
         "address": 4096, "size": 1, "answer": "", "call": False},
        {"symbol": "dump", "object": "x.o", "section": ".text.dump", "names": ["dump"],
         "address": 0xFFFFFFFF810E6D08, "size": 9, "answer": "-ENOTTY", "call": False},
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


def dumped(*values: Any) -> Callable[[Path], list[bytes]]:
    return lambda _: [json.dumps(value).encode() for value in values]


def written(data: bytes, folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _profile(data: bytes, folder: Path) -> object:
    """Read, written, joined with another, carried to another build; and as verify reads it."""
    path = written(data, folder, "profile.json")
    read_ran(path)
    read_blocks(path)
    found = load_profile(path)
    save_profile(found, folder / "again.json")
    assert load_profile(folder / "again.json") == found
    symbols = make_symbols("production", "zz", SYMBOLS["functions"])  # type: ignore[arg-type]
    carry_over(found, symbols)
    saturation(found)
    return accept(replace(found, kernel=PROFILE.kernel, moved_from=()), symbols, True, "reading"), merge(
        [found, PROFILE]
    )


def _plan(data: bytes, folder: Path) -> object:
    path = written(data, folder, "plan.json")
    read_fates(path)
    read_planned(path)
    plan: Plan = load_plan(path)
    save_plan(plan, folder / "again.json")
    return load_plan(folder / "again.json")


def _tombstones(data: bytes, folder: Path) -> object:
    path = written(data, folder, "tombstones.json")
    fates = read_fates(written(json.dumps(PLAN).encode(), folder, "plan.json"))
    graves = read_graveyard(path)
    log = executed_blocks(test_misses.LOG)
    missed = find_misses(graves, log, test_misses.OOPS, ((0, "boot"),)), find_answered(graves, log)
    return str(missed), graves.range, read_stones(path), read_trimmed(path, fates)


def _heal(data: bytes, folder: Path) -> object:
    healed = load_healed(written(data, folder, "heal.json"), "aa")
    made = healed_profile(add_misses(healed, []), KernelId("aa", "", "", ""), {})
    save_profile(made, folder / "profile.json")
    return load_profile(folder / "profile.json")


def _healed(folder: Path) -> list[bytes]:
    save_healed(_HEALED, folder / "heal.json", "aa")
    return [(folder / "heal.json").read_bytes()]


def _settings(data: bytes, folder: Path) -> object:
    written(data, folder, "run.json")
    found = load_settings(folder)
    return found.needs_traced, found.traces_on_traced, json.dumps(str(found))


def _begun(folder: Path) -> list[bytes]:
    Settings(Path("/w"), folder).save()
    return [(folder / "run.json").read_bytes()]


def _symbols(data: bytes, folder: Path) -> object:
    found = load_symbols(written(data, folder, "symbols.json"), "production")
    return carry_over(PROFILE, found)


def _link(data: bytes, folder: Path) -> object:
    found = read_last_link(written(data, folder, "link.json"))
    return found.generates_code, redirected(found.argv, Path("out"))


def _results(data: bytes, folder: Path) -> object:
    written(data, folder, "boots.json")
    return validation(Folder(folder))


def _ledger(data: bytes, folder: Path) -> object:
    from prune.ledger.ledger import SCHEMA

    value = data.replace(b'"schema_version": 0', b'"schema_version": %d' % SCHEMA)
    items = read_kernel(written(value, folder, "ledger.json").parent)
    for side in ("base", "pruned"):
        read_units(folder, side, resident=True)
    return [
        table(compare(items, items[:1], group_by(what, 2)), what, 5) for what in ("function", "directory")
    ]


def _grid(data: bytes, folder: Path) -> object:
    written(data, folder, "grid.json")
    write_grid_page(folder)
    page = (folder / "report.html").read_text()
    head = page.partition('type="application/json"')[2]
    assert head.count("</script") == page.count("<script") and "\u2028" not in head
    return as_script({})


def _workload(data: bytes, folder: Path) -> object:
    for name in ("page", "client.py"):
        (folder / name).write_text("x")
    found = load_workload(written(data, folder, "workload.toml"))
    return found.content_hash(), found.load_hash(), found.ordered_apps(3)


def _rules(data: bytes, folder: Path) -> object:
    found = read_rules(written(data, folder, "rules.toml"))
    return [str(rule) for rule in (*found.keep, *found.policies)]


def _options(data: bytes, folder: Path) -> object:
    path = written(data, folder, "config")
    return read_option(path, "CONFIG_A"), read_options(path)


def _console(data: bytes, folder: Path) -> object:
    written(data, folder, "console.log")
    graves = read_graveyard(written(json.dumps(STONES).encode(), folder, "tombstones.json"))
    text = data.decode(errors="replace").replace("\r", "")
    missed = find_misses(graves, executed_blocks(data), text, ((0, "boot"), (5, "web")))
    memory_after_boot(console_of(folder))
    raise UserError(f"missed {missed}: {panic_headline(text)}{console_end(text)}")


OOPS = (
    test_misses.OOPS.encode() + test_misses.LOG,
    b"Memory: 1000K/2000K available\nFreeing unused kernel image (initmem) memory: 10K\n"
    b"kernel tried to execute NX-protected page - exploit attempt? (uid: 0)\n"
    b"BUG: unable to handle page fault for address: 0000000000002000\n"
    b"#PF: supervisor instruction fetch in kernel mode\nCall Trace:\n ? f+0x1/0x2\n start+0x2/0x4\n"
    b"[    1.0] Kernel panic - not syncing: Fatal exception\nRIP: 0010:0xffffffff810e6d08\n",
)
_WEB = App("web", "httpd", "true", "", (), "", 5.0, "python3 load.py")
_LOADS = (
    b'starting\n{"requests": 4, "seconds": 2.0, "latencies_ms": [1, 2.5, 3, 40]}\n',
    b'{"requests": 312, "seconds": 2.01, "quantiles_ms": {"50": 5.9, "99": 31.2}}',
)
_RULES = b"""\
[[keep]]
pattern = "tcp_*"
object = "net/*"
reason = "no loss"
[[keep]]
pattern = "f"
reason = "x"
"""
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
    Target("profile", dumped({"schema_version": 5, **to_json(PROFILE)}), _profile, of_json),
    Target("plan", dumped(PLAN), _plan, of_json),
    Target("tombstones", dumped(STONES), _tombstones, of_json),
    Target("heal", _healed, _heal, of_json),
    Target("settings", _begun, _settings, of_json),
    Target("symbols", dumped(SYMBOLS), _symbols, of_json),
    Target("link_json", dumped(_LINK), _link, of_json),
    Target("boots", dumped(_BOOTS), _results, of_json),
    Target("ledger", dumped(_LEDGER), _ledger, of_json),
    Target("grid", dumped(made_up_grid()), _grid, of_json, weight=4),
    Target("workload", lambda _: [test_tracer_workload.GOOD.encode()], _workload, of_text),
    Target("rules", lambda _: [_RULES, _POLICIES], _rules, of_text),
    Target("options", lambda _: [_OPTIONS], _options, of_text),
    Target("console", lambda _: OOPS, _console, of_text),
    Target("load", lambda _: _LOADS, lambda data, _: read_load(_WEB, data.decode(errors="replace")), of_text),
    Target(
        "load_json", lambda _: [_LOADS[1], _LOADS[0].partition(b"\n")[2]],
        lambda data, _: read_load(_WEB, data.decode(errors="replace")), of_json,
    ),
]  # fmt: skip
