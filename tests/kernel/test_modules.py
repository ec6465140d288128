"""Modules on a kernel that wants them signed and versioned: loaded, used and unloaded by a pruned kernel;
refused by the name of what they miss; missed and healed by name."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from prune.build.modules import load_modules
from prune.plan.plan_file import load_plan
from tests.kernel.runs import boot_with, kprune, until

pytestmark = [pytest.mark.kernel, pytest.mark.slow]
HERE = Path(__file__).parent / "modules"
REFUSE = """
! insmod /root/autofs4.ko
! grep autofs4 /proc/modules
"""


@pytest.fixture(scope="module", params=["x86_64", "i386"])
def out(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("modules") / "run"
    kprune("run", HERE, "--arch", request.param, "--out", folder, "--trace-runs", "3", "--boots", "3")
    return folder


def test_every_boot_loads_uses_and_unloads_what_is_left_of_the_modules(out: Path) -> None:
    report = json.loads((out / "report.json").read_text())
    assert report["validation"]["passed"] == report["validation"]["boots"] == 3
    assert report["validation"]["verify"] == "ok"
    exports, overlay = report["modules"]["exports"], report["modules"]["each"]["overlay"]
    assert 0 < exports["pruned"] < exports["base"]
    assert overlay["pruned"]["text"] < overlay["base"]["text"] * 0.9
    assert {each.name for each in load_modules(out / "pruned")} == {"overlay", "configfs", "exportfs"}


def test_the_kernel_of_the_test_is_a_strict_one(out: Path) -> None:
    """Nothing is shown with modules that are neither signed nor versioned."""
    config = (out / "base/.config").read_text()
    for option in ("MODVERSIONS", "MODULE_SIG_FORCE", "MODULE_SIG_ALL", "TRIM_UNUSED_KSYMS"):
        assert f"CONFIG_{option}=y" in config
    for side in ("base", "traced", "pruned"):
        signed = (out / side / "modules/fs/overlayfs/overlay.ko").read_bytes()
        assert signed.endswith(b"~Module signature appended~\n")


def test_how_a_module_is_refused_is_not_pruned(out: Path) -> None:
    # Boots of earlier rounds may have missed something before that.
    for boot in json.loads((out / "boots.json").read_text())["each"]:
        console = (out / f"boot/{boot['number']}/console.log").read_text()
        assert "kprune_refused: Unknown symbol kprune_needs_this (err -2)" in console


def test_a_module_that_is_not_shipped_is_refused_by_the_name_of_what_it_misses(
    out: Path, tmp_path: Path
) -> None:
    module = next((out / "base/modules").rglob("autofs4.ko"))
    more = f'[[rootfs.file]]\nsource = "{module}"\ntarget = "/root/autofs4.ko"\n'
    more += f'[[app]]\nname = "refuse"\ncommand = """{REFUSE}"""\ntimeout = 60\n'
    said = boot_with(out, HERE, more, tmp_path)
    missing = set(re.findall(r"autofs4: Unknown symbol (\w+) \(err -2\)", said))
    plan = load_plan(out / "plan.json")
    rows = zip(plan.units, plan.keep.tolist(), strict=True)
    gone = {section.partition("+")[2] for (_, section, _), keep in rows if "ksymtab" in section and not keep}
    needs = next(each.needs for each in load_modules(out / "base") if each.name == "autofs4")
    assert missing == gone & set(needs) != set()


def test_a_function_of_a_module_is_missed_and_healed_by_name(out: Path, tmp_path: Path) -> None:
    run = shutil.copytree(out, tmp_path / "run")
    # What was healed of the whole run stays: this boot is to miss one thing only.
    for path in (run / "trace/profile.json", *sorted((run / "heal").glob("round-*.json"))):
        profile = json.loads(path.read_text())
        without = [each for each in profile["functions"] if each["symbol"] != "ovl_rename"]
        assert len(without) == len(profile["functions"]) - 1
        path.write_text(json.dumps({**profile, "functions": without}))
    kprune("plan", run)
    kprune("link", run)
    kprune("verify", run)
    says = "missed ovl_rename (fs/overlayfs/overlay.o), called by vfs_rename"
    until(says, "boot", run, "--boots", "1", check=5)
    assert "dropped, it never ran" in kprune("why", "ovl_rename", run).stdout
    kprune("heal", run, "--boots", "2")
    assert "ovl_rename" in (run / "heal.json").read_text()
