"""Does the runtime compute what a quantised graph says? Each integer kernel is checked on its own, on real inputs.

A result that lies between two integers may be rounded to either, and later layers make more of the difference. So
outputs alone can't tell a wrong kernel from rounding. Here no difference travels: the deployed session runs once, with
all its integers as outputs; then the same graph runs with optimisations off, and is handed these integers wherever it
reads some. What it makes of them before it rounds lies within half a step of the integer that the kernel gave, or the
kernel computes something else. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import numpy_helper

from export import onnx_file
from export.errors import InvalidFileError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    Feeds = Mapping[str, npt.NDArray[Any]]

_QUANTIZE, _DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
ROUNDING = 0.51
"""Steps that an honest kernel's integer may lie from the exact result: half of one, and float32's own rounding.

Over 1,500 random networks and torchvision's, honest kernels reached 0.5001, wrong ones 0.54 to 255."""
_RESTLESS = 1e-4
"""Share of a value's elements that may be rounded otherwise than the graph rounds them."""
FLOAT_TOLERANCE = 4e-4
"""Largest difference of a float output as a share of its largest value: a tenth of one of 255 steps."""


@dataclass(frozen=True)
class Disagreement:
    """A value that the deployed session makes otherwise than the graph says.

    Attributes:
        value: the name of a QuantizeLinear's result, or of a graph output.
        between: values that are made from the integers before it, itself included, in reverse order of execution.
        operators: those that make these values, in order of execution.
        steps: the largest difference, in steps of the value's quantisation (of 255 for a float output).
        share: of its elements that differ, 0 to 1.
    """

    value: str
    between: tuple[str, ...]
    operators: tuple[str, ...]
    steps: float
    share: float


@dataclass(frozen=True)
class Roundings:
    """The number of times that a right kernel rounds otherwise than the graph.

    It does so from the same integers, always by one step, at a tie.

    Attributes:
        value: the name of a QuantizeLinear's result.
        values: elements of it that were looked at.
        differing: those of them that kernel and graph round to different integers.
    """

    value: str
    values: int
    differing: int

    @property
    def share(self) -> float:
        """Share (0 to 1) of the elements that differ."""
        return self.differing / self.values if self.values else 0.0


@dataclass(frozen=True)
class Findings:
    """The findings of one check.

    Attributes:
        wrong: values that the deployed session makes wrongly, in order of execution.
        roundings: of each quantised value that isn't wrong.
    """

    wrong: list[Disagreement]
    roundings: list[Roundings]

    @property
    def restless(self) -> list[str]:
        """Values of which many lie just between two integers; later layers can make several steps of that."""
        return [each.value for each in self.roundings if each.share > _RESTLESS]


def disagreements(model: onnx.ModelProto, feeds: Feeds) -> list[Disagreement]:
    """The values that a quantised model's deployed session makes wrongly; see `findings`."""
    return findings(model, feeds).wrong


def findings(model: onnx.ModelProto, feeds: Feeds) -> Findings:
    """Find what is wrong or restless in a quantised model as it is deployed.

    Args:
        model: with QuantizeLinear/DequantizeLinear pairs in its main graph, their parameters stored.
        feeds: real inputs; a few are enough.

    Raises:
        InvalidFileError: it can't be opened or run as deployed.
        RuntimeError: with optimisations off it can't be run.
    """
    check = _Check(model, feeds)
    return Findings(check.run(), check.roundings)


