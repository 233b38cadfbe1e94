"""How a model is run in this process: the one thing that its users need to know of a runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from latency_models import timer
from latency_models.errors import CostError, DeviceError, InvalidModelError, TimerError
from latency_models.graph.model_file import check_readable, model_label
from latency_models.runners.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

    from latency_models.devices.device import Device


class Runner(Closing, ABC):
    """One model, loaded and fed, ready to be run again and again.

    The order of calls: the constructor loads the model and fixes its inputs; `run()` makes one inference,
    any number of times, and returns when the result is there; `close()` frees what was held, and no `run()`
    follows. A runner is a context manager that closes itself. The clock is the caller's: `run()` does
    nothing but run.
    """

    @property
    @abstractmethod
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs, in the model's order."""

    @abstractmethod
    def run(self) -> None:
        """Make one inference and wait for its result."""


class OnnxRuntimeRunner(Runner):
    """Runs a model with ONNX Runtime in this process: `latency_models.timer.Session`, as every timer runs it.

    `model` is a file or its bytes (a file where the weights are beside it). `inputs` are the arrays to feed
    by name; without them every input is made up: floats in [0, 1) from a fixed seed, zeros for all else, an
    open first dimension set to the device's batch size.

    Raises:
        InvalidModelError: no loadable model, or one that can't be run with these inputs.
        DeviceError: the device's provider can't be used.
    """

    def __init__(self, model: bytes | Path, device: Device, inputs: Mapping[str, np.ndarray] | None = None) -> None:
        check_readable(model)
        try:
            self._session: timer.Session | None = session(model, device, inputs)
        except timer.RefusedError as refused:
            raise user_error(refused, model, device) from refused
        self._input_names = self._session.input_names

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs, in the model's order."""
        return self._input_names

    def run(self) -> None:
        """Make one inference; its outputs are dropped."""
        assert self._session is not None
        self._session.run()

    def close(self) -> None:
        """Free the session."""
        self._session = None


def user_error(refused: timer.RefusedError, model: bytes | Path, device: Device) -> CostError:
    """The error for the user of what a timer refused."""
    if refused.kind == "model":
        return InvalidModelError(model_label(model), refused.reason)
    place = f"device {device.name!r}" + (f" on {device.host}" if device.host is not None else "")
    if refused.kind == "device":
        return DeviceError(f"{place}: {refused.reason}")
    return TimerError(f"{place}: the timer failed: {refused.reason}")


def session(model: bytes | Path, device: Device, inputs: Mapping[str, np.ndarray] | None) -> timer.Session:
    """A model in ONNX Runtime on `device`, fed with `inputs` or with what is made up.

    Raises:
        RefusedError: of `latency_models.timer`; see `user_error`.
    """
    return timer.Session(
        model if isinstance(model, bytes) else str(model),
        provider=device.provider,
        provider_options=dict(device.provider_options),
        threads=device.threads,
        batch_size=device.batch_size,
        feed=inputs,
    )


def session_options(device: Device) -> object:
    """ONNX Runtime's options of a session on `device`, as it is timed."""
    return timer.session_options(device.threads)


def providers(device: Device) -> list[object]:
    """The device's provider with its options, and the CPU's for the ops that it lacks."""
    return timer.providers(device.provider, dict(device.provider_options))
