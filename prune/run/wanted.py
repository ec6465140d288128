"""What a workload's guests need of the kernel's configuration, looked at before anything is built.

A kernel without a driver for the disk is built for minutes, and then says only that there is no such device.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from prune.model.knowledge import wanted_options
from tracer.host import UserError
from tracer.workloads.workload import Workload

_SET = re.compile(r"^CONFIG_(\w+)=([ym])$", re.M)


def require_options(config: str, workload: Workload) -> None:
    """Check the text of a ``.config``.

    Raises:
        UserError: options are missing; it names all of them, and what needs each.
    """
    options = dict(_SET.findall(config))
    missing = {
        f"{who} needs {' or '.join(f'CONFIG_{name}' for name in names)}": None
        for who, names, values in _wanted(workload)
        if not any(options.get(name, "n") in values for name in names)
    }
    if missing:
        raise UserError(
            f"configuring a kernel for {workload.name}: {'; '.join(missing)}",
            "add them, and what they depend on, to a fragment that kernel_config in workload.toml names",
        )


def _wanted(workload: Workload) -> Iterator[tuple[str, Sequence[str], str]]:
    """(who needs it, one of these options, values that will do)."""
    known = wanted_options()
    machine, device = workload.machine, workload.rootfs.device
    needs = [(who, known[who], "y") for who in ("the agent", "the console")]
    if device:
        root = f"the root file system's {device}"
        needs += [(root, known["a disk"], "y"), (root, known["format"].get(device, ()), "y")]
    else:
        needs += [("the initial RAM file system", known["the initial RAM file system"], "y")]
    for disk in workload.disks:
        who = f"the {disk.format} of {disk.mount}"
        loadable = "ym" if workload.rootfs.modules else "y"
        needs += [(who, known["a disk"], "y"), (who, known["format"].get(disk.format, ()), loadable)]
    if machine.forward or workload.servers:
        card = f"the network card {machine.nic}"
        needs += [
            ("the network", known["the network"], "y"),
            (card, known["card"].get(machine.nic, ()), "ym"),
        ]
    for who, rows, values in needs:
        for names in rows:
            yield who, names, values
