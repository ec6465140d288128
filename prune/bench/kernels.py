"""The kernels of ``make bench``, from a thousand functions to those of a distribution, each with a profile.

    tiny        the kernel's tinyconfig for this architecture, nothing added
    micro       examples/micro, as `make demo` builds and traces it
    defconfig   the kernel's defconfig with its kvm_guest.config, which boots examples/micro's workload, too

``defconfig`` gets a profile of its own, of a few runs under block coverage; ``tiny``, which has not even a
console, none: of it goes what nothing reaches (``--profile none``).
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from prune.build.config import kconfig
from prune.build.doctor import require
from prune.build.flags import kbuild_knowledge
from prune.build.kbuild import KernelBuild, build_kernel, describe_build
from prune.build.source import Source, resolve_source
from prune.build.toolchain import Toolchain, find_toolchain
from prune.folder import Folder
from prune.model.knowledge import CODE, FOLDER
from prune.run import passes, profiling
from prune.run.pipeline import Pipeline
from prune.run.planning import Model
from prune.settings import Settings, cache_folder
from prune.stages import run_stage, source_hash
from tracer.collecting.collect import KernelBuild as TracedBuild
from tracer.collecting.collect import collect_runs
from tracer.host import BuildFailed, UserError, run_program
from tracer.profiles.profile import save_profile
from tracer.workloads.workload_file import load_workload

KERNELS = ("tiny", "micro", "defconfig")
_PROFILES = {
    "tiny": "none: what nothing reaches goes",
    "micro": "of examples/micro, as make demo traced it",
    "defconfig": "of examples/micro on this kernel, three runs under block coverage",
}
_RUNS = 3
#: The kernel's own configuration targets that ``defconfig`` is made by.
_DEFCONFIG = ("defconfig", "kvm_guest.config")


@dataclass(frozen=True)
class BenchKernel:
    """One kernel, built by GCC, with a profile in ``out``; ``profile``: where that came from."""

    name: str
    build: KernelBuild
    out: Path
    profile: str

    def size(self) -> dict[str, int]:
        """What there is to link: ``objects``, ``sections`` that are loaded, ``relocations`` of them."""
        image = Model(Folder(self.out), self.build.objtree, self.build.arch).image
        return {
            "objects": len(image.objects),
            "sections": len(image.units),
            "relocations": len(image.relocations),
        }


class Kernels:
    """Builds what is missing below ``home``; ``demo`` is the folder that ``make demo`` fills."""

    def __init__(self, workload: Path, demo: Path, home: Path) -> None:
        self.workload, self.demo, self.home = workload, demo, home

    @cached_property
    def source(self) -> Source:
        return resolve_source(None, cache_folder())

    def kernel(self, name: str) -> BenchKernel:
        """The kernel, built, with its profile gathered.

        Raises:
            UserError: there is no such kernel.
        """
        if name not in KERNELS:
            raise UserError(f"choosing kernels: there is no {name}", f"there are: {', '.join(KERNELS)}")
        build = self.describe(name)
        build_kernel(build)
        out = self.home / name
        settings = self._settings(name, out)
        settings.save()
        folder = Folder(out)

        def work() -> None:
            passes.export(build, "production", out / "base", build.arch)
            if name == "defconfig":
                self._trace(folder)
            profiling.gather(settings, folder)

        inputs: dict[str, str | int | Path | None] = {
            "code": source_hash(CODE, FOLDER),
            "build": build.artefacts / "vmlinux",
            "profile": settings.profile,
        }
        outputs = [folder.profile, folder.base("vmlinux.map"), folder.base("link.json")]
        run_stage(out, "gather", inputs, outputs, work)
        return BenchKernel(name, build, out, _PROFILES[name])

    def _settings(self, name: str, out: Path) -> Settings:
        if name == "tiny":
            return Settings(self.workload, out, static=True)
        if name == "defconfig":
            # Where tasks sleep only a traced kernel tells: nothing is freed after boot.
            return Settings(self.workload, out, sources="blocks", free_boot=False)
        return Settings(self.workload, out, profile=self._traced())

    def _trace(self, folder: Folder) -> None:
        """Run the workload a few times under block coverage."""
        kernel = TracedBuild(folder.base("bzImage"), folder.base("symbols.json"), smp=True)
        workload = load_workload(self.workload)
        made = collect_runs(workload, kernel, folder.path("trace"), cache_folder(), range(_RUNS))
        save_profile(made, folder.traced_profile)

    def lto(self, name: str, lto: str) -> KernelBuild:
        """The same configuration built by clang with ``thin`` or ``full`` LTO."""
        build = self.describe(name, "clang", lto)
        build_kernel(build)
        return build

    def describe(self, name: str, compiler: str = "gcc", lto: str = "none") -> KernelBuild:
        """Where a kernel is built, by the same key as ``kprune build`` uses."""
        workload = load_workload(self.workload)
        toolchain = find_toolchain(compiler, lto)
        require(toolchain.tools)
        own = workload.kernel_configs if name != "tiny" else ()
        config = self._defconfig(workload.arch, toolchain) if name == "defconfig" else None
        return describe_build(
            "production", self.source, workload.arch, own, config, cache_folder(), toolchain
        )  # fmt: skip

    def _traced(self) -> Path:
        """The profile of ``make demo``, which is traced now if nobody has."""
        profile = Folder(self.demo).profile
        if not profile.is_file():
            pipeline = Pipeline(Settings(self.workload, self.demo))
            pipeline.build()
            pipeline.trace()
            pipeline.gather()
        return profile

    def _defconfig(self, arch: str, toolchain: Toolchain) -> Path:
        """The configuration, for each compiler: the kernel leaves out what clang has no flags for."""
        made = self.home / f"defconfig-{self.source.content_hash[:8]}-{toolchain.name}.config"
        if not made.is_file():
            made.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="kprune-config-") as folder:
                arch = kbuild_knowledge(arch)["arch"]
                make = kconfig(self.source, arch, Path(folder), toolchain.make)
                run_program(
                    [*make, *_DEFCONFIG], doing="making the kernel configuration", failure=BuildFailed
                )
                shutil.copyfile(Path(folder) / ".config", made)
        return made
