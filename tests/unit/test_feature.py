"""What a part of the sources costs: by object, by name where there is one object, and for each app."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prune.cli import _parser
from prune.commands.ledger import read_units, run, table
from prune.ledger.feature import AMBIGUOUS, NAMELESS, UNKNOWN, Part, Unit, app_costs, cost, places, plain
from tracer.host import UserError

NET = Part(("net/", "drivers/net/"))
WHOLE = [
    Unit("net/ipv4/tcp.o", ".text.tcp_close", "tcp_close", "text", 100),
    Unit("net/ipv4/tcp.o", ".init.text", "tcp_init", "init text", 30),
    Unit("net/ipv4/tcp.o", ".rodata.str1.1", ".rodata.str1.1", "rodata", 9),
    Unit("net/core/dev.o", ".data.knob", "knob", "data", 4),
    Unit("net/core/dev.o", ".bss.dev_base", "dev_base", "bss", 8),
    Unit("net/core/dev.o", "__ex_table", "__ex_table", "tables", 12),
    Unit("net/core/dev.o", ".text.show", "show", "text", 20),
    Unit("drivers/net/virtio_net.o", ".text.probe", "probe", "text", 50),
    Unit("drivers/nets.o", ".text.other", "other", "text", 7),
    Unit("fs/read.o", ".text.show", "show", "text", 21),
    Unit("fs/read.o", ".text.vfs_read", "vfs_read", "text", 60),
]
ONE = [
    Unit("vmlinux.o", ".text.tcp_close", "tcp_close", "text", 90),
    Unit("vmlinux.o", ".text.probe.llvm.123", "probe.llvm.123", "text", 45),
    Unit("vmlinux.o", ".text.show", "show", "text", 20),
    Unit("vmlinux.o", ".text.show.7", "show.7", "text", 21),
    Unit("vmlinux.o", ".text.vfs_read", "vfs_read", "text", 70),
    Unit("vmlinux.o", ".text.fresh", "fresh", "text", 5),
    Unit("vmlinux.o", ".rodata", ".rodata", "rodata", 400),
    Unit("vmlinux.o", "__ex_table", "__ex_table", "tables", 24),
]


def test_everything_under_the_paths() -> None:
    found = cost(WHOLE, NET)
    assert found.bytes == {"text": 170, "init": 30, "rodata": 9, "data": 4, "bss": 8, "tables": 12}
    assert found.total == 233 and not found.open


def test_a_part_without_a_part() -> None:
    part = Part(("net/",), ("net/core/",))
    assert (part.has("net/ipv4/tcp.o"), part.has("net/core/dev.o"), part.has("fs/read.o")) == (
        True,
        False,
        False,
    )
    assert cost(WHOLE, part).bytes["data"] == 0
    assert str(part) == "net/ but net/core/"


def test_one_object_is_told_apart_by_names() -> None:
    """Nothing is guessed: bytes of the kernel are inside, outside, or open, and the open ones say why."""
    found = cost(ONE, NET, places(WHOLE, NET))
    assert found.bytes["text"] == 135
    assert {why: sum(each.values()) for why, each in found.open.items()} == {
        AMBIGUOUS: 41, UNKNOWN: 5, NAMELESS: 424,
    }  # fmt: skip
    outside = 70
    assert found.total + sum(sum(each.values()) for each in found.open.values()) + outside == sum(
        unit.size for unit in ONE
    )


def test_names_of_one_place_twice_are_not_ambiguous() -> None:
    twice = [*WHOLE, Unit("net/core/sock.o", ".text.knob", "knob", "text", 3)]
    assert places(twice, NET)["knob"] is True
    assert places(twice, NET)["show"] is None
    assert places(twice, NET)["vfs_read"] is False


@pytest.mark.parametrize(
    ("symbol", "name"), [("a.llvm.99", "a"), ("a.part.0.isra.0", "a"), ("a_1", "a_1"), ("a.cold", "a")]
)
def test_names_as_in_the_source(symbol: str, name: str) -> None:
    assert plain(symbol) == name


def test_what_apps_need() -> None:
    close, probe, read = (
        ("net/ipv4/tcp.o", ".text.tcp_close"), ("drivers/net/virtio_net.o", ".text.probe"),
        ("fs/read.o", ".text.vfs_read"),
    )  # fmt: skip
    web, shell = app_costs(
        WHOLE, NET, {"web": {close, probe}, "shell": {probe, read}},
        {"web": {probe, read}, "shell": {close, probe, read}}, {close, probe, read},
    )  # fmt: skip
    assert (web.app, web.alone["text"], web.more["text"]) == ("web", 150, 100)
    assert (shell.app, shell.alone["text"], shell.more["text"]) == ("shell", 50, 0)
    assert sum(web.more.values()) == 100


def ledger(out: Path, units: list[Unit]) -> Path:
    out.mkdir()
    columns = ["object", "section", "symbol", "kind", "base", "pruned", "resident"]
    rows: list[list[object]] = [
        [u.object, u.section, u.symbol, u.kind, u.size, u.size // 2, u.symbol != "probe"] for u in units
    ]
    rows.append(["", "", "alignment", "alignment", 7, 7, True])
    value = {"schema_version": 1, "columns": columns, "rows": rows}
    (out / "ledger.json").write_text(json.dumps(value))
    return out


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole, one = ledger(tmp_path / "gcc", WHOLE), ledger(tmp_path / "lto", ONE)
    assert sum(unit.size for unit in read_units(whole, "base")) == sum(unit.size for unit in WHOLE)
    options = _parser().parse_args(["ledger", str(whole), str(one), "--names", str(whole), "--json"])
    assert run(options) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["kernels"]["gcc base"]["total"] == 233
    assert value["kernels"]["gcc pruned"]["bytes"]["text"] == 85
    assert value["kernels"]["lto base"]["open"][AMBIGUOUS]["text"] == 41


def test_what_is_freed_after_boot_need_not_count(tmp_path: Path) -> None:
    out = ledger(tmp_path / "gcc", WHOLE)
    base, pruned = (cost(read_units(out, side, resident=True), NET) for side in ("base", "pruned"))
    assert (base.bytes["init"], base.bytes["text"]) == (0, 170)
    assert (pruned.bytes["init"], pruned.bytes["text"]) == (0, 60)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--under", "nets"], "has nothing under nets/"),
        ([], "is one object: it does not say what is from where; name a run without LTO"),
    ],
)
def test_what_cannot_be_answered(tmp_path: Path, words: list[str], said: str) -> None:
    out = ledger(tmp_path / "out", WHOLE if words else ONE)
    with pytest.raises(UserError, match=said):
        run(_parser().parse_args(["ledger", str(out), *words]))


def test_the_table_has_a_line_for_each_kernel() -> None:
    text = table(NET, {"gcc base": cost(WHOLE, NET), "lto base": cost(ONE, NET, places(WHOLE, NET))}, {})
    assert "gcc base" in text and "lto base, names of several places" in text
