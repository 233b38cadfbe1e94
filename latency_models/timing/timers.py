"""The interface of timers, and the timer in this process; the clock itself is `latency_models.timer.burst`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from latency_models import timer
from latency_models.devices.device import ONNXRUNTIME
from latency_models.runners.runner import Closing, OnnxRuntimeRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from latency_models.devices.device import Device
    from latency_models.runners.runner import Runner


def stays_in_thread(device: Device) -> bool:
    """Whether a run on `device` does all its work in the calling thread, whose processor time can be read."""
    return device.runtime == ONNXRUNTIME and timer.stays_in_thread(device.provider, device.threads)


@dataclass(frozen=True)
class Rounds:
    """The times of several models that ran in turn, round after round.

    Attributes:
        times_ns: one int64 array (rounds, 2, runs) a model; the second axis is wall time, then undisturbed time.
        cpu_share: the timing thread's share of a core; it shows how busy the machine was where `stays_in_thread`.
    """

    times_ns: tuple[np.ndarray, ...]
    cpu_share: float

    @property
    def count(self) -> int:
        """The number of rounds."""
        return len(self.times_ns[0])


class Timer(Closing, ABC):
    """A device on which models run under the clock.

    The order of calls: `load` each model, `alternate` them any number of times, `unload` each, `close` at the end;
    a timer is a context manager that closes itself. Nothing is started before the first call.

    Every method may raise TimerError, where the timer can't be started or ended in the middle, and DeviceError, where
    the device lacks what it needs. Either way the next call starts anew, and loaded models stay loaded.
    """

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """The facts of the machine that models run on, as `latency_models.timer.facts` finds them there."""

    @abstractmethod
    def load(self, model: bytes | Path, batch_size: int, feeds: Mapping[str, np.ndarray] | None = None) -> int:
        """Load a model, run it once, and return a handle for it.

        `model` is a file or its bytes (a file where the weights are beside it). `feeds` are input arrays by name;
        without them inputs are made up, with `batch_size` for an open first dimension.

        Raises:
            InvalidModelError: no loadable model, or one that can't be run with these inputs.
        """

    @abstractmethod
    def alternate(self, handles: Sequence[int], runs: Sequence[int], rounds: int) -> Rounds:
        """Time `rounds` rounds: a burst of each model in turn, of as many runs as `runs` has for it."""

    @abstractmethod
    def unload(self, handle: int) -> None:
        """Free a model."""


class InProcessTimer(Timer):
    """A timer in this process; `make` makes the runner of each model."""

    def __init__(
        self,
        device: Device,
        make: Callable[[bytes | Path, Device, Mapping[str, np.ndarray] | None], Runner] = OnnxRuntimeRunner,
    ) -> None:
        self._device = device
        self._make = make
        self._runners: dict[int, Runner] = {}
        self._next = 0

    def facts(self) -> dict[str, Any]:
        return timer.facts()

    def load(self, model: bytes | Path, batch_size: int, feeds: Mapping[str, np.ndarray] | None = None) -> int:
        runner = self._make(model, replace(self._device, batch_size=batch_size), feeds)
        self._next += 1
        self._runners[self._next] = runner
        return self._next

    def alternate(self, handles: Sequence[int], runs: Sequence[int], rounds: int) -> Rounds:
        calls = [self._runners[handle].run for handle in handles]
        times, cpu_share = timer.alternate(calls, runs, rounds, in_thread=stays_in_thread(self._device))
        return Rounds(tuple(times), cpu_share)

    def unload(self, handle: int) -> None:
        self._runners.pop(handle).close()

    def close(self) -> None:
        """Free all models."""
        for handle in list(self._runners):
            self.unload(handle)
