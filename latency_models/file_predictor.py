"""The latency of any ONNX file without timing it, from the costs of the operators in ONNX Runtime's optimised graph.

The costs of operators on this machine are learned from micro-benchmarks (`latency_models.microbench.benchmarks`). These
are timed when they are first needed and kept, by the environment's fingerprint, in the user's data folder.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import platformdirs
from numpy.linalg import LinAlgError
from pydantic import BaseModel, ConfigDict, ValidationError

from latency_models.devices.device import CPU_PROVIDER, ONNXRUNTIME
from latency_models.devices.environment import capture
from latency_models.errors import DeviceError
from latency_models.files import write_whole
from latency_models.graph.model_inputs import NOTHING_GIVEN, GivenInputs
from latency_models.kernels.operators import NotPredictableError, operators_of
from latency_models.kernels.optimised_graph import optimised_graph
from latency_models.microbench.benchmarks import observe
from latency_models.predictors.operator_kernel import Hyper
from latency_models.predictors.operator_model import OperatorModel
from latency_models.predictors.operators import Operator
from latency_models.predictors.prediction import NORMAL_90
from latency_models.strict_json import mistakes, read_json
from latency_models.timer import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from latency_models.devices.device import Device
    from latency_models.kernels.optimised_graph import OptimisedGraph
    from latency_models.predictors.operator_model import Observation

FORMAT = 3
"""Version of the file, of the operators of kernels, and of the micro-benchmarks: a change of any needs a new number."""
# Deviations of kernels from their lines; the width of intervals doesn't depend on them, but on held-out residuals.
_HYPER = Hyper(kind=0.001, shape=0.01, own=0.003, reach=1.0, misfit=0.06)
# Files are unlike the random networks that the width of intervals comes from. Relative standard deviation of what that
# adds, from networks that nothing was fitted to.
_UNLIKE_SD = 0.08
_STAND_IN_FACTOR = 3.0  # an unknown operator may take so many times more or less than its stand-in
_STAND_INS = ("Mul", "Relu")
_MOST_AMOUNTS = 4  # of an operator that moves or changes numbers; products and recurrent layers have more
_LEAST_MS = 1e-4
_MOST_BYTES = 16 * 10**6


class _StoredPredictor(BaseModel):
    """The file of a device's observations, beside its format."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    environment: dict[str, Any]
    model: dict[str, Any]


@dataclass(frozen=True)
class FilePrediction:
    """A file's predicted latency.

    `low_ms` to `high_ms` is the 90 % interval, `measurements` the number of timed networks. `unknown` are operators
    that no timed network has; others stand in for them.
    """

    latency_ms: float
    low_ms: float
    high_ms: float
    measurements: int
    unknown: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """The fields as JSON takes them."""
        warnings = []
        if self.unknown:
            names = ", ".join(self.unknown)
            warnings.append(f"no micro-benchmark has {names}: their part is a guess, and the interval wider for it")
        return {
            "latency_ms": self.latency_ms,
            "latency_low_ms": self.low_ms,
            "latency_high_ms": self.high_ms,
            "model": f"operators of ONNX Runtime's optimised graph, from {self.measurements} micro-benchmarks",
            "measurements": self.measurements,
            "unknown_operators": list(self.unknown),
            "warnings": warnings,
        }


