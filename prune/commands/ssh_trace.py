"""``kprune trace OUT --ssh user@host``: the workload runs on a machine that has it installed, under the
function profiler of that machine's kernel; what ran becomes a profile in ``OUT/imports``.

Of OUT only the kernels are needed (``kprune build``). Nothing of ssh is kept in ``OUT/run.json``: a plan
needs the profile, not the machine.
"""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path

from prune.build.doctor import require
from prune.commands import imports as cmd_import
from prune.folder import Folder
from prune.settings import load_settings
from tracer.elsewhere.imported import import_collected
from tracer.elsewhere.matching import PRODUCTION, TRACED
from tracer.elsewhere.remote import collect_over_ssh, remote_line
from tracer.elsewhere.ssh import SshTarget
from tracer.host import UserError, say, show
from tracer.profiles.profile import save_profile
from tracer.workloads.workload_file import load_workload

_HIGHEST_PORT = 65535


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``trace`` takes of ssh."""
    group = parser.add_argument_group(
        "on hardware", "Run the workload on a machine that has its apps, rather than in guests of QEMU."
    )
    group.add_argument("--ssh", default="", metavar="USER@HOST", help="root there, with a key that ssh finds")
    group.add_argument(
        "--ssh-option", action="append", default=[], metavar="WORDS",
        help="for ssh, split as by a shell: --ssh-option '-p 2222'; may be repeated",
    )  # fmt: skip
    group.add_argument(
        "--ssh-port-map", action="append", default=[], type=_port_map, metavar="GUEST:HOST",
        help="host commands reach port GUEST of the workload at port HOST; may be repeated",
    )  # fmt: skip
    group.add_argument(
        "--of", default="", choices=(TRACED, PRODUCTION),
        help="which kernel of OUT runs there (default: by its build id)",
    )  # fmt: skip


def check_options(options: argparse.Namespace) -> None:
    """Whether ``trace`` was asked for things that go together.

    Raises:
        UserError: they do not.
    """
    if not options.ssh:
        for name in ("ssh_option", "ssh_port_map", "of"):
            if getattr(options, name):
                raise UserError(
                    f"reading --{name.replace('_', '-')}: there is no --ssh USER@HOST to go with it"
                )
    elif options.sources or options.quiet:
        name = "--sources" if options.sources else "--quiet-runs"
        raise UserError(
            f"reading {name}: with --ssh the function profiler is the only source, and runs are counted",
            f"leave {name} out; --trace-runs N is how often to run",
        )


def run(options: argparse.Namespace) -> int:
    """Collect there, import here.

    Raises:
        UserError, HostError: see :func:`tracer.elsewhere.remote.collect_over_ssh`; OUT has no kernels.
        ValidationFailed: an app failed, or what came back is not complete.
    """
    out = options.out.absolute()
    folder = Folder(out)
    settings = load_settings(out)
    workload = load_workload(settings.workload, settings.arch)
    kernels = cmd_import.load_kernels(folder)
    words = tuple(word for option in options.ssh_option for word in _split(option))
    target = SshTarget(options.ssh, words, tuple(options.ssh_port_map), options.trace_runs or 1)
    # Its suffix is there for output_of to take away, rather than what follows a dot of the address.
    name = Path(f"ssh-{options.ssh.rpartition('@')[2]}.tar")
    output = cmd_import.output_of(name, out)
    if options.dry_run:
        print(shlex.join(target.command(remote_line("/tmp/kprune-NEW", target.runs))))
        return 0
    require(("ssh",))
    tar = collect_over_ssh(workload, target, folder.path("ssh") / output.stem)
    imported = import_collected(tar, kernels, options.of, (workload.name, workload.content_hash()))
    save_profile(imported.profile, output)
    result = cmd_import.Result(tar, output, imported)
    show(json.dumps(cmd_import.to_json(result), indent=1) if options.json else cmd_import.table([result]))
    cmd_import.warn(result)
    say(f"next: kprune plan {options.out}")
    return 0


def _split(words: str) -> list[str]:
    try:
        return shlex.split(words)
    except ValueError as error:
        raise UserError(f"reading --ssh-option {words!r}: {error}") from error


def _port_map(text: str) -> tuple[int, int]:
    guest, _, host = text.partition(":")
    if not all(port.isdecimal() and 0 < int(port) <= _HIGHEST_PORT for port in (guest, host)):
        raise argparse.ArgumentTypeError(f"{text} is not GUEST:HOST, two TCP ports")
    return int(guest), int(host)
