"""The clock of all timings.

A run that another process interrupts takes longer by the clock on the wall; the thread's processor time
leaves the interruption out, but asking for it takes a moment of its own. The shorter of the two is the time
of the run alone in either case. It needs the run to stay in the calling thread.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from latency_models.device import Device


_PATIENCE = 4.0


def stays_in_thread(device: Device) -> bool:
    """Whether a run on `device` does all its work in the thread that asks for it, and that thread can be timed."""
    # Elsewhere than on POSIX systems the clock of a thread moves in steps of many milliseconds.
    return os.name == "posix" and device.name == "cpu" and device.threads == 1


class Budget:
    """Seconds to spend from now on.

    Where runs stay in the thread they are processor time, so that a busy machine costs patience rather than
    exactness; by the wall it is over after four times as much anyway.
    """

    def __init__(self, seconds: float, *, in_thread: bool) -> None:
        self._seconds = seconds
        self._spent = time.thread_time if in_thread else time.perf_counter
        self._start = self._spent()
        self._wall_end = time.perf_counter() + _PATIENCE * seconds

    @property
    def over(self) -> bool:
        """Whether all is spent."""
        return self._spent() - self._start >= self._seconds or time.perf_counter() >= self._wall_end


def burst(run: Callable[[], None], runs: int, *, in_thread: bool) -> np.ndarray:
    """Run `runs` times; (2, runs) times in ns: by the wall, and without interruptions (`in_thread` only)."""
    wall = time.perf_counter_ns
    if not in_thread:
        times = []
        for _ in range(runs):
            before = wall()
            run()
            times.append(wall() - before)
        return np.array([times, times])
    processor = time.thread_time_ns
    walls, processors = [], []
    for _ in range(runs):
        processor_before = processor()
        before = wall()
        run()
        after = wall()
        processors.append(processor() - processor_before)
        walls.append(after - before)
    return np.array([walls, np.minimum(walls, processors)])
