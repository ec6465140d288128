"""``python -m tests.fuzz``: damaged input for everything that reads what comes from outside.

python -m tests.fuzz                          all targets, an hour
python -m tests.fuzz perf image --seconds 60  two of them, half a minute each
python -m tests.fuzz perf --seed 3 --only 17  one input again
python -m tests.fuzz perf --file out/fuzz/perf-3-17    a file
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.harness import ROOT, Result, Target, fuzz, make_input, report
from tests.fuzz.targets import TARGETS

KEEP = ROOT / "out" / "fuzz"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(sorted(TARGETS))}")
    parser.add_argument("--seconds", type=float, default=3600.0, help="in all, shared out among the targets")
    parser.add_argument("--inputs", type=int, default=1 << 62, help="of each target, at most")
    parser.add_argument(
        "--seed", type=int, default=int(time.time()), help="another one each time, if not given"
    )
    parser.add_argument("--only", type=int, help="this input alone, in this process, its traceback shown")
    parser.add_argument("--file", type=Path, help="the input of a file, likewise")
    options = parser.parse_args()
    unknown = [name for name in options.targets if name not in TARGETS]
    if unknown:
        parser.error(f"there is no target {unknown[0]}; known are {', '.join(sorted(TARGETS))}")
    targets = [TARGETS[name] for name in options.targets or TARGETS]
    if options.only is not None or options.file:
        return _one(targets[0], options.seed, options.only, options.file)
    print(f"seed {options.seed}; inputs that fail go to {KEEP}", file=sys.stderr)
    results: list[Result] = []
    for target in targets:
        made = fuzz(target, options.seed, range(options.inputs), options.seconds / len(targets), KEEP)
        results.append(made)
        print(report([made]).partition("\n")[2], flush=True)
    failed = sum(bool(result.failures) for result in results)
    print(f"{sum(r.inputs for r in results):,} inputs, {failed} of {len(results)} targets failed")
    return bool(failed)


def _one(target: Target, seed: int, number: int | None, file: Path | None) -> int:
    home = Path(tempfile.mkdtemp(prefix="kprune-fuzz-"))
    try:
        samples, run = home / "samples", home / "run"
        samples.mkdir()
        run.mkdir()
        sound = target.samples(samples)
        data = file.read_bytes() if file else make_input(target, sound, seed, number or 0)
        print(f"{len(data)} bytes: {data[:200]!r}", file=sys.stderr)
        print(target.run(data, run))
    finally:
        shutil.rmtree(home)
    return 0


if __name__ == "__main__":
    sys.exit(main())
