"""The driver: from a workload to a pruned kernel that boots and runs it, stage by stage.

    build   two kernels of one source: production and traced
    trace   run the workload on both                              -> trace/profile.json
    gather  that, what was imported, and what was healed          -> profile.json
    plan    keep or drop every unit                               -> plan.json
    link    script and edited objects, linked by kbuild           -> pruned/vmlinux, pruned/bzImage
    verify  read the result again and prove it                    -> verify.json
    boot    boot it, vary the workload, name every miss           -> boots.json
    heal    what was missed joins the profile; gather to boot again, until nothing is missed
    report  count the bytes                                       -> report.json

Every stage knows its inputs by content: with the same inputs it does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prune.guests.heal import boots_to_repeat
from prune.run import passes, profiling
from prune.run.steps import Steps
from prune.stages import occupy
from tracer.host import GuestFailed, GuestLost, KpruneError, ValidationFailed, say


class Pipeline(Steps):
    """The stages in their order, and healing."""

    def run(self) -> dict[str, Any]:
        """Everything.

        Raises:
            KpruneError: the first stage that failed; a kernel that was linked is still checked to the end.
        """
        self.build()
        if not (self.settings.profile or self.settings.static):
            self.trace()
        return self.heal()

    def heal(self) -> dict[str, Any]:
        """Plan, link and boot; where a boot misses something, again, until none does.

        Raises:
            KpruneError: it did not converge; the report says why.
        """
        self.plan()
        self.link()
        failed = self.mend()
        report = self.report()
        if failed:
            raise failed
        return report

    def renew(self) -> None:
        """A pruned kernel of what is known now, proved but not booted."""
        self.plan()
        self.link()
        self.verify()

    def mend(self) -> KpruneError | None:
        """Verify and boot; heal what was missed, as often as is allowed; what is still wrong then."""
        rounds = self.settings.heal_rounds if self.settings.heal and not self.dry_run else 0
        if rounds:
            occupy(self.folder.out)  # What is healed is written outside any stage.
        failed = self._check()
        for _ in range(rounds):
            new = passes.heal(self.folder)
            if not new:
                break
            names = ", ".join(each.function for each in new)
            say(f"heal: {names} {'joins' if len(new) == 1 else 'join'} the profile")
            boots = passes.read_result(self.folder.boots, "boots", ("each",))["each"]
            self._retrace(boots_to_repeat(boots), new[0].round)
            self.plan()
            self.link()
            failed = self._check()
        return failed

    def _retrace(self, numbers: Sequence[int], number: int) -> None:
        """Repeat boots that missed something on the whole kernel. That they fail there is no reason not to
        mend what was missed."""
        try:
            profiling.retrace(self.settings, self.workload, self.folder, numbers, number)
        except (ValidationFailed, GuestFailed, GuestLost) as error:
            say(f"heal: nothing but what was missed joins the profile, for on the whole kernel, {error}")

    def _check(self) -> KpruneError | None:
        """Verify and boot, both; the first failure."""
        failed: KpruneError | None = None
        for check in (self.verify, self.boot):
            try:
                check()
            except (ValidationFailed, GuestFailed, GuestLost) as error:
                say(str(error))
                failed = failed or error
        return failed
