"""The interface of runners, which run one model in this process, and the one for ONNX Runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

from latency_models import timer
from latency_models.errors import CostError, DeviceError, InvalidModelError, TimerError
from latency_models.graph.model_file import check_readable, model_label

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    import numpy as np

    from latency_models.devices.device import Device


class Closing:
    """A context manager that closes itself at the end of a `with`. This base holds nothing."""

    def close(self) -> None:
        """Free the process, session or memory that is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Runner(Closing, ABC):
    """One model, loaded and fed, ready to be run again and again.

    The order of calls: the constructor loads the model and fixes its inputs; `run()` makes one inference, any number
    of times, and returns when the result is there; `close()` frees the session, and no `run()` follows. A runner is a
    context manager that closes itself. It reads no clock: that is the caller's.
    """

    @abstractmethod
    def run(self) -> None:
        """Make one inference and wait for its result."""


class OnnxRuntimeRunner(Runner):
    """A model in ONNX Runtime in this process, in the same `latency_models.timer.Session` as every timer uses.

    `model` is a file or its bytes (a file where the weights are beside it). `inputs` are input arrays by name; without
    them inputs are made up: floats in [0, 1) from a fixed seed, zeros for other types, the device's batch size for an
    open first dimension.

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

    def run(self) -> None:
        assert self._session is not None
        self._session.run()

    def close(self) -> None:
        self._session = None


def user_error(refused: timer.RefusedError, model: bytes | Path, device: Device) -> CostError:
    """The error for the user when a timer refused a model, a device or a request."""
    if refused.kind == "model":
        return InvalidModelError(model_label(model), refused.reason)
    place = f"device {device.name!r}" + (f" on {device.host}" if device.host is not None else "")
    if refused.kind == "device":
        return DeviceError(f"{place}: {refused.reason}")
    return TimerError(f"{place}: the timer failed: {refused.reason}")


def session(model: bytes | Path, device: Device, inputs: Mapping[str, np.ndarray] | None) -> timer.Session:
    """A session of ONNX Runtime on `device`, fed with `inputs` or with made-up ones.

    Raises:
        RefusedError: the model or the device can't be used; `user_error` makes the user's error of it.
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
    """ONNX Runtime's options for a timed session on `device`."""
    return timer.session_options(device.threads)


def providers(device: Device) -> list[object]:
    """The device's provider with its options, and the CPU's for the operators that it lacks."""
    return timer.providers(device.provider, dict(device.provider_options))
