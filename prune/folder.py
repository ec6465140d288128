"""Where everything of one run lies: the names of the files in ``OUT``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Folder:
    """Where everything of one run lies."""

    out: Path

    def path(self, name: str) -> Path:
        return self.out / name

    @property
    def profile(self) -> Path:
        return self.out / "profile.json"

    @property
    def plan(self) -> Path:
        return self.out / "plan.json"

    @property
    def module_profile(self) -> Path:
        """What of ``profile`` is about modules, where the workload ships some."""
        return self.out / "module-profile.json"

    @property
    def module_plans(self) -> Path:
        """A plan for each module that loses something."""
        return self.out / "module-plans"

    @property
    def traced_profile(self) -> Path:
        """What this folder's own guests saw; ``profile`` is that and everything that joined it."""
        return self.out / "trace" / "profile.json"

    @property
    def imports(self) -> tuple[Path, ...]:
        """Profiles that were imported."""
        return tuple(sorted((self.out / "imports").glob("*.json")))

    @property
    def retraced(self) -> tuple[Path, ...]:
        """Profiles of runs on the production kernel that repeat a boot which missed something."""
        return tuple(sorted((self.out / "heal").glob("round-*.json")))

    @property
    def healed(self) -> Path:
        return self.out / "heal.json"

    @property
    def stale(self) -> Path:
        """How the kernels of profiles that were taken all the same differ from this one."""
        return self.out / "stale.json"

    @property
    def verdict(self) -> Path:
        return self.out / "verify.json"

    @property
    def boots(self) -> Path:
        return self.out / "boots.json"

    @property
    def ledger(self) -> Path:
        return self.out / "ledger.json"

    @property
    def minram(self) -> Path:
        """How little memory each kernel serves in."""
        return self.out / "minram.json"

    @property
    def security(self) -> Path:
        """What each kernel offers to somebody who got in."""
        return self.out / "security.json"

    @property
    def holdout(self) -> Path:
        """What became of programs that nobody profiled."""
        return self.out / "holdout.json"

    def soaked(self, side: str) -> Path:
        """How a kernel did under load and trouble."""
        return self.out / ("soak.json" if side == "pruned" else "soak-base.json")

    @property
    def page(self) -> Path:
        return self.out / "report.html"

    def base(self, name: str) -> Path:
        return self.out / "base" / name

    def traced(self, name: str) -> Path:
        return self.out / "traced" / name

    def pruned(self, name: str) -> Path:
        return self.out / "pruned" / name
