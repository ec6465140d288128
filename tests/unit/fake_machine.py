"""A machine for ``collect.sh`` to run on: folders that look like tracefs, /proc and /sys, of plain files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

COLLECT = Path(__file__).parents[2] / "tracer" / "collect.sh"
#: As the kernel writes it, two functions; collect.sh never looks inside.
TABLE = """\
  Function                               Hit    Time            Avg             s^2
  --------                               ---    ----            ---             ---
  ksys_write                              12    3.310 us        0.275 us        0.003 us
  vfs_{cpu}                                4    1.200 us        0.300 us        0.001 us
"""
_FILES = {
    "tracing/function_profile_enabled": "0\n",
    "tracing/set_ftrace_filter": "#### all functions enabled ####\n",
    "tracing/set_ftrace_notrace": "#### no functions disabled ####\n",
    "tracing/tracing_thresh": "0\n",
    "tracing/options/prof-text-offset": "0\n",
    "tracing/dyn_ftrace_total_info": "41000 pages:162 groups: 7\n",
    "tracing/available_filter_functions": "ksys_write\nvfs_0\nvfs_1\n",
    "tracing/trace_stat/function0": TABLE.format(cpu=0),
    "tracing/trace_stat/function1": TABLE.format(cpu=1),
    "proc/mounts": "",
    "proc/version": "Linux version 6.1.0\n",
    "proc/cmdline": "quiet\n",
    "proc/kallsyms": "ffffffff810000 T ksys_write\nffffffff810010 t vfs_0\nffffffffc0 t other\t[module]\n",
    "proc/sys/kernel/ftrace_enabled": "1\n",
}


@dataclass(frozen=True)
class Machine:
    """``temporary``: where collect.sh has its own files; nothing may be left there."""

    root: Path

    @property
    def temporary(self) -> Path:
        return self.root / "tmp"

    @property
    def environment(self) -> dict[str, str]:
        where = {"KPRUNE_PROC": "proc", "KPRUNE_SYS": "sys", "TMPDIR": "tmp"}
        return {**os.environ, **{name: str(self.root / folder) for name, folder in where.items()}}

    def tracing(self, name: str) -> Path:
        return self.root / "tracing" / name

    def settings(self) -> dict[str, str]:
        """Everything that a profile could be changed by, and ought to be as it was."""
        files = [*self.tracing(".").rglob("*"), self.root / "proc/sys/kernel/ftrace_enabled"]
        return {str(path.relative_to(self.root)): path.read_text() for path in files if path.is_file()}


def make_machine(root: Path) -> Machine:
    for name, text in _FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for folder in ("sys", "tmp"):
        (root / folder).mkdir()
    (root / "proc/uptime").symlink_to("/proc/uptime")  # time must pass
    return Machine(root)
