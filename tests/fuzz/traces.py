"""Targets: traces of machines and tools elsewhere, from the file to the profile that is written of it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from prune.commands import imports as cmd_import
from tests.fuzz.harness import Target
from tests.fuzz.mutate import Parts, of_bytes, of_parts, of_some, of_text
from tests.unit import test_boot_trace as boot
from tests.unit import test_collected as collected
from tests.unit import test_imported, test_observed, test_read_drcov, test_read_lcov, test_read_perf
from tests.unit import test_read_trace_cmd as dat
from tests.unit import test_read_trace_stat as stat
from tests.unit import test_tracer_blocks as blocks
from tests.unit import test_tracer_ftrace as ftrace
from tracer.collecting.blocks import read_blocks
from tracer.collecting.coverage import touched
from tracer.elsewhere.collected import is_collected
from tracer.elsewhere.imported import import_file
from tracer.elsewhere.matching import Kernels
from tracer.elsewhere.observed import observed_profile, read_observed
from tracer.profiles.profile import load_profile, save_profile
from tracer.profiles.symbols import make_symbols
from tracer.readers.boot_trace import functions_at, leave_out, read_boot_trace
from tracer.readers.ftrace import read_frames, resolve, rows_by_app, stack_names
from tracer.sessions.executed import executed_blocks
from tracer.sessions.options import Mark

Run = Callable[[bytes, Path], object]


@cache
def _kernels() -> Kernels:
    """A build with functions that the samples name."""

    def build(kernel: str, rows: Sequence[tuple[str, str, bool]]) -> list[list[object]]:
        at = enumerate(rows)
        return [[test_imported.BASE + 16 * i, 16, o, f".text.{n}", n, t] for i, (o, n, t) in at]

    made = (
        make_symbols(kernel, f"{kernel}-id", build(kernel, rows))
        for kernel, rows in (("production", test_imported.PRODUCTION), ("traced", test_imported.TRACED))
    )
    return Kernels(*made)


def _importing(format: str, app: str = "", of: str = "") -> Run:
    """Read a trace as ``kprune import`` does, write its profile, say what was found."""

    def run(data: bytes, folder: Path) -> object:
        file, output = folder / "trace", folder / "profile.json"
        file.write_bytes(data)
        is_collected(file)
        found = import_file(file, _kernels(), app, format, of)
        save_profile(found.profile, output)
        assert load_profile(output) == found.profile
        result = cmd_import.Result(file, output, found)
        return json.dumps(cmd_import.to_json(result)), cmd_import.table([result])

    return run


def _these(*samples: bytes | str) -> Callable[[Path], list[bytes]]:
    encoded = [each.encode() if isinstance(each, str) else each for each in samples]
    return lambda _: encoded


def _dat(parts: Parts) -> bytes:
    """A trace.dat of damaged parts, with sound headers around them."""
    kernel = dat.SMALL
    made = dat.Dat(
        kernel,
        tuple(data for name, data in parts.items() if name.startswith("cpu")),
        (),
        parts.get("kallsyms", b""),
        parts.get("cmdlines", b""),
        (parts.get("stats", b"").decode(errors="replace"),),
        tuple(data for name, data in parts.items() if name.startswith("format")),
    )
    return dat.written(made, parts.get("how", b"6").decode(errors="replace"))


def _dat_parts() -> list[Parts]:
    small = dat.small_dat(dat.SMALL)
    formats = {f"format{i}": text for i, text in enumerate(dat.SMALL.formats())}
    cpus = {f"cpu{i}": data for i, data in enumerate(small.cpus)}
    text = {"kallsyms": small.kallsyms, "cmdlines": small.cmdlines, "stats": small.stats[0].encode()}
    return [{**formats, **cpus, **text, "how": how} for how in (b"6", b"7 zlib", b"7 zstd")]


def _tar(parts: Parts) -> bytes:
    """A tar of collect.sh's with sums that are right, whatever is in it."""
    files = {name: data for name, data in parts.items() if name != "head"}
    head = parts.get("head", b"").decode(errors="replace")
    members = {"kprune/manifest": collected.manifest(files, head)}
    members |= {f"kprune/{name}": data for name, data in files.items()}
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT, encoding="utf-8") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name[:99].replace("\0", "?"))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


_HEAD = collected.HEAD.format(keep="no", last=collected.WEB_RAN).encode()
_KEPT_GOING = collected.HEAD.format(keep="yes", last="ran 1 0 its check failed\n").encode()
_TAR_PARTS = [{**collected.FILES, "head": head} for head in (_HEAD, _KEPT_GOING)]