class _Check:
    """One check of one model."""

    def __init__(self, model: onnx.ModelProto, feeds: Feeds) -> None:
        self.model, self.feeds = model, feeds
        self.quantizers = [node for node in model.graph.node if node.op_type == _QUANTIZE]
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self.stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self.outputs = [value.name for value in model.graph.output]
        self.roundings: list[Roundings] = []

    def run(self) -> list[Disagreement]:
        deployed = self._deployed()
        said = self._said(deployed)
        found = [each for node in self.quantizers if (each := self._compared(node, deployed, said)) is not None]
        done = {node.output[0] for node in self.quantizers}
        for name in self.outputs:
            if name in done or name not in said:
                continue
            steps, share = _float_difference(deployed[name], said[name])
            if share:
                found.append(self._disagreement(name, name, steps, share))
        return found

    def _deployed(self) -> dict[str, npt.NDArray[Any]]:
        """Outputs of the session as it is deployed, and the integers inside."""
        alone = onnx_file.open_session(self.model.SerializeToString())
        watched = onnx_file.copied(self.model)
        names = [node.output[0] for node in self.quantizers]
        watched.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
        session = onnx_file.open_session(watched.SerializeToString())
        try:
            outputs = alone.run(self.outputs, dict(self.feeds))
            seen = session.run(self.outputs + names, dict(self.feeds))
        except onnx_file.RUN_ERRORS as error:
            raise InvalidFileError("the quantised model", str(error)) from error
        # The outputs are those of the session that nobody watches: another kernel there would show in them.
        return dict(zip(names, seen[len(self.outputs) :], strict=True)) | dict(zip(self.outputs, outputs, strict=True))

    def _said(self, integers: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """Values that the graph makes of those integers: each before it is quantised, and the float outputs."""
        cut = onnx_file.copied(self.model)
        kept = [node for node in self.model.graph.node if node.op_type != _QUANTIZE]
        del cut.graph.node[:], cut.graph.value_info[:]
        cut.graph.node.extend(kept)
        names = {node.output[0]: node.input[2] for node in self.quantizers}
        given = [  # of open sizes: the runtime would plan its memory by sizes that it infers wrongly
            onnx.helper.make_tensor_value_info(name, self.stored[zero].data_type, [None] * integers[name].ndim)
            for name, zero in names.items()
        ]
        cut.graph.input.extend(given)
        present = {*self.outputs, *self.feeds, *names}
        wanted = [name for name in dict.fromkeys(node.input[0] for node in self.quantizers) if name not in present]
        cut.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in wanted)
        session = onnx_file.open_session(cut.SerializeToString(), optimised=False)
        made = [name for name in self.outputs if name not in names] + wanted
        fed = {**self.feeds, **{name: integers[name] for name in names}}
        taken = {value.name for value in session.get_inputs()}
        values = session.run(made, {name: array for name, array in fed.items() if name in taken})
        return {**self.feeds, **dict(zip(made, values, strict=True))}

    def _compared(
        self, node: onnx.NodeProto, deployed: Mapping[str, npt.NDArray[Any]], said: Mapping[str, npt.NDArray[Any]]
    ) -> Disagreement | None:
        scale, zero = (float(numpy_helper.to_array(self.stored[name])) for name in node.input[1:3])
        integers, exact = deployed[node.output[0]], said.get(node.input[0])
        if exact is None or exact.shape != integers.shape:
            return self._disagreement(node.output[0], node.input[0], np.inf, 1.0)
        limits = np.iinfo(integers.dtype)
        wanted = np.clip(exact.astype(np.float64) / scale + zero, limits.min, limits.max)
        off = np.abs(wanted - integers)
        wrong = ~(off <= ROUNDING)
        if not wrong.any():
            differing = int((np.rint(wanted) != integers).sum())
            self.roundings.append(Roundings(node.output[0], integers.size, differing))
            return None
        return self._disagreement(node.output[0], node.input[0], float(np.nanmax(off)), float(wrong.mean()))

    def _disagreement(self, value: str, start: str, steps: float, share: float) -> Disagreement:
        between: list[str] = []
        waiting = [start]
        while waiting:
            name = waiting.pop(0)
            node = self.makers.get(name)
            if node is None or name in between or node.op_type in (_QUANTIZE, _DEQUANTIZE):
                continue
            between.append(name)
            waiting += node.input
        operators = dict.fromkeys(self.makers[name].op_type for name in reversed(between))
        return Disagreement(value, tuple(between), tuple(operators), steps, share)


def _float_difference(found: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> tuple[float, float]:
    """The largest difference in steps, 255 of which are the largest value, and the share that is off by too much."""
    if found.shape != wanted.shape:
        return np.inf, 1.0
    if found.dtype.kind != "f":
        wrong = found != wanted
        return (np.inf if wrong.any() else 0.0), float(wrong.mean() if wrong.size else 0.0)
    largest = float(np.max(np.abs(wanted), initial=0.0, where=np.isfinite(wanted))) or 1.0
    same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
    with np.errstate(invalid="ignore"):
        off = np.where(same, 0.0, np.abs(found.astype(np.float64) - wanted)) / largest
    wrong = ~(off <= FLOAT_TOLERANCE)
    return float(np.nan_to_num(off, nan=np.inf).max(initial=0.0)) * 255, float(wrong.mean() if wrong.size else 0.0)


def some_of(inputs: npt.NDArray[Any], at_most: int) -> npt.NDArray[Any]:
    """Up to so many of the inputs, evenly taken from all of them."""
    chosen = np.unique(np.linspace(0, len(inputs) - 1, min(at_most, len(inputs))).astype(np.int64))
    return np.asarray(inputs[chosen])
