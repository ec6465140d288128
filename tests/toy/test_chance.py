"""What chance decides stays in the files where it does, and in no other."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prune.model.callgraph import CallGraph, make_call_graph
from prune.model.elf import Rows
from prune.model.image import Image
from prune.model.knowledge import Knowledge, read_knowledge
from prune.model.tables import find_tables
from prune.plan.chance import WHY, Chance, decides_in, may_run
from tests.conftest import image

from .toy import CFLAGS, SOURCES, TARGETS

#: What stays of chance.c when `worker` ran.
STAYS = {
    "create", "solicit", "report", "ran_in_boot", "behind_it", "way", "behind", "handed", "wakeme",
    "calibrate",
}  # fmt: skip


@pytest.mark.parametrize("arch", TARGETS)
@pytest.mark.parametrize("level", ["-Os", "-O2"])
def test_what_hot_code_of_a_listed_file_may_call_stays(arch: str, level: str, tmp_path: Path) -> None:
    # Boots missed create_worker, called by worker_thread, and arp_solicit, of arp_generic_ops. And
    # neigh_rand_reach_time, freed after boot, called by neigh_periodic_work, which went on;
    # zone_watermark_ok_safe, three calls from kswapd. And __mutex_lock, to which nothing but
    # __mutex_lock_slowpath leads, a jump. And __inet_check_established, which inet_hash_connect hands on;
    # wakeme_after_rcu, which __wait_rcu_gp does, which stayed by chance itself. And what init code calls:
    # pit_hpet_ptimer_calibrate_cpu, by determine_cpu_tsc_frequencies.
    assert found(arch, level, tmp_path, "kernel/workqueue.o") == dict.fromkeys(STAYS, WHY)
    assert found(arch, level, tmp_path, "kernel/sys.o") == {}


@pytest.mark.parametrize("arch", TARGETS)
def test_in_one_object_for_the_whole_kernel_a_section_says_of_which_file_it_is(
    arch: str, tmp_path: Path
) -> None:
    """As with IBT; the object of each file is still in the tree. Init code shares one section there."""
    assert found(arch, "-O2", tmp_path, "vmlinux.o") == {}
    source = tmp_path / "kernel/workqueue.o"
    source.parent.mkdir()
    (tmp_path / "chance.o").rename(source)
    assert found(arch, "-O2", tmp_path, "vmlinux.o") == dict.fromkeys(STAYS - {"calibrate"}, WHY)


def test_somebody_elses_lock_is_waited_for_to_the_end(tmp_path: Path) -> None:
    # Boots missed signal_pending_state and rwsem_spin_on_owner, two calls from what ran.
    before = found("x86_64", "-Os", tmp_path, "kernel/workqueue.o")
    after = found("x86_64", "-Os", tmp_path, "kernel/locking/mutex.o")
    assert after.keys() - before.keys() == {"further"}
    # And clear_sched_clock_stable (kernel/sched), one call from tsc_cs_mark_unstable, which stayed by chance.
    for name, stays in ("kernel/workqueue.o", set()), ("kernel/locking/mutex.o", {"queue_work_on"}):
        assert {"queue_work_on"} & found(
            "x86_64", "-Os", tmp_path, name, far="kernel/kthread.o"
        ).keys() == stays


def test_what_was_handed_on_in_boot_may_have_to_wait(tmp_path: Path) -> None:
    # Boots missed clocks_calc_max_nsecs, three calls from tsc_refine_calibration_work.
    before = found("x86_64", "-Os", tmp_path, "kernel/workqueue.o")
    after = found("x86_64", "-Os", tmp_path, "kernel/workqueue.o", "early")
    assert after.keys() - before.keys() == {"ran_in_boot_too"}


def test_what_booting_did_with_devices_may_be_done_once_more(tmp_path: Path) -> None:
    # A boot missed is_software_node, called by dev_to_swnode, which went on: a device was late.
    # Another missed atkbd_connect, to which nothing leads but a table that init code registers.
    again = {"ran_in_boot": WHY, "behind_it": WHY}
    registered = {"early": WHY, "ran_in_boot_too": WHY}
    assert found("x86_64", "-Os", tmp_path, "drivers/base/swnode.o") == again
    assert found("x86_64", "-Os", tmp_path, "drivers/input/keyboard/atkbd.o") == again | registered


@pytest.mark.parametrize(
    ("file", "stays"),
    [
        ("lib/kasprintf.o", True),
        ("drivers/acpi/acpica/nsutils.o", True),
        ("drivers/acpi/acpica/psloop.o", False),  # ACPI's machine language
    ],
)
def test_what_is_done_once_more_needs_what_it_calls_wherever_that_is(
    file: str, stays: bool, tmp_path: Path
) -> None:
    # Boots missed kvasprintf (lib), called by kobject_set_name_vargs; acpi_ns_opens_scope.
    units = found("x86_64", "-Os", tmp_path, "drivers/base/swnode.o", far=file)
    assert ("name_it" in units) is stays
    assert "name_it" not in found("x86_64", "-Os", tmp_path, "kernel/workqueue.o", far="lib/kasprintf.o")


def test_what_a_file_gives_away_in_tables_stays_where_the_file_ran(tmp_path: Path) -> None:
    # A soak missed ipv4_negative_advice, which TCP calls through the route when nobody answers.
    assert found("x86_64", "-Os", tmp_path, "net/ipv4/route.o") == {"ipv4_negative_advice": WHY}
    assert "ipv4_negative_advice" not in found("x86_64", "-Os", tmp_path, "kernel/workqueue.o")


def test_what_is_listed_needs_what_booting_ran(tmp_path: Path) -> None:
    # Half of a device's boots missed __setup_APIC_LVTT, freed after boot, called by lapic_timer_set_oneshot.
    before = found("x86_64", "-Os", tmp_path, "kernel/workqueue.o")
    after = found("x86_64", "-Os", tmp_path, "arch/x86/kernel/apic/apic.o")
    assert after.keys() - before.keys() == {"lapic_timer_set_oneshot", "ran_in_boot_too"}


def test_what_is_held_or_handed_on_may_be_of_another_such_file(tmp_path: Path) -> None:
    # A boot missed tcp_syn_ack_timeout (tcp_timer.c), which tcp_request_sock_ops (tcp_ipv4.c) holds; others
    # bit_wait (kernel/sched), which fs/inode.c hands on.
    before = found("x86_64", "-Os", tmp_path, "kernel/workqueue.o")
    for name, stays in ("kernel/kthread.o", {"far", "beyond", "name_it"}), ("kernel/sys.o", set()):
        after = found("x86_64", "-Os", tmp_path, "kernel/workqueue.o", far=name)
        assert after.keys() - before.keys() == stays


def test_what_stays_by_chance_hands_on_what_it_wants_later(tmp_path: Path) -> None:
    # A boot missed clocksource_watchdog_work, which __clocksource_unstable schedules.
    before = found("x86_64", "-Os", tmp_path, "kernel/workqueue.o")
    after = found("x86_64", "-Os", tmp_path, "kernel/workqueue.o", far="kernel/sys.o", what=may_run)
    assert {name: after[name] for name in after.keys() - before.keys()} == {
        "works": "code hands it on, to be called later",
        "starts_thread": "what code hands on for later may call it",
    }  # fmt: skip


def test_by_the_block_it_decides_in_more_files(tmp_path: Path) -> None:
    # Boots missed blocks of lockref_get_not_zero and its like, where two come at once; what those call was
    # never missed.
    for name, decides in ("kernel/workqueue.o", True), ("lib/lockref.o", True), ("kernel/sys.o", False):
        made = compiled("x86_64", "-O2", tmp_path, name)
        functions = decides_in(made, graph_of(made), read_knowledge("x86_64"))
        assert functions.any() == decides and not (functions & ~made.units["function"]).any()
    assert found("x86_64", "-O2", tmp_path, "lib/lockref.o") == {}


def test_functions_that_are_listed_by_name_keep_their_blocks(tmp_path: Path) -> None:
    # Boots missed a block of fib_sync_down_addr time and again: which of two addresses a hash puts first.
    made = compiled("x86_64", "-O2", tmp_path, "kernel/sys.o")
    known = read_knowledge("x86_64")
    chance = {**known.closure["chance"], "called": {"kernel/sys.o": ["worker"], "kernel/cpu.o": ["way"]}}
    decided = decides_in(made, graph_of(made), replace(known, closure={**known.closure, "chance": chance}))
    assert [made.names[unit] for unit in np.flatnonzero(decided)] == [".text.worker"]


def test_who_asks_whether_a_lock_is_free_keeps_both_answers(tmp_path: Path) -> None:
    # Boots of a router missed a block of devinet_sysctl_forward, which comes again when another has the lock.
    made = compiled("x86_64", "-O2", tmp_path, "kernel/sys.o")
    known = read_knowledge("x86_64")
    chance = {**known.closure["chance"], "tries": ["behind", "*_trylock"]}
    decided = decides_in(made, graph_of(made), replace(known, closure={**known.closure, "chance": chance}))
    assert [made.names[unit] for unit in np.flatnonzero(decided)] == [".text.way"]


def test_what_is_listed_by_name_stays_where_its_file_ran_in_boot_alone(tmp_path: Path) -> None:
    # A boot missed raid6_sse22_xor_syndrome: which routine is fastest is measured while the machine boots.
    made = compiled("x86_64", "-O2", tmp_path, "kernel/sys.o")
    known = read_knowledge("x86_64")
    chance = {**known.closure["chance"], "called": {"kernel/sys.o": ["worker"], "kernel/cpu.o": ["way"]}}
    knowledge = replace(known, closure={**known.closure, "chance": chance})
    happens = Chance(made, make_call_graph(made, find_tables(made, knowledge), knowledge), knowledge)
    in_boot, nothing = np.isin(made.names, [".text.early"]), np.zeros(len(made.units), bool)
    for ran, stays in (in_boot, [".text.worker"]), (nothing, []):
        assert [made.names[unit] for unit in np.flatnonzero(happens.may_happen(ran, nothing))] == stays


def test_a_name_with_a_star_is_that_of_functions_of_files_that_ran(tmp_path: Path) -> None:
    # Boots missed ei_tx_timeout, the card's own; those of cards that nobody has are not wanted.
    made = compiled("x86_64", "-O2", tmp_path, "drivers/net/one.o", far="drivers/net/other.o")
    known = read_knowledge("x86_64")
    called = {"drivers/net/*": ["*ar", "beyon*", "worke*"]}
    chance = {**known.closure["chance"], "called": called, "beside": []}
    knowledge = replace(known, closure={**known.closure, "chance": chance})
    happens = Chance(made, make_call_graph(made, find_tables(made, knowledge), knowledge), knowledge)
    nothing = np.zeros(len(made.units), bool)
    for ran, stays in (".text.early", {".text.worker"}), (".text.far", {".text.far", ".text.beyond"}):
        found = happens.may_happen(np.isin(made.names, [ran]), nothing)
        assert {made.names[unit] for unit in np.flatnonzero(found)} == stays


def test_what_is_listed_beside_another_file_stays_where_that_one_ran(tmp_path: Path) -> None:
    # Boots missed insn_get_sib: with KFENCE, a word across the edge of a page faults, and that is decoded.
    made = compiled("x86_64", "-O2", tmp_path, "kernel/sys.o", far="kernel/cpu.o")
    known = read_knowledge("x86_64")
    beside = [{"ran": "kernel/sys.o", "file": "kernel/cpu.o", "functions": ["far", "worker"]}]
    chance = {**known.closure["chance"], "called": {}, "beside": beside}
    knowledge = replace(known, closure={**known.closure, "chance": chance})
    happens = Chance(made, make_call_graph(made, find_tables(made, knowledge), knowledge), knowledge)
    nothing = np.zeros(len(made.units), bool)
    for ran, stays in (".text.early", [".text.far"]), (".text.beyond", []):
        found = happens.may_happen(np.isin(made.names, [ran]), nothing)
        assert [made.names[unit] for unit in np.flatnonzero(found)] == stays
    assert [made.names[unit] for unit in np.flatnonzero(decides_in(made, graph_of(made), knowledge))] == [
        ".text.far"
    ]


def graph_of(made: Image) -> CallGraph:
    knowledge = read_knowledge("x86_64")
    return make_call_graph(made, find_tables(made, knowledge), knowledge)


def by_chance(
    made: Image, graph: CallGraph, knowledge: Knowledge, ran: Rows, lasting: Rows
) -> dict[int, str]:
    """What happens by chance, without what is handed on for later."""
    happens = Chance(made, graph, knowledge).may_happen(ran, lasting)
    return dict.fromkeys(np.flatnonzero(happens).tolist(), WHY)


def compiled(arch: str, level: str, folder: Path, name: str, far: str = "") -> Image:
    """chance.c as the object ``name``, and chance_far.c as ``far``."""
    objects = {}
    for source, called in ("chance", name), ("chance_far", far):
        if called:
            file = folder / f"{source}.o"
            words = ["gcc", *CFLAGS, level, *TARGETS[arch].flags, "-c", SOURCES / f"{source}.c", "-o", file]
            subprocess.run(words, check=True)
            objects[called] = file.read_bytes()
    return image(folder, objects, knowledge=read_knowledge(arch))


def found(
    arch: str, level: str, folder: Path, name: str, handed_on: str = "", far: str = "",
    what: Callable[..., dict[int, str]] = by_chance,
) -> dict[str, str]:  # fmt: skip
    """What stays because of what ran of chance.c, if that is the object ``name``, and why."""
    knowledge = read_knowledge(arch)
    made = compiled(arch, level, folder, name, far)
    early = [
        ".text.early",
        ".text.ran_in_boot",
        ".text.behind_it",
        ".text.ran_in_boot_too",
        ".init.text",
        ".init.text.starts",
        ".text.name_it",
    ]
    only_boot = np.isin(made.names, early)
    ran = only_boot | np.isin(made.names, [".text.worker"])
    assert ran.sum() == 6 + bool(far)
    graph = make_call_graph(made, find_tables(made, knowledge), knowledge)
    lasting = ran & ~only_boot | np.isin(made.names, [f".text.{handed_on}"])
    units = what(made, graph, knowledge, ran, lasting)
    return {made.names[unit].removeprefix(".text."): why for unit, why in units.items()}


@pytest.mark.parametrize(("arch", "begins"), [("x86_64", "__x64_sys_"), ("i386", "__ia32_sys_")])
def test_system_calls_are_listed_by_the_names_of_the_architecture(arch: str, begins: str) -> None:
    # A program ended that asked for the time before there was a clock which the vDSO can read: ENOSYS.
    called = read_knowledge(arch).closure["chance"]["called"]
    assert {f"{begins}clock_gettime", f"{begins}clock_gettime32"} <= set(called["kernel/time/posix-timers.o"])
    assert f"{begins}gettimeofday" in called["kernel/time/time.o"]
    assert not any("{" in name for names in called.values() for name in names)
