"""``kprune-ld``: the ``LD`` of a kernel build.

kbuild rebuilds everything when ``LD=`` changes, so the same wrapper serves from the first object on.
It is ``ld`` itself for every call but two. The link of ``vmlinux``, known by its script
``arch/*/kernel/vmlinux.lds``, gets a script which places function and data sections, and a
link map. With ``KPRUNE_PLAN`` in the environment it gets the plan's script and the edited objects. The link
of a module (``-r`` with ``scripts/module.lds``) gets such a script and a map as well, and is recorded: kprune
makes it again by itself (:mod:`prune.modules.link`).

Environment: ``KPRUNE_LD`` (the real linker, default ``ld``), ``KPRUNE_PLAN`` (a plan.json).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

_KERNEL_SCRIPT = re.compile(r"(^|/)arch/[^/]+/kernel/vmlinux\.lds$")
_MODULE_SCRIPT = re.compile(r"(^|/)(scripts|arch/[^/]+)/module\.lds$")
_FINAL = ("vmlinux", "vmlinux.unstripped")


def main() -> None:
    """Console entry point."""
    # The Python start-up of a thousand pass-through calls is the cost: import the rest when needed.
    arguments = sys.argv[1:]
    wanted = os.environ.get("KPRUNE_LD", "ld")
    linker = shutil.which(wanted)
    if linker is None:
        print(f"kprune-ld: {wanted} is not there; apt install binutils, or set KPRUNE_LD", file=sys.stderr)
        sys.exit(3)
    at, module_at = script_argument(arguments), module_argument(arguments)
    if at is None and module_at is None:
        os.execv(linker, [linker, *arguments])
    from tracer.host import KpruneError

    try:
        if at is not None:
            sys.exit(_link_kernel(linker, arguments, at))
        if module_at is not None:
            sys.exit(_link_module(linker, arguments, module_at))
    except KpruneError as error:
        print(f"kprune-ld: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def script_argument(arguments: list[str]) -> int | None:
    """Index of the argument that holds the kernel's linker script, or None: not the kernel's link."""
    return None if _is_partial(arguments) else _script_at(arguments, _KERNEL_SCRIPT)


def module_argument(arguments: list[str]) -> int | None:
    """Index of the argument that holds the modules' linker script, or None: no last link of a module."""
    return _script_at(arguments, _MODULE_SCRIPT) if _is_partial(arguments) else None


def _is_partial(arguments: list[str]) -> bool:
    return "-r" in arguments or "--relocatable" in arguments


def _script_at(arguments: list[str], script: re.Pattern[str]) -> int | None:
    for index, word in enumerate(arguments):
        name = word.removeprefix("--script=")
        if script.search(name) and (word != name or arguments[index - 1] in ("-T", "--script")):
            return index
    return None


def output_of(arguments: list[str]) -> str:
    """The file that a link writes."""
    return arguments[arguments.index("-o") + 1] if "-o" in arguments else "a.out"


def _read_script(script: Path) -> str:
    from tracer.host import UserError

    try:
        return script.read_text()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UserError(f"reading the linker script: {script}: {why}", "build the kernel again") from error


def _link_module(linker: str, arguments: list[str], at: int) -> int:
    from prune.linking.script import place_module_units
    from prune.model.knowledge import read_module_places
    from tracer.host import whole_file, write_json

    script = Path(arguments[at].removeprefix("--script="))
    home, output = Path(".kprune"), output_of(arguments)
    placed = home / "module.lds"
    with whole_file(placed) as stream:
        stream.write(place_module_units(_read_script(script), read_module_places()))
    words = list(arguments)
    words[at] = f"--script={placed}" if words[at].startswith("--script=") else str(placed)
    map_file = home / "modules" / f"{output}.map"
    map_file.parent.mkdir(parents=True, exist_ok=True)
    done, inputs = _run(linker, [*words, f"-Map={map_file}"])
    if done == 0:
        _list_inputs(map_file, inputs)
        write_json(home / "modules" / f"{output}.json", {"schema_version": 1, "argv": words})
    return done


