"""Several guests at a time, and none left when one fails or the user has had enough."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from types import FrameType
from typing import NoReturn, TypeVar

from tracer.machines.vm import end_all

T = TypeVar("T")


def in_parallel(work: Sequence[Callable[[], T]], jobs: int = 0) -> list[T]:
    """The results of all calls, in order; ``jobs`` at a time, 0 for as many as there are processors.

    The first failure, or an interrupt, ends every guest of this process and is raised when they are gone.
    """
    with ThreadPoolExecutor(jobs or len(os.sched_getaffinity(0))) as pool:
        runs = [pool.submit(each) for each in work]
        try:
            for run in wait(runs, return_when=FIRST_EXCEPTION).done:
                run.result()
            return [run.result() for run in runs]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(run.done() for run in runs):  # one may have been about to start
                end_all()
                time.sleep(0.1)
            raise


def interrupt_on_term() -> None:
    """Let SIGTERM do what Ctrl-C does, and SIGHUP, which a terminal sends that is closed: the guests end with
    us. Whoever was started to outlive its terminal (nohup) ignores SIGHUP, and goes on doing so."""

    def interrupted(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupted)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, interrupted)
