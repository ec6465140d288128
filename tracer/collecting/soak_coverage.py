"""What runs on the production kernel in a soak: block coverage of one guest, as a profile.

A soak of the pruned kernel ends at its first miss. This shows what else the troubles ask for, in one go.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from tracer.collecting.accumulate import Sightings
from tracer.collecting.collect import KernelBuild
from tracer.collecting.coverage import RunPlan, boot_ends, read_coverage
from tracer.files.rootfs import Roots
from tracer.host import say
from tracer.machines.vm import NOWHERE, POWERED_OFF
from tracer.profiles.phases import BLOCKS
from tracer.profiles.profile import Profile
from tracer.profiles.symbols import load_symbols
from tracer.sessions.jitter import Jitter
from tracer.sessions.options import SessionOptions
from tracer.sessions.runner import SessionResult, open_session
from tracer.sessions.soak import scripts, soaked
from tracer.workloads.workload import Workload


def collect_soak(
    workload: Workload, kernel: KernelBuild, into: Path, cache: Path, seconds: float, troubles: Sequence[str]
) -> Profile:
    """Soak the production kernel for so long, and see what runs.

    Raises:
        AppFailed, GuestPanicked, GuestHung, VmVanished: see :mod:`tracer.sessions.soak`.
        HostError: QEMU cannot be started, or the log does not fit.
    """
    symbols = load_symbols(kernel.symbols, "production")
    root = Roots(workload, into, cache, scripts(workload)).of(kernel.image)
    how = Jitter(cpus=workload.machine.cpus)
    log = into / "blocks.log"
    arguments = (*how.arguments(), *NOWHERE)
    options = SessionOptions(flush=True, boot_ends=boot_ends(symbols), block_log=log, arguments=arguments)
    began = time.monotonic()
    with open_session(kernel.image, root, workload, options, into) as session:
        session.watch_boot_end()
        requests = sum(s.requests for s in soaked(session, began, began + seconds, tuple(troubles)))
        vm = session.vm
        vm.close()
        took = time.monotonic() - began
        result = SessionResult(
            POWERED_OFF, vm.console_text(), tuple(session.marks), b"", took, tuple(vm.command),
            session.kernel_version,
        )  # fmt: skip
    say(f"soak of the whole kernel: {requests:,} requests in {took:.0f} s")
    coverage = read_coverage(
        RunPlan("soak", BLOCKS, kernel.image, how, options), result, workload, symbols, False
    )
    sightings = Sightings(workload, symbols, None)
    sightings.add_blocks(coverage)
    return sightings.profile([BLOCKS])
