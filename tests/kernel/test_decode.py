"""A console log of a real pruned kernel, decoded by somebody who has nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.kernel.runs import edited_profile, kprune, until, without

pytestmark = pytest.mark.kernel


def test_a_log_alone_names_the_function_and_mends_it(micro: Path, tmp_path: Path) -> None:
    """Decoding sees in the console what the boot saw in the VM; what is added, the next link keeps."""
    folder, given = edited_profile(micro, tmp_path, without("meminfo_proc_show"))
    kprune("plan", folder, "--profile", given)
    kprune("link", folder)
    until("missed meminfo_proc_show", "boot", folder, "--boots", "1", check=5)
    missed = json.loads((folder / "boots.json").read_text())["misses"][0]
    log = folder / "boot" / "0" / "console.log"
    (oops,) = json.loads(kprune("decode", log, folder, "--json", check=5).stdout)["oopses"]
    assert (oops["missed"], oops["at"]["function"], oops["at"]["object"]) == (
        "tombstone", missed["function"], missed["object"],
    )  # fmt: skip
    assert (oops["caller"]["function"], oops["caller"]["object"]) == (missed["caller"], "fs/seq_file.o")
    assert oops["outcome"] == "panic" and oops["pid"] > 1 and not oops["doubt"]
    done = kprune("decode", log, folder, "--add", check=5)
    assert f"kprune heal {folder}" in done.stdout and "1 new in" in done.stderr
    kprune("plan", folder)
    kprune("link", folder)
    stones = json.loads((folder / "pruned" / "tombstones.json").read_text())
    gone = {row["symbol"] for part in ("tombstones", "freed") for row in stones[part]}
    assert "meminfo_proc_show" not in gone


def test_a_log_without_a_miss(micro: Path) -> None:
    """Boots of rounds before the last one may have missed something, and the kernel was another one."""
    number = json.loads((micro / "boots.json").read_text())["each"][0]["number"]
    assert kprune("decode", micro / "boot" / str(number) / "console.log", micro).stdout == ""
