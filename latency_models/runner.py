"""How a model is run: the one thing that timing needs to know of a runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self

import numpy as np

from latency_models.errors import InvalidModelError
from latency_models.shapes import batch_sizes, one_line

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    from latency_models.device import Device

_SEED = 20240229
_QUIET = 3  # ONNX Runtime's log level: errors only
_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int16)": np.int16,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


class Runner(ABC):
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

    def close(self) -> None:  # noqa: B027 - most runners hold nothing that has to be freed by hand
        """Free what the runner holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class OnnxRuntimeRunner(Runner):
    """Runs a model with ONNX Runtime through `InferenceSession.run`, as a deployment would.

    `model` is a file or its bytes (a file where the weights are beside it). `inputs` are the arrays to feed
    by name; without them every input is made up: floats in [0, 1) from a fixed seed, zeros for all else, an
    open first dimension set to the device's batch size.

    Raises:
        InvalidModelError: no loadable model, or one that can't be run with these inputs.
    """

    def __init__(self, model: bytes | Path, device: Device, inputs: Mapping[str, np.ndarray] | None = None) -> None:
        import onnxruntime

        self._label = model_label(model)
        self._errors: tuple[type[Exception], ...] = _runtime_errors()
        check_readable(model)
        source = model if isinstance(model, bytes) else str(model)
        try:
            self._session = onnxruntime.InferenceSession(source, _session_options(device), providers=_providers(device))
        except self._errors as error:
            raise InvalidModelError(self._label, f"not a loadable ONNX model: {one_line(error)}") from error
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._feed = dict(inputs) if inputs is not None else self._made_up(device.batch_size)
        self._check_first_run()

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs, in the model's order."""
        return tuple(declared.name for declared in self._session.get_inputs())

    def run(self) -> None:
        """Make one inference; its outputs are dropped."""
        self._session.run(self._outputs, self._feed)

    def close(self) -> None:
        """Free the session."""
        self._session = None

    def _check_first_run(self) -> None:
        """An op may load and yet refuse its input: better known here than under the clock."""
        refusals: tuple[type[Exception], ...] = (ValueError, *self._errors)
        try:
            self.run()
        except refusals as error:
            raise InvalidModelError(self._label, f"the model can't be run: {one_line(error)}") from error

    def _made_up(self, batch_size: int) -> dict[str, np.ndarray]:
        declared = self._session.get_inputs()
        shapes = batch_sizes({each.name: each.shape for each in declared}, batch_size, self._label)
        rng = np.random.default_rng(_SEED)
        return {each.name: _made_up_input(each.type, shapes[each.name], rng, self._label) for each in declared}


def model_label(model: bytes | Path) -> str:
    """What messages call the model: its path, or "model" for bytes."""
    return "model" if isinstance(model, bytes) else str(model)


def check_readable(model: bytes | Path) -> None:
    """Raise InvalidModelError for what can be told without loading: not found, a folder, empty."""
    label = model_label(model)
    if isinstance(model, bytes):
        if not model:
            raise InvalidModelError(label, "not a loadable ONNX model: it is empty (0 bytes)")
        return
    if model.exists() and not model.is_file():
        raise InvalidModelError(label, "can't be read: it is no regular file")
    try:
        with model.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise InvalidModelError(label, f"can't be read: {error.strerror or error}") from error
    if empty:
        raise InvalidModelError(label, "not a loadable ONNX model: the file is empty (0 bytes)")


def _made_up_input(kind: str, shape: tuple[int, ...], rng: np.random.Generator, label: str) -> np.ndarray:
    if kind not in _DTYPES:
        raise InvalidModelError(label, f"no inputs can be made up for type {kind}; valid: {', '.join(_DTYPES)}")
    dtype = np.dtype(_DTYPES[kind])
    if dtype.kind == "f":
        return rng.random(shape, dtype=np.float32).astype(dtype, copy=False)
    return np.zeros(shape, dtype)


def _session_options(device: Device) -> object:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = device.threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _QUIET
    return options


def _providers(device: Device) -> list[str]:
    """The device's provider, and the CPU's for the ops that it lacks."""
    return list(dict.fromkeys([device.provider, "CPUExecutionProvider"]))


def _runtime_errors() -> tuple[type[Exception], ...]:
    """ONNX Runtime's exceptions: they share no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    found = (getattr(state, name) for name in dir(state))
    return tuple(each for each in found if isinstance(each, type) and issubclass(each, Exception))
