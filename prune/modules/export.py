"""The modules of a build in the run's folder, for guests and plans: ``OUT/base/modules``."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from prune.build.kbuild import MODULES, RELEASE, KernelBuild
from prune.build.modules import Module, check_options, read_modules, save_modules, shipped
from prune.model.elf import read_object
from prune.model.knowledge import Knowledge, option
from prune.model.mapfile import read_link_map
from prune.modules.code import Built, save_module_code
from prune.modules.model import RECORDED, read_module_model
from prune.modules.refused import refused
from prune.modules.signing import sign_modules
from tracer.host import UserError, whole_file
from tracer.module_list import FOLDER, REFUSED
from tracer.profiles.module_blocks import CODE


def export_modules(build: KernelBuild, into: Path, wanted: Sequence[str], knowledge: Knowledge) -> None:
    """Copy all modules of a finished build, signed where the kernel asks for that, with ``modules.json``.

    Args:
        into: the kernel's folder, ``OUT/base`` or ``OUT/traced``.
        wanted: shell patterns of what the workload ships.

    Raises:
        UserError: the kernel has no modules, or not those.
    """
    folder = into / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    if not build.module_targets:
        if wanted:
            raise UserError(
                f"choosing modules: the kernel loads none, and the workload ships {', '.join(wanted)}",
                f"set {option('modules')}=y in its kernel_config",
            )
        return
    if wanted:
        check_options(into / ".config")
    made = build.artefacts / MODULES
    paths = sorted(str(path.relative_to(made)) for path in made.rglob("*.ko"))
    modules = shipped(read_modules(made, paths, knowledge.machine), wanted)
    for path in paths:
        _write(folder / path, (made / path).read_bytes())
    save_modules(modules, (made / RELEASE).read_text().strip(), folder)
    write_refused(folder, modules, knowledge)
    save_module_code(_built(build, modules, knowledge), knowledge, into / CODE)
    sign_modules(build.objtree, build.source.path, sorted(folder.rglob("*.ko")))


def _built(build: KernelBuild, modules: Sequence[Module], knowledge: Knowledge) -> Iterator[Built]:
    """Those that the workload ships, as they were linked, if any of their functions could go."""
    for module in modules:
        model = read_module_model(build.objtree, module, knowledge) if module.shipped else None
        if model:
            link_map = read_link_map(build.objtree / RECORDED / f"{module.path}.map")
            file = read_object(build.objtree / module.path, knowledge.machine)
            yield Built(module.name, file, link_map, model.image)


def write_refused(folder: Path, modules: Sequence[Module], knowledge: Knowledge) -> None:
    """The module that guests try in vain, a copy of the first that they have, if they have any."""
    first = next((module for module in modules if module.shipped), None)
    if first:
        file = read_object(folder / first.path, knowledge.machine)
        _write(folder / REFUSED, refused(file, first.name))


def _write(path: Path, data: bytes) -> None:
    with whole_file(path, "wb") as stream:
        stream.write(data)
