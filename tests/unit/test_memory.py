"""What is left when a kernel has booted is compared in machines of one size."""

from __future__ import annotations

from pathlib import Path

from prune.folder import Folder
from prune.run.results import memory
from tracer.host import write_json


def said(out: Path, guest: str, available: int, machine: int) -> None:
    folder = out / guest
    folder.mkdir(parents=True)
    (folder / "console.log").write_text(
        f"Memory: {available}K/{machine}K available (1K kernel code)\n"
        "Freeing unused kernel image (initmem) memory: 10K\n"
    )


def boots(out: Path, *numbers: int) -> Folder:
    write_json(out / "boots.json", {"schema_version": 1, "each": [{"number": n} for n in numbers]})
    return Folder(out)


def test_the_last_boot_in_a_machine_of_the_first_run(tmp_path: Path) -> None:
    said(tmp_path, "trace/blocks-1", 100, 1000)
    for number, available, machine in (
        (1002, 300, 1000),
        (1003, 50, 64),
        (1004, 310, 1000),
        (1005, 900, 2000),
    ):
        said(tmp_path, f"boot/{number}", available, machine)
    left = memory(boots(tmp_path, 1002, 1003, 1004, 1005))
    assert left == {"base": 110 << 10, "pruned": 320 << 10, "machine": 1000 << 10}


def test_another_run_where_no_boot_was_in_the_machine_of_the_first(tmp_path: Path) -> None:
    said(tmp_path, "trace/blocks-1", 900, 1000)
    said(tmp_path, "trace/blocks-2", 20, 64)
    said(tmp_path, "boot/1002", 40, 64)
    left = memory(boots(tmp_path, 1002))
    assert left == {"base": 30 << 10, "pruned": 50 << 10, "machine": 64 << 10}


def test_nothing_is_compared_with_a_machine_of_another_size(tmp_path: Path) -> None:
    said(tmp_path, "trace/blocks-1", 900, 1000)
    said(tmp_path, "boot/1002", 40, 64)
    nothing = {"base": None, "pruned": None, "machine": None}
    assert memory(boots(tmp_path, 1002)) == nothing
    (tmp_path / "boots.json").unlink()
    assert memory(Folder(tmp_path)) == nothing