class FilePredictor:
    """Predicts the latency of files on one device, with a model fitted to networks timed there."""

    def __init__(self, device: Device, model: OperatorModel) -> None:
        self._device = device
        self._model = model
        self._kinds = {operator.kind: _form(operator) for each in model.observations for operator in each.operators}
        self.measurements = len(model.observations)

    def predict(self, model: bytes | Path, given: GivenInputs = NOTHING_GIVEN) -> FilePrediction:
        """Predict the latency of `model` at the device's batch size, or that of the given inputs.

        Raises:
            InvalidModelError: no loadable model, open sizes that aren't given, or one that can't be run at these sizes.
            InputError: what is given doesn't fit the model.
            UnknownShapeError: loops, whose cost depends on values.
            NotPredictableError: it has an operator whose cost can't be predicted.
        """
        return self.predict_graph(optimised_graph(model, self._device, given))

    def predict_graph(self, graph: OptimisedGraph) -> FilePrediction:
        """Predict the latency of an optimised graph. Raises NotPredictableError as `predict`."""
        operators = operators_of(graph)
        stand_ins = {each: self._stand_in(each) for each in operators if each.kind not in self._kinds}
        found = self._model.predict([stand_ins.get(each, each) for each in operators])
        guessed_ms = sum(max(self._model.operator_ms(stand_ins[each]), 0.0) for each in operators if each in stand_ins)
        reach_ms = math.hypot(found.high_ms - found.latency_ms, NORMAL_90 * _UNLIKE_SD * found.latency_ms)
        low_ms = max(found.latency_ms - reach_ms - guessed_ms * (1.0 - 1.0 / _STAND_IN_FACTOR), _LEAST_MS)
        high_ms = found.latency_ms + reach_ms + guessed_ms * (_STAND_IN_FACTOR - 1.0)
        if not all(map(math.isfinite, (found.latency_ms, low_ms, high_ms))):
            raise NotPredictableError("its amounts of work are beyond what can be predicted; `hwnas profile` times it")
        return FilePrediction(
            latency_ms=found.latency_ms,
            low_ms=min(low_ms, found.latency_ms),
            high_ms=high_ms,
            measurements=self.measurements,
            unknown=tuple(dict.fromkeys(each.kind for each in stand_ins)),
        )

    def _stand_in(self, operator: Operator) -> Operator:
        """An operator of a timed kind and the same amounts: the kernel for float32 numbers, or a plain product.

        Raises:
            NotPredictableError: nothing like it was timed.
        """
        for kind in _simpler(operator.kind):
            if self._kinds.get(kind) == _form(operator):
                return replace(operator, kind=kind)
        if len(operator.work) > _MOST_AMOUNTS:
            raise NotPredictableError(
                f"nothing like operator {operator.kind} was timed here, so that its cost can't be predicted; "
                "`hwnas profile` times it"
            )
        million = operator.work[0] if operator.work else 0.0
        kind = next((name for name in _STAND_INS if name in self._kinds), _STAND_INS[0])
        return Operator(kind, (max(1.0, 1e6 * million),), (million, 0.0))


def _form(operator: Operator) -> tuple[int, int]:
    """The numbers of sizes and amounts, which are the same for all operators of a kind."""
    return len(operator.sizes), len(operator.work)


def _simpler(kind: str) -> Iterator[str]:
    """The kind without its first word, which is the type of its numbers or a layout, then without the next."""
    while " " in kind:
        _, _, kind = kind.partition(" ")
        yield kind


class PredictorStore:
    """Stores the observations of each environment in a file of its own in `folder`.

    A file that can't be read, or is of another format or environment, isn't used; `warnings` says why.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder if folder is not None else platformdirs.user_data_path("hwnas") / "operator_costs"
        self.warnings: list[str] = []

    def predictor(
        self,
        device: Device,
        *,
        rebuild: bool = False,
        timed: Callable[[], Sequence[Observation]] | None = None,
        progress: Callable[[int, int], None] = lambda done, of: None,
    ) -> FilePredictor:
        """The predictor of `device`, from the stored observations or new ones.

        Args:
            device: must be ONNX Runtime's CPU provider on this machine.
            rebuild: time everything again.
            timed: makes observations in place of the micro-benchmarks.
            progress: called with the number of micro-benchmarks that are done, and of all.

        Raises:
            DeviceError: another kind of device.
        """
        _check(device)
        # Batch and precision show in a model's operators, and the micro-benchmarks have operators of all.
        plain = replace(device, batch_size=1, precision="fp32")
        environment = capture(plain)
        path = self.folder / f"{environment.fingerprint}.json"
        kept = None if rebuild else self._read(path, environment.fingerprint)
        if kept is None:
            kept = OperatorModel.fit(timed() if timed is not None else observe(plain, progress), _HYPER)
            self._write(path, {"format": FORMAT, "environment": environment.as_dict(), "model": kept.as_dict()})
        return FilePredictor(device, kept)

    def _read(self, path: Path, fingerprint: str) -> OperatorModel | None:
        try:
            content = read_json(path, _MOST_BYTES)
            if not isinstance(content, dict) or content.get("format") != FORMAT:
                return None
            stored = _StoredPredictor.model_validate(content)
            if stored.environment.get("fingerprint") != fingerprint:
                self.warnings.append(f"{path} is of another environment; the operators are timed again")
                return None
            return OperatorModel.from_dict(stored.model)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, ArithmeticError, LookupError, RuntimeError, MemoryError, LinAlgError) as error:
            what = mistakes(error) if isinstance(error, ValidationError) else one_line(error)
            self.warnings.append(f"{path} can't be used ({what}); the operators are timed again")
            return None

    def _write(self, path: Path, document: dict[str, Any]) -> None:
        try:
            write_whole(path, json.dumps(document))
        except OSError as error:
            self.warnings.append(f"{path} can't be written ({error.strerror or error}); what was timed is not kept")


def _check(device: Device) -> None:
    if device.runtime != ONNXRUNTIME or device.provider != CPU_PROVIDER or device.host is not None:
        raise DeviceError(
            f"device {device.name!r}: files can be predicted for ONNX Runtime's CPU provider on this machine alone, "
            "whose optimised graph can be had here; `hwnas profile` times them on any device"
        )
