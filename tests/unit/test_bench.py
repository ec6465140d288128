"""What the bench makes of what it measured; no test measures time."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from prune.bench.__main__ import _options, text_of
from prune.bench.kernels import Kernels
from prune.bench.links import Contender, lto_link, plain_links, pruned_links
from prune.bench.run import measure, ratios, run_rounds
from prune.bench.table import growth, make_rows
from prune.bench.vmlinux import Linked, read_vmlinux
from prune.build.recorded import redirected
from prune.measure.cost import Cost
from prune.measure.estimate import Estimate, spread
from prune.model.store import HOME
from tracer.host import BuildFailed, UserError

from .elfwriter import ALLOC, EXEC, OBJECT, Section, Symbol, write_elf

ARGV = (
    "-m elf_x86_64 --no-warn-rwx-segments -Map=vmlinux.map --script=./arch/x86/kernel/vmlinux.lds -o vmlinux "
    "--whole-archive vmlinux.a --no-whole-archive --start-group lib/lib.a --end-group "
    ".tmp_vmlinux.kallsyms2.o"
).split()
LTO_RECORD = (
    "cmd_vmlinux.o := /cache/kprune-ld -m elf_x86_64 -mllvm -import-instr-limit=5 "
    "--thinlto-cache-dir=.thinlto-cache -r -o vmlinux.o -T .tmp_initcalls.lds --whole-archive vmlinux.a "
    "--no-whole-archive ; ./tools/objtool/objtool --vmlinux vmlinux.o\n\nmore := words\n"
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    script = tmp_path / "obj/arch/x86/kernel/vmlinux.lds"
    script.parent.mkdir(parents=True)
    script.write_text(
        "SECTIONS { .text : { *(.text) } .data : { *(.data) } .rodata : { *(.rodata) } .bss : { *(.bss) } }\n"
    )
    _record(tmp_path, ARGV)
    return tmp_path


def _record(tree: Path, argv: list[str]) -> None:
    link = {"schema_version": 1, "script": "./arch/x86/kernel/vmlinux.lds", "argv": argv}
    (tree / "link.json").write_text(json.dumps(link))


def test_the_recorded_link_goes_elsewhere_and_has_no_kallsyms() -> None:
    words = redirected(ARGV, Path("/into/vmlinux"))
    assert words[words.index("-o") + 1] == "/into/vmlinux"
    assert not any("kallsyms" in word or "-Map" in word for word in words)
    assert words[-2:] == ["lib/lib.a", "--end-group"]


def test_what_is_called_like_a_map_is_the_output_where_it_stands_there() -> None:
    """The fuzzer got a traceback."""
    assert redirected(["ld", "-o", "-Map=there"], Path("/into/vmlinux")) == ["ld", "-o", "/into/vmlinux"]


def test_plain_links_differ_by_linker_and_gc_alone(tree: Path) -> None:
    ld, gc, lld = plain_links(tree / "obj", tree, tree / "into")
    assert [each.label for each in (ld, gc, lld)] == ["ld", "ld --gc-sections", "lld"]
    assert {len({each.vmlinux.parent for each in (ld, gc, lld)})} == {3}
    scripts = {word for each in (ld, gc, lld) for word in each.commands[0] if word.startswith("--script=")}
    assert scripts == {f"--script={tree / 'into/vmlinux.lds'}"}
    assert ".text.[0-9a-zA-Z_]*" in (tree / "into/vmlinux.lds").read_text()
    assert "--gc-sections" in gc.commands[0] and "--gc-sections" not in ld.commands[0]
    assert lld.commands[0][0] == "ld.lld" and "--no-warn-rwx-segments" not in lld.commands[0]


def test_lto_generates_code_and_links_without_a_cache(tree: Path) -> None:
    _record(tree, [word.replace("vmlinux.a", "vmlinux.o") for word in ARGV])
    (tree / "obj/.vmlinux.o.cmd").write_text(LTO_RECORD)
    made = lto_link("ThinLTO", tree / "obj", tree, tree / "into", 1)
    first, last = made.commands
    whole = str(made.vmlinux.with_name("vmlinux.o"))
    assert first[0] == last[0] == "ld.lld" and first[first.index("-o") + 1] == whole
    assert not any("thinlto-cache" in word or "objtool" in word for word in first)
    assert "-import-instr-limit=5" in first and first[-1] == "--no-whole-archive"
    assert whole in last and "vmlinux.o" not in last and last[last.index("-o") + 1] == str(made.vmlinux)
    assert made.rounds == 1


def test_a_tree_without_that_record_is_refused(tree: Path) -> None:
    with pytest.raises(UserError, match=r"how vmlinux\.o was linked"):
        lto_link("full LTO", tree / "obj", tree, tree, 1)


def test_what_a_build_stored_is_used_and_forgotten(tmp_path: Path) -> None:
    assert [each.label for each in pruned_links(tmp_path, tmp_path, "x86_64", tmp_path)] == ["kprune"]
    (tmp_path / HOME).mkdir(parents=True)
    warm, cold = pruned_links(tmp_path, tmp_path, "x86_64", tmp_path / "into")
    assert (warm.forget, cold.forget) == (None, tmp_path / HOME) and warm.commands == cold.commands
    for each, there in ((warm, True), (cold, False)):
        measure(replace(each, commands=(("true",),)), tmp_path / "log")
        assert (tmp_path / HOME).is_dir() == there


def test_ratios_are_of_the_same_round() -> None:
    slow, base = [2.0, 40.0, 6.0], [1.0, 10.0, 2.0]
    assert ratios(slow, base) == Estimate(3.0, 2.0, 4.0, 3)
    assert ratios(slow[:1], base) == Estimate(2.0, 2.0, 2.0, 1)
    assert spread([3.0, 1.0]) == Estimate(2.0, 1.0, 3.0, 2)


def test_rounds_take_turns_into_empty_folders(tmp_path: Path) -> None:
    def contender(name: str, rounds: int) -> Contender:
        # Fails when something is left of the round before.
        script = f'test ! -e vmlinux && echo {name} >> "$0"/order && : > vmlinux'
        home = tmp_path / name
        words = ("sh", "-c", f'cd "$0"/{name} && {script}', str(tmp_path))
        return Contender(name, (words,), tmp_path, home / "vmlinux", rounds)

    costs = run_rounds([contender("a", 9), contender("b", 9), contender("once", 1)], 2, tmp_path / "log")
    assert (tmp_path / "order").read_text().split() == "a b a b once a b".split()
    assert {name: len(each) for name, each in costs.items()} == {"a": 2, "b": 2, "once": 1}
    assert all(cost.seconds > 0 and cost.peak_bytes > 0 for each in costs.values() for cost in each)


def test_a_contender_that_fails_says_why(tmp_path: Path) -> None:
    words = ("sh", "-c", "echo undefined reference; exit 1")
    contender = Contender("lld", (words,), tmp_path, tmp_path / "lld/vmlinux")
    with pytest.raises(BuildFailed, match="measuring lld: sh exited 1: undefined reference"):
        run_rounds([contender], 1, tmp_path / "log")


def test_functions_are_counted_once_for_each_address(tmp_path: Path) -> None:
    symbols = [
        Symbol("one", ".text", 0, 4), Symbol("alias", ".text", 0, 6), Symbol("two", ".text", 8, 3),
        Symbol("table", ".text", 12, 4, type=OBJECT), Symbol("elsewhere"),
    ]  # fmt: skip
    path = tmp_path / "vmlinux"
    path.write_bytes(write_elf([Section(".text", bytes(16)), Section(".note", b"n", 0)], symbols))
    assert read_vmlinux(path) == Linked(2, 9, {".text": 16})
    path.write_bytes(write_elf([Section(".data", b"", ALLOC | EXEC)], []))
    assert read_vmlinux(path).functions == 0


def _rows(functions: int, ld: float, kprune: float) -> dict[str, dict[str, object]]:
    costs = {
        "ld": [Cost(ld, ld, 100 << 20)],
        "kprune": [Cost(kprune, kprune, 300 << 20)],
        "full LTO": [Cost(100, 90, 900 << 20)],
    }
    made = {
        "ld": Linked(functions, 10 * functions, {".text": 5, ".table": 3}),
        "kprune": Linked(functions // 3, 3 * functions, {".text": 2, ".table": 0}),
        "full LTO": Linked(functions, 11 * functions, {".text": 5, ".table": 3}),
    }
    return make_rows(costs, made, {"ThinLTO": "not asked for"})


def test_the_table_has_every_contender_and_says_what_is_missing() -> None:
    rows = {"tiny": _rows(1000, 0.5, 1.0), "micro": _rows(4000, 2.0, 4.0)}
    sizes = {"objects": 7, "sections": 8, "relocations": 9, "profile": "of examples/micro"}
    result = {
        "machine": {"processors": 2, "ld": "GNU ld 2.40", "lld": "LLD 14", "python": "3.11"},
        "kernels": {
            name: {**sizes, "functions": functions, "rows": rows[name]}
            for name, functions in (("tiny", 1000), ("micro", 4000))
        },
        "growth": growth(rows),
    }
    json.dumps(result)
    text = text_of(result)
    assert f"{'ThinLTO':24}-  not asked for" in text
    assert "kprune over full LTO: 0.040 of the seconds, 0.33 of the memory" in text
    # Four times the functions in four times the seconds; 0.5 s for 1,000.
    assert "to the power of 1.00 (ld), 1.00 (kprune)" in text and "500.0 ms" in text
    assert "40,000" in text and "2.00     (2.00..2.00)" in text
    assert rows["micro"]["kprune"]["emptied"] == [".table"] and "kprune: no kernel" not in text


def test_one_kernel_shows_no_growth() -> None:
    assert growth({"micro": _rows(10, 1, 2)})["ld"]["exponent"] is None


def test_a_kernel_by_another_name_is_refused(tmp_path: Path) -> None:
    assert _options(["--kernels", "micro"]).kernels == "micro"
    with pytest.raises(UserError, match="there is no huge; there are: tiny, micro, defconfig"):
        Kernels(tmp_path, tmp_path, tmp_path).kernel("huge")