def _stream(parts: Parts) -> bytes:
    """The trace port's bytes with sums that are right. A part's name is "APP NAME"."""
    frames = b"".join(
        b"frame %s %d %s\n%s\n" % (name.encode(errors="replace"), len(data), _md5(data), data)
        for name, data in parts.items()
    )
    return b"kprune 1\n" + frames + b"end\n"


def _streams(parts: Sequence[Parts]) -> Callable[[Path], list[bytes]]:
    return lambda _: [_stream(each) for each in parts]


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data).hexdigest().encode()


def _frame_parts() -> list[Parts]:
    stacks = b"[<0>] worker_thread+0x4c/0x3d0\n[<0>] kthread+0x1/0x2\n"
    table = ftrace.table([("schedule", 3), ("begins_with_thirty_characters_", 2)])
    return [{"0 function0": table, "0 capacity": b"100 pages:1\n", "0 stacks": stacks, "0 function1": table}]


def _boot_parts() -> list[Parts]:
    raw = boot.KERNEL.pages([boot.KERNEL.call(1, boot.BASE + 16 * i) for i in range(40)])
    return [{f"{f.app} {f.name}": f.data for f in boot.frames(raw, boot.stats(40))}]


def _frames(data: bytes, _: Path) -> object:
    frames = read_frames(data)
    rows = rows_by_app(frames, 1)
    return resolve(rows[0], _kernels().production), stack_names(frames)


def _boot(data: bytes, _: Path) -> object:
    found = read_boot_trace(read_frames(data), [(boot.BASE + 64, boot.BASE + 80)])
    functions = functions_at(found.calls, boot.SYMBOLS)
    return leave_out({function.symbol: count for function, count in functions.items()}, boot.SYMBOLS)


def _observed(parts: Parts) -> bytes:
    body = b"".join(parts.values())
    return body + b"end " + _md5(body) + b"\n"


def _observed_parts() -> list[Parts]:
    head, _, rows = test_observed.result("gone.isra.0 4\ntwice 3\nmystery 1\n").partition(b"lost 0\n")
    return [{"head": head + b"lost 0\n", "rows": rows.partition(b"end ")[0]}]


def _observe(data: bytes, folder: Path) -> object:
    (folder / "result").write_bytes(data)
    found = observed_profile(read_observed(folder / "result"), test_observed.SYMBOLS, test_observed.DROPPED)
    save_profile(found, folder / "profile.json")
    return load_profile(folder / "profile.json")


def _block_log(data: bytes, folder: Path) -> object:
    (folder / "log").write_bytes(data)
    marks = [Mark("boot", 0), Mark("web", len(blocks.LOG))]
    found = read_blocks(folder / "log", marks, blocks.START, blocks.START, blocks.ENTRY)
    return touched(found, _kernels().production), executed_blocks(data)


_PERF = [text.replace("pv_native_safe_halt", "schedule").replace(" halt+", " schedule+")
         for text in (test_read_perf.CHAINS, test_read_perf.LINES)]  # fmt: skip

TARGETS = [
    Target(
        "perf", _these(*_PERF),
        _importing("perf"), of_text,
    ),
    Target("trace_cmd", lambda _: dat.WHOLE, _importing("trace-cmd", "a"), of_bytes),
    Target(
        "trace_cmd_parts", lambda _: [_dat(parts) for parts in _dat_parts()],
        _importing("trace-cmd"), of_parts(_dat_parts(), _dat),
    ),
    Target(
        "trace_stat", _these(stat.WHOLE, stat.TIMED, stat.table([("schedule", 3)])),
        _importing("trace_stat", "a"), of_text,
    ),
    Target("lcov", _these(test_read_lcov.OLD, test_read_lcov.NEW), _importing("lcov", "a"), of_text),
    Target(
        "drcov", _these(test_read_drcov.GOOD, test_read_drcov.drcov([(0, "(null)")], [(4, 0)], 2)),
        _importing("drcov", "a", "production"), of_some(of_bytes, of_text),
    ),
    Target(
        "any_format",
        _these(*_PERF, stat.WHOLE, test_read_lcov.OLD, test_read_drcov.GOOD, *dat.WHOLE),
        _importing("", "a"), of_some(of_bytes, of_text),
    ),
    Target("collected", lambda _: [_tar(p) for p in _TAR_PARTS], _importing(""), of_parts(_TAR_PARTS, _tar)),
    Target("frames", _streams(_frame_parts()), _frames, of_parts(_frame_parts(), _stream)),
    Target("boot_trace", _streams(_boot_parts()), _boot, of_parts(_boot_parts(), _stream)),
    Target(
        "observed", lambda _: [_observed(p) for p in _observed_parts()],
        _observe, of_parts(_observed_parts(), _observed),
    ),
    Target("block_log", _these(blocks.LOG, blocks.LATER + blocks.LOG), _block_log, of_text),
]  # fmt: skip