def _link_kernel(linker: str, arguments: list[str], at: int) -> int:
    from tracer.host import HostError, KpruneError, UserError

    script = Path(arguments[at].removeprefix("--script="))
    text = _read_script(script)
    folder = Path(".kprune")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise HostError(f"making {folder}: {error.strerror}", "free some space, or clear the way") from error
    plan = os.environ.get("KPRUNE_PLAN")
    if plan:
        if not Path(plan).is_file():
            raise UserError(
                f"reading the plan: {plan} does not exist in {Path.cwd()}, where kbuild links",
                "give KPRUNE_PLAN as an absolute path",
            )
        from prune.linking.link import prepare_link

        words, map_file, named = prepare_link(arguments, at, script, Path(plan), folder)
    else:
        words, map_file = _unpruned(arguments, at, script, text, folder)
        named = True
    final = Path(output_of(arguments)).name in _FINAL
    if not final and named:
        os.execv(linker, [linker, *words])
    with_map = [word for word in words if not word.startswith("-Map")] + [f"-Map={map_file}"]
    done, inputs = _run(linker, with_map if final else words)
    if done == 0:
        try:
            if not named:
                from prune.linking.nameless import hide_tombstones

                hide_tombstones(Path(output_of(arguments)))
            if final:
                _list_inputs(map_file, inputs)
                _describe(plan, folder, map_file, Path(output_of(arguments)))
        except KpruneError:
            Path(output_of(arguments)).unlink(missing_ok=True)
            raise
    for word in words:
        if word.startswith("-Map=") and done == 0 and final:  # CONFIG_VMLINUX_MAP: the user's own map.
            shutil.copyfile(map_file, word.removeprefix("-Map="))
    return done


def _run(linker: str, words: list[str]) -> tuple[int, str]:
    """(exit code, the inputs in order when the linker is lld, whose map does not tell)."""
    if "lld" not in Path(linker).name:
        return subprocess.run([linker, *words], check=False).returncode, ""
    done = subprocess.run([linker, *words, "--trace"], check=False, stdout=subprocess.PIPE, text=True)
    return done.returncode, done.stdout


def _list_inputs(map_file: Path, inputs: str) -> None:
    from prune.model.lldmap import INPUTS
    from tracer.host import HostError

    if inputs:
        try:
            with map_file.open("a") as stream:
                stream.write(INPUTS + inputs)
        except OSError as error:
            raise HostError(f"writing {map_file}: {error.strerror}", "free some space") from error


def _describe(plan: str | None, folder: Path, map_file: Path, vmlinux: Path) -> None:
    """The files without which nothing can be said of this vmlinux; ld ignores a full disk under its map."""
    from prune.model.lldmap import INPUTS
    from tracer.host import HostError

    written = map_file.read_bytes()
    if b"\nOUTPUT(" not in written and INPUTS.encode() not in written:
        raise HostError(f"writing {map_file}: it is cut short", "free some space, and link again")
    if plan:
        from prune.linking.link import resolve_tombstones

        resolve_tombstones(folder, map_file, vmlinux, Path("tombstones.json"))


def _unpruned(arguments: list[str], at: int, script: Path, text: str, folder: Path) -> tuple[list[str], Path]:
    from prune.linking.script import place_units
    from prune.model.knowledge import read_places
    from tracer.host import whole_file, write_json

    placed = folder / "vmlinux.lds"
    with whole_file(placed) as stream:
        stream.write(place_units(text, read_places()))
    words = list(arguments)
    words[at] = f"--script={placed}" if words[at].startswith("--script=") else str(placed)
    map_file = Path("vmlinux.map")
    if Path(output_of(arguments)).name in _FINAL:
        write_json(
            Path("link.json"),
            {"schema_version": 1, "script": str(script), "argv": arguments},
        )
    return words, map_file


if __name__ == "__main__":
    main()
