"""Every target on a few hundred inputs, the same ones each time; ``make fuzz`` takes longer, and others."""

from __future__ import annotations

import json
import os
import re
import signal
import tempfile
from pathlib import Path

import pytest

from tests.fuzz.harness import ROOT, Target, fuzz, make_input
from tests.fuzz.mutate import of_bytes
from tests.fuzz.targets import TARGETS
from tracer.host import UserError

#: Of a target with weight 1; all of them together take half a minute of a processor.
INPUTS = 240


@pytest.mark.parametrize("name", TARGETS)
def test_an_answer_or_one_clear_error(name: str) -> None:
    target = TARGETS[name]
    result = fuzz(target, 1, range(max(INPUTS // target.weight, 6)), 600)
    assert not result.failures, "\n".join(map(str, result.failures))
    assert result.inputs == max(INPUTS // target.weight, 6)


def _obey(data: bytes, folder: Path) -> object:
    """A reader that is as bad as its input says."""
    what = data.decode()
    if what == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "raises":
        raise KeyError(what)
    if what == "sleeps":
        while True:
            pass
    if what == "eats":
        return bytearray(3 << 30)
    if what == "escapes":
        (folder / ".." / ".." / f"{folder.parent.name}-harm").write_text("")
    if what == "runs":
        os.system("true")
    if what == "nested":
        return json.loads("[" * 100_000)
    if what == "blank":
        raise UserError("")
    if what == "refuses":
        raise UserError("so it should")
    return what


BAD = {
    "dies": "SIGKILL", "raises": "KeyError", "sleeps": "more than", "eats": "MemoryError",
    "escapes": "outside its folder", "runs": "os.system", "nested": "RecursionError", "blank": "says nothing",
}  # fmt: skip


def test_the_harness_sees_what_it_is_there_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tests.fuzz.harness.SECONDS", 0.3)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    samples = [word.encode() for word in ("fine", "refuses", *BAD, "fine")]
    target = Target("bad", lambda _: samples, _obey, of_bytes)
    result = fuzz(target, 1, range(len(samples)), 60, tmp_path / "kept")
    assert result.refused == 1
    found = {samples[failure.number].decode(): failure.what for failure in result.failures}
    assert found.keys() == BAD.keys()
    assert all(BAD[word] in what for word, what in found.items())
    kept = {path.read_bytes().decode() for path in (tmp_path / "kept").iterdir()}
    assert kept == BAD.keys()


def test_an_input_is_made_of_its_numbers_alone(tmp_path: Path) -> None:
    target = TARGETS["perf"]
    samples = target.samples(tmp_path)
    made = [[make_input(target, samples, seed, n) for n in range(2, 40)] for seed in (1, 1, 2)]
    assert made[0] == made[1] != made[2]


#: Readers of kprune's own data, and of what kprune or this machine has just made.
INSIDE = {
    "read_places", "read_knowledge", "read_toml", "read_facts", "read_vmlinux", "read_cost", "read_cell",
    "read_busybox", "read_module", "read_module_places",
}  # fmt: skip
#: Readers that a target gets to through others.
REACHED = {
    "import_collected", "import_trace", "load_kernels", "load_model", "load_module_plan", "read_module_model",
    "parse_fields", "parse_kallsyms", "parse_ld_map", "read_original",
    "parse_link_map", "parse_lld_map", "parse_place", "parse_rows", "parse_trace_dat", "read_at_most",
    "read_collected", "read_coverage", "read_drcov",
    "read_entries", "read_foreign", "read_image", "read_instructions", "read_json",
    "read_lcov",
    "read_manifest", "read_members", "read_object", "read_perf", "read_result", "read_trace_cmd",
    "read_trace_stat",
}  # fmt: skip


def test_every_reader_of_something_from_outside_has_a_target() -> None:
    """A new reader gets a target, or a place in one of the lists above."""
    targets = "".join(path.read_text() for path in Path(__file__).parent.glob("*.py"))
    files = (path for folder in ("prune", "tracer") for path in (ROOT / folder).rglob("*.py"))
    names = {
        name
        for path in files
        for name in re.findall(r"^def ((?:read|load|parse|import)_\w+)", path.read_text(), re.M)
    }
    assert {name for name in names if not re.search(rf"\b{name}\b[(,]", targets)} - INSIDE - REACHED == set()
    assert names >= INSIDE | REACHED
