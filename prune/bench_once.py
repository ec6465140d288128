"""What ``make bench`` measures of kprune: one fresh process, from files on disk to a linked vmlinux.

``python -m prune.bench_once OUT OBJTREE INTO``: reads the profile of OUT and the objects, writes the plan,
the script and the edited objects into INTO, and runs ld once, as ``kprune plan`` and ``kprune link`` do.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from prune import passes
from prune.bench_links import redirected
from prune.folder import Folder
from prune.ld import script_argument
from prune.link import prepare, prepare_link
from prune.nameless import hide_tombstones
from prune.passes import Model
from prune.settings import load_settings
from tracer.host import BuildFailed, KpruneError, UserError, run_program


def main() -> None:
    """Command line."""
    try:
        out, objtree, into = (Path(word).absolute() for word in sys.argv[1:4])
        prune_once(out, objtree, into)
    except KpruneError as error:
        print(f"kprune: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def prune_once(out: Path, objtree: Path, into: Path, arch: str = "x86_64") -> None:
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
    passes.plan(replace(load_settings(out), out=into), folder, model)
    link = json.loads(folder.base("link.json").read_text())
    script, words = Path(link["script"]), redirected(link["argv"], into / "vmlinux")
    prepare(script, folder.plan, into, objtree, model.image)
    at = script_argument(words)
    if at is None:
        raise UserError(f"reading {folder.base('link.json')}: no link of a kernel", "kprune build")
    arguments, _, named = prepare_link(words, at, script, folder.plan, into)
    run_program(["ld", *arguments], doing="linking the pruned kernel", failure=BuildFailed)
    if not named:
        hide_tombstones(into / "vmlinux")


if __name__ == "__main__":
    main()
