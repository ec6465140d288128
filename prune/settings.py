"""The settings of one run, kept in ``OUT/run.json`` so that later verbs need only the folder."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import msgspec

from tracer.host import MISSHAPEN, UserError, read_json, write_json

SCHEMA = 1
#: How far around what ran a plan keeps.
WIDTHS = ("ran", "callees", "reachable")
#: What goes: whole functions, or the cold blocks of those that stay as well.
GRAINS = ("function", "block")
#: What of that which chance decides stays: functions, and the cold blocks of hot ones; functions; nothing.
CHANCES = ("blocks", "functions", "none")
#: What a profile can be traced with.
SOURCES = ("ftrace", "blocks", "ftrace+blocks")


@dataclass(frozen=True)
class Settings:
    """What the user asked for; paths are absolute. ``trace_runs``: 0 for as many as it takes until the last
    ``quiet`` add nothing; ``profile``: take this one instead of tracing; ``free_boot``: what only booting
    runs goes where the kernel frees it; ``chance``: one of :data:`CHANCES`;
    ``named``: kallsyms has the names of tombstones; ``static``: no
    profile at all, what no reference from the kernel's beginnings reaches goes; ``sleepers``: a profile that
    says where tasks sleep, so that no traced kernel has to; ``arch``: one of the workload's, "" for its
    first; ``fragments``: of the configuration, over the workload's; ``single_build``: the production kernel
    has what the traced one has, and is both."""

    workload: Path
    out: Path
    kernel: Path | None = None
    config: Path | None = None
    rules: Path | None = None
    keep: str = "ran"
    sources: str = "ftrace+blocks"
    trace_runs: int = 0
    quiet: int = 2
    profile: Path | None = None
    accept_stale: bool = False
    boots: int = 10
    jobs: int = 0
    heal: bool = True
    heal_rounds: int = 5
    free_boot: bool = True
    named: bool = False
    grain: str = "function"
    chance: str = "blocks"
    static: bool = False
    toolchain: str = "gcc"
    lto: str = "none"
    opt: str = "config"
    sleepers: Path | None = None
    arch: str = ""
    fragments: tuple[Path, ...] = ()
    single_build: bool = False

    @property
    def traces_on_traced(self) -> bool:
        """Whether tracing needs the traced kernel: for what ftrace sees, or for where tasks sleep."""
        return "ftrace" in self.sources or self.sleepers is None

    @property
    def needs_traced(self) -> bool:
        """Whether the run does; without blocks, healing needs it as well."""
        given = self.profile is not None or self.static
        return "blocks" not in self.sources or (not given and self.traces_on_traced)

    def save(self) -> None:
        value: dict[str, Any] = msgspec.to_builtins(asdict(self), enc_hook=str)
        write_json(self.out / "run.json", {"schema_version": SCHEMA, **value})


def load_settings(out: Path) -> Settings:
    """The settings that ``OUT`` was begun with.

    Raises:
        UserError: no such folder, or a damaged ``run.json``.
    """
    value = read_json(out / "run.json", "settings of the run", SCHEMA)
    del value["schema_version"]
    try:
        # An earlier kprune knew fewer of them; what it did is what they say by default.
        if not {"workload", "out"} <= value.keys() <= {field.name for field in fields(Settings)}:
            raise ValueError("keys are missing, or there are unknown ones")
        made = msgspec.convert(value, Settings, dec_hook=lambda kind, text: kind(text))
        chosen = (made.keep, WIDTHS), (made.grain, GRAINS), (made.chance, CHANCES), (made.sources, SOURCES)
        if not all(value in known for value, known in chosen):
            raise ValueError("a setting has no such value")
    except (*MISSHAPEN, msgspec.ValidationError) as error:
        raise UserError(
            f"reading the settings of the run: {out / 'run.json'} is damaged: {error}",
            "begin again: kprune run",
        ) from error
    return replace(made, out=out)


def cache_folder() -> Path:
    """Where sources and builds are kept: ``$KPRUNE_CACHE``, else ``~/.cache/kprune``."""
    named = os.environ.get("KPRUNE_CACHE")
    return Path(named).absolute() if named else Path.home() / ".cache" / "kprune"
