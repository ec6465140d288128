"""What ``make bench`` measures of kprune: one fresh process, from files on disk to a linked vmlinux.

``python -m prune.bench.once OUT OBJTREE INTO ARCH``: reads the profile of OUT and the objects, writes the
plan, the script and the edited objects into INTO, and runs ld once, as ``kprune plan`` and ``kprune link``
do; in one process, so that the plan is not read back.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from prune.build.recorded import read_last_link, redirected
from prune.folder import Folder
from prune.linking.generate import generate
from prune.linking.ld import script_argument
from prune.linking.link import LINK_MAP, pruned_arguments
from prune.linking.nameless import hide_tombstones
from prune.plan.plan_file import save_plan
from prune.run.planning import Model, decide
from prune.settings import load_settings
from tracer.host import BuildFailed, UserError, command_line, leave
from tracer.profiles.profile import load_profile


def main() -> None:
    """Command line."""
    with command_line():
        out, objtree, into = (Path(word).absolute() for word in sys.argv[1:4])
        prune_once(out, objtree, into, sys.argv[4])
        leave(0)


def prune_once(out: Path, objtree: Path, into: Path, arch: str) -> None:
    """Plan, prepare and link; everything that is written goes to ``into``, which must be empty.

    Raises:
        BuildFailed: the link failed.
        UserError: profile or objects are not there.
    """
    into.mkdir(parents=True, exist_ok=True)
    for name in ("base", "profile.json"):
        (into / name).symlink_to(out / name)
    folder = Folder(into)
    os.chdir(objtree)  # Where ld runs, and what the names of objects begin at.
    model = Model(folder, objtree, arch)
    profile = load_profile(folder.profile, references=False, ran=False)
    plan = decide(replace(load_settings(out), out=into), folder, model, profile)
    link = read_last_link(folder.base("link.json"))
    words = redirected(link.argv, into / "vmlinux")
    at = script_argument(words)
    if at is None:
        raise UserError(f"reading {folder.base('link.json')}: no link of a kernel", "kprune build")
    ready = generate(link.script, plan, into, objtree, model.image, model.tables)
    with _started(["ld", *pruned_arguments(words, at, ready.prepared)]):
        # ld has a processor for itself; the rest is for people and for later stages.
        ready.describe()
        save_plan(plan, folder.plan)
        shutil.copyfile(folder.base("vmlinux.map"), folder.path(LINK_MAP))
    if not plan.named:
        hide_tombstones(into / "vmlinux")


@contextlib.contextmanager
def _started(command: Sequence[str]) -> Iterator[None]:
    """A program that runs while something else is done, and has ended well behind it."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        status = process.wait()
    if status:
        raise BuildFailed(f"linking the pruned kernel: {command[0]} exited {status}")


if __name__ == "__main__":
    main()
