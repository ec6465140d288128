"""The stages of a run with their inputs and outputs; :mod:`prune.run.pipeline` puts them in order.

Every stage knows its inputs by content: with the same inputs it does nothing.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tracer
from prune.build.doctor import require
from prune.build.kbuild import KernelBuild, build_kernel, describe_build, relink
from prune.build.source import resolve_source
from prune.build.toolchain import find_toolchain
from prune.folder import Folder
from prune.guests.heal import load_healed, rounds
from prune.model.buildid import build_id
from prune.model.knowledge import CODE
from prune.model.knowledge import FOLDER as KNOWLEDGE
from prune.plan.references import find_references
from prune.run import passes, profiling
from prune.run.planning import Model
from prune.run.wanted import require_options
from prune.settings import Settings, cache_folder
from prune.stages import run_stage, source_hash
from tracer.host import GuestFailed, GuestLost, ValidationFailed
from tracer.machines.machine import machine_kind
from tracer.module_list import FOLDER, LIST
from tracer.sessions.jitter import FIRST_HEALED
from tracer.sessions.options import SessionOptions
from tracer.sessions.runner import session_command
from tracer.workloads.workload import Workload
from tracer.workloads.workload_file import load_workload

_TRACER = Path(tracer.__file__).parent
#: What the tracer needs of a kernel.
TRACED = _TRACER / "traced.config"
_TO_BUILD = (
    "make", "gcc", "flex", "bison", "bc", "xz", "perl", "cpio",
    "/usr/include/libelf.h", "/usr/include/openssl/ssl.h",
)  # fmt: skip


class Steps:
    """The stages of one run over one folder."""

    def __init__(self, settings: Settings, dry_run: bool = False) -> None:
        self.settings = settings
        self.folder = Folder(settings.out)
        self.dry_run = dry_run

    @cached_property
    def workload(self) -> Workload:
        return load_workload(self.settings.workload, self.settings.arch)

    def _describe(self, flavour: str, *more: Path) -> KernelBuild:
        """A kernel as it is to be built."""
        settings = self.settings
        toolchain = find_toolchain(settings.toolchain, settings.lto, settings.opt)
        require([*_TO_BUILD, *toolchain.tools])
        source = resolve_source(settings.kernel, cache_folder())
        fragments = [*self.workload.kernel_configs, *settings.fragments, *more]
        build = describe_build(
            flavour, source, self.workload.arch, fragments, settings.config, cache_folder(), toolchain
        )
        require_options(build.config, self.workload)
        return build

    @cached_property
    def production(self) -> KernelBuild:
        return self._describe("production", *([TRACED] if self.settings.single_build else []))

    @cached_property
    def traced(self) -> KernelBuild:
        if self.settings.single_build:
            return self.production
        return self._describe("traced", TRACED)

    @cached_property
    def model(self) -> Model:
        return Model(self.folder, self.production.objtree, self.workload.arch)

    @cached_property
    def own_code(self) -> str:
        """kprune itself is an input of every stage."""
        return source_hash(CODE, KNOWLEDGE)

    def build(self, traced: bool = False) -> None:
        """Build the production kernel; the traced one if the settings need it, or ``traced``."""
        sides = {"base": self.production}
        if traced or self.settings.needs_traced:
            sides["traced"] = self.traced
        for build in dict.fromkeys(sides.values()):
            build_kernel(build, self.settings.jobs, self.dry_run)
        if self.dry_run:
            return
        self.settings.save()

        def work() -> None:
            for side, build in sides.items():
                kernel = "traced" if side == "traced" else "production"
                into, shipped = self.folder.path(side), self.workload.rootfs.modules
                passes.export(build, kernel, into, self.workload.arch, shipped)

        inputs: dict[str, str | int | Path | None] = {
            "code": self.own_code,
            "shipped": " ".join(self.workload.rootfs.modules),
        }
        for build in sides.values():
            inputs[build.flavour] = build.artefacts / "vmlinux"
            inputs[f"{build.flavour} image"] = build.artefacts / "bzImage"
            inputs[f"{build.flavour} modules"] = build.artefacts / "modules"
        names = ("vmlinux", "bzImage", "vmlinux.map", "symbols.json", "link.json", ".config")
        outputs = [self.folder.path(f"{side}/{name}") for side in sides for name in names]
        lists = [f"{side}/{FOLDER}/{LIST}" for side, build in sides.items() if build.module_targets]
        outputs += [self.folder.path(name) for name in lists]
        run_stage(self.settings.out, "build", inputs, outputs, work)

    def trace(self) -> None:
        both = self.settings.traces_on_traced
        if self.dry_run:
            kernels = ((self.folder.traced, True), (self.folder.base, False))
            for kernel, traced in kernels[0 if both else 1 :]:
                log = None if traced else self.folder.path("trace/blocks.log")
                self._show_session(kernel("bzImage"), SessionOptions(trace=traced, block_log=log))
            return
        self._require_emulator()
        if both and not self.folder.traced("symbols.json").is_file():
            self.build(traced=True)  # the run was begun with a profile, or with another one's sleepers
        inputs: dict[str, str | int | Path | None] = {
            "workload": self.workload.content_hash(),
            "code": source_hash(_TRACER),
            "production": self.folder.base("bzImage"),
            "traced": self.folder.traced("bzImage") if both else None,
            "symbols": self.folder.base("symbols.json"),
            "modules": self.folder.base(FOLDER),
            "traced modules": self.folder.traced(FOLDER) if both else None,
            "traced symbols": self.folder.traced("symbols.json") if both else None,
            "sleepers": self.settings.sleepers,
            "sources": self.settings.sources,
            "runs": self.settings.trace_runs,
            "quiet": self.settings.quiet,
        }
        run_stage(
            self.settings.out, "trace", inputs, [self.folder.traced_profile],
            lambda: profiling.trace(self.settings, self.workload, self.folder),
        )  # fmt: skip

    def gather(self) -> None:
        """Put the profile together from all that is known."""
        inputs: dict[str, str | int | Path | None] = {
            "code": self.own_code,
            "tracer": source_hash(_TRACER),
            "traced": self.settings.profile or self.folder.traced_profile,
            "symbols": self.folder.base("symbols.json"),
            "healed": self.folder.healed,
            "stale": str(self.settings.accept_stale),
            "sources": self.settings.sources,
            "static": str(self.settings.static),
            "modules": self.folder.base("modules/code.json"),
        }
        joined = (*self.folder.imports, *self.folder.retraced)
        inputs |= {str(path.relative_to(self.folder.out)): path for path in joined}
        run_stage(
            self.settings.out, "gather", inputs, [self.folder.profile, self.folder.stale],
            lambda: profiling.gather(
                self.settings, self.folder, lambda: find_references(self.model.functions)
            ),
        )  # fmt: skip

    def plan(self) -> None:
        if self.dry_run:
            self._would(f"decide which units to keep ({self.settings.keep})")
            return
        self.gather()
        inputs: dict[str, str | int | Path | None] = {
            "code": self.own_code,
            "profile": self.folder.profile,
            "base": self.folder.base("vmlinux"),
            "map": self.folder.base("vmlinux.map"),
            "rules": self.settings.rules,
            "keep": self.settings.keep,
            "grain": self.settings.grain,
            "chance": self.settings.chance,
            "free_boot": str(self.settings.free_boot),
            "named": str(self.settings.named),
            "sleepers": self.settings.sleepers,
            "module profile": self.folder.module_profile,
            "modules": self.folder.base("modules/modules.json"),
        }
        inputs |= {f"given {path}": path for path in profiling.given(self.settings, self.folder)}
        run_stage(
            self.settings.out, "plan", inputs, [self.folder.plan],
            lambda: passes.plan(self.settings, self.folder, self.model),
        )  # fmt: skip

    def link(self) -> None:
        if self.dry_run:
            relink(self.production, self.folder.plan, self.folder.path("pruned"), Path(), dry_run=True)
            return
        inputs: dict[str, str | int | Path | None] = {
            "code": self.own_code,
            "plan": self.folder.plan,
            "base": self.folder.base("vmlinux"),
            "objtree": str(self.production.objtree),
            "module plans": self.folder.module_plans,
        }
        outputs = [self.folder.pruned(n) for n in ("vmlinux", "bzImage", "vmlinux.map", "tombstones.json")]
        run_stage(
            self.settings.out, "link", inputs, outputs,
            lambda: passes.link(self.production, self.folder, self.model),
        )  # fmt: skip

    def verify(self) -> None:
        if self.dry_run:
            self._would("read the pruned vmlinux again and prove it")
            return
        names = ("vmlinux", "vmlinux.map", "tombstones.json")
        inputs: dict[str, str | int | Path | None] = {name: self.folder.pruned(name) for name in names}
        inputs |= {"code": self.own_code, "plan": self.folder.plan}
        inputs |= {"modules": self.folder.pruned(FOLDER), "module plans": self.folder.module_plans}
        run_stage(
            self.settings.out, "verify", inputs, [self.folder.verdict],
            lambda: passes.verify(self.folder, self.production.objtree, self.workload.arch),
        )  # fmt: skip
        verdict = passes.read_result(self.folder.verdict, "verdict", ("ok", "checks"))
        if not verdict["ok"]:
            broken = [check for check in verdict["checks"] if not check["ok"]]
            first = "; ".join(f"{check['name']}: {check['findings'][0]}" for check in broken)
            raise ValidationFailed(
                f"verifying the pruned kernel: {first}", f"all of it is in {self.folder.verdict}"
            )

    def boot(self, numbers: Sequence[int] = ()) -> None:
        """Boot the pruned kernel in these variations of the workload; by default in those of the next round.

        Raises:
            GuestFailed, GuestLost, ValidationFailed: as the first boot that failed, after all of them.
        """
        if self.dry_run:
            self._show_session(self.folder.pruned("bzImage"), SessionOptions())
            return
        self._require_emulator()
        if not numbers:
            healed = load_healed(self.folder.healed, build_id(self.folder.base("vmlinux")))
            first = FIRST_HEALED + rounds(healed) * self.settings.boots
            numbers = range(first, first + self.settings.boots)
        inputs: dict[str, str | int | Path | None] = {
            "image": self.folder.pruned("bzImage"),
            "modules": self.folder.pruned(FOLDER),
            "tombstones": self.folder.pruned("tombstones.json"),
            "workload": self.workload.content_hash(),
            "code": source_hash(_TRACER),
            "boots": " ".join(map(str, numbers)),
        }
        run_stage(
            self.settings.out, "boot", inputs, [self.folder.boots],
            lambda: passes.boot(self.workload, self.folder, numbers, self.settings.jobs),
        )  # fmt: skip
        failed = next(
            (b for b in passes.read_result(self.folder.boots, "boots", ("each",))["each"] if b["problem"]),
            None,
        )
        if failed:
            kinds = {kind.exit_code: kind for kind in (ValidationFailed, GuestFailed, GuestLost)}
            from prune.guests.boots import way_out

            told = f"booting the pruned kernel: {failed['problem']}"
            raise kinds[failed["exit_code"]](told, way_out(failed))

    def report(self) -> dict[str, Any]:
        """Measure both kernels; write ``report.json`` and all that goes with it."""
        if self.dry_run:
            self._would("measure both kernels")
            return {}
        from prune.run.reporting import write_report

        folder = self.folder
        inputs: dict[str, str | int | Path | None] = {"code": self.own_code, "settings": str(self.settings)}
        inputs |= {
            str(path.relative_to(folder.out)): path
            for path in (
                folder.base("vmlinux.map"), folder.pruned("vmlinux"), folder.pruned("vmlinux.map"),
                folder.plan, folder.profile, folder.boots, folder.verdict, folder.healed, folder.stale,
                folder.minram, folder.security, folder.holdout, folder.pruned(FOLDER),
            )
        }  # fmt: skip
        run_stage(
            self.settings.out, "report", inputs, [folder.path("report.json"), folder.ledger, folder.page],
            lambda: write_report(self.settings, self.model, self.production, self.workload),
            alone=False,
        )  # fmt: skip
        value: dict[str, Any] = json.loads(folder.path("report.json").read_text())
        return value

    def _require_emulator(self) -> None:
        kind = machine_kind(self.workload.arch)
        require([kind.program, *self.workload.needs], {kind.program: kind.package})

    def _show_session(self, kernel: Path, options: SessionOptions) -> None:
        into = self.folder.path("trace")
        print(shlex.join(session_command(kernel, into / "initrd.cpio", self.workload, options, into)))

    @staticmethod
    def _would(what: str) -> None:
        print(f"# {what}")
