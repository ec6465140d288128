"""Options without which a workload's guests get nowhere are asked for before a kernel is built."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from prune.run.wanted import require_options
from tracer.host import UserError
from tracer.workloads.workload_file import load_workload

EXAMPLES = Path(__file__).parents[2] / "examples"
AGENT = ("BINFMT_ELF", "BINFMT_SCRIPT", "PROC_FS", "PRINTK", "TTY", "SERIAL_8250", "SERIAL_8250_CONSOLE")
MICRO = (*AGENT, "BLK_DEV_INITRD", "INET", "VIRTIO_PCI", "VIRTIO_NET")
SERVER = (*MICRO, "BLK_DEV", "VIRTIO_BLK", "EXT4_FS")
SMALL32 = (*AGENT, "INET", "NE2K_PCI", "BLK_DEV", "VIRTIO_PCI", "VIRTIO_BLK", "ROMFS_FS")


def config(*names: str, **values: str) -> str:
    lines = [f"CONFIG_{name}={values.get(name, 'y')}" for name in names]
    return "\n".join(["# CONFIG_MODULES is not set", *lines, ""])


@pytest.mark.parametrize(
    ("example", "arch", "names"),
    [("micro", "x86_64", MICRO), ("nginx", "x86_64", SERVER), ("small", "i386", SMALL32)],
)
def test_every_option_is_needed_and_no_other(example: str, arch: str, names: tuple[str, ...]) -> None:
    workload = load_workload(EXAMPLES / example, arch)
    require_options(config(*names), workload)
    for name in names:
        with pytest.raises(UserError, match=f"CONFIG_{name}\\b") as caught:
            require_options(config(*set(names) - {name}), workload)
        assert "\n" not in str(caught.value) and "kernel_config" in str(caught.value)


def test_who_needs_what_is_said_at_once() -> None:
    with pytest.raises(UserError) as caught:
        require_options(config(*MICRO, VIRTIO_NET="m"), load_workload(EXAMPLES / "nginx"))
    said = str(caught.value)
    assert said.startswith("configuring a kernel for nginx: the ext4 of /data needs CONFIG_BLK_DEV; ")
    assert "the ext4 of /data needs CONFIG_VIRTIO_BLK; the ext4 of /data needs CONFIG_EXT4_FS" in said
    assert "VIRTIO_NET" not in said  # a card's driver may be a module, which an app loads
    nginx = load_workload(EXAMPLES / "nginx")
    with pytest.raises(UserError, match="EXT4_FS"):
        require_options(config(*SERVER, EXT4_FS="m"), nginx)
    # With modules in the root file system, mounting loads it; what finds the disk, nothing loads.
    modular = replace(nginx, rootfs=replace(nginx.rootfs, modules=("*",)))
    require_options(config(*SERVER, EXT4_FS="m"), modular)
    with pytest.raises(UserError, match="VIRTIO_BLK"):
        require_options(config(*SERVER, VIRTIO_BLK="m"), modular)


def test_a_card_of_which_nothing_is_known_or_that_nobody_needs() -> None:
    micro = load_workload(EXAMPLES / "micro")
    require_options(config(*MICRO), replace(micro, machine=replace(micro.machine, nic="igb")))
    alone = replace(micro, machine=replace(micro.machine, forward=()))
    require_options(config(*AGENT, "BLK_DEV_INITRD"), alone)
    cards = replace(micro, machine=replace(micro.machine, nic="rtl8139"))
    require_options(config(*MICRO, "8139TOO"), cards)
    with pytest.raises(UserError, match="the network card rtl8139 needs CONFIG_8139CP or CONFIG_8139TOO"):
        require_options(config(*MICRO), cards)
