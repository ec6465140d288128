"""The kernels of a run's folder, as they are booted."""

from __future__ import annotations

from prune.folder import Folder
from prune.guests.boots import PrunedKernel, read_pruned, unpruned
from prune.run.profiling import is_smp, moves


def kernel_of(folder: Folder, side: str) -> PrunedKernel:
    """The ``base`` or the ``pruned`` kernel; what they can do is the same, for one is made of the other.

    Raises:
        UserError: there is no pruned kernel.
    """
    config = folder.base(".config")
    if side == "base":
        return unpruned(folder.base("bzImage"), is_smp(config), moves(config))
    return read_pruned(folder.path("pruned"), is_smp(config), moves(config))
