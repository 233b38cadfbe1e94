"""Nodes that stay float because ONNX Runtime computes them on integers otherwise than the graph says, or slower.

A runtime that fuses QuantizeLinear/DequantizeLinear pairs also takes nodes between them that nobody quantised, and
some of its integer kernels have no place for an attribute, or divide otherwise. What is wrong and isn't known here is
found by `export.quantization.kernel_check`. What is slow was measured; `SLOW_FORMS` says what and how much.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from export.onnx_file import attributes_of, copied

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx

TAKING_ONE = frozenset({"Conv", "ConvTranspose", "Gemm"})
"""Operators whose stored float weights ONNX Runtime quantises itself, one scale for all, where input and result are
quantised."""
TAKING_ALL = frozenset({"Add", "AveragePool", "Concat", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid", "Softmax"})
"""Operators that ONNX Runtime takes into an integer kernel where all inputs and the result are quantised."""
PASSED = frozenset({"Relu", "Clip"})
"""Operators that may stand between the first kind and the quantisation of its result."""


_MOST_TAPS = 16
_FEWEST_CHANNELS = 5


def _averages_few(options: dict[str, object], weight: Sequence[int]) -> bool:
    """Whether a pool averages small windows, or padded ones: a large one without padding is mostly the whole map."""
    taps, pads = options.get("kernel_shape"), options.get("pads")
    return isinstance(taps, list) and (prod(taps) <= _MOST_TAPS or (isinstance(pads, list) and any(pads)))


def _reads_few(options: dict[str, object], weight: Sequence[int]) -> bool:
    """Whether a convolution's groups read a few channels each; depthwise, one in and one out, has its own kernel."""
    groups = options.get("group", 1)
    if not isinstance(groups, int) or groups < 2 or len(weight) < 3:
        return False
    return weight[1] < _FEWEST_CHANNELS and not weight[0] == groups * weight[1] == groups


@dataclass(frozen=True)
class SlowForm:
    """A form of an operator that takes longer on integers than in float between two conversions.

    Attributes:
        is_slow: whether a node with these attributes, and a weight of these sizes, is of this form.
        reason: in words, for the user.
    """

    is_slow: Callable[[dict[str, object], Sequence[int]], bool]
    reason: str


SLOW_FORMS = {
    "AveragePool": SlowForm(_averages_few, "AveragePool: ONNX Runtime's integer kernel is slower than its float one"),
    "Conv": SlowForm(
        _reads_few, "Conv in groups of 1 to 4 channels: ONNX Runtime's integer kernel is slower than its float one"
    ),
}
"""What is slow, by operator. Measured by `benchmarks/int8_slow_forms.py` (ONNX Runtime 1.31, AVX-512), networks of such
nodes between 1×1 convolutions, whole on integers over with these nodes in float:

- AveragePool: 3×3 at a stride of 1 1.5 to 4.1, 2×2 at 2 1.05 to 1.5, 4×4 at 4 1.15 to 1.3; of a whole map of 7×7 .80
  to .88, and GlobalAveragePool .82 to .94, which therefore stay on integers.
- Conv in groups of 2 channels 2.5 to 4.7, of 4 1.1 to 2.5, of 1 channel with 2 or 4 results 5.7 to 6.9; in groups of 8
  .72 to 1.2, of 16 .64 to 1.0, depthwise .65 to .81, which therefore stay on integers.
"""


def reason_of_time(node: onnx.NodeProto, weight: Sequence[int]) -> str:
    """The reason, in words, why the node takes longer on integers than in float; empty where it doesn't.

    Args:
        node: of any operator.
        weight: the sizes of its second input, where that is stored; else empty.
    """
    form = SLOW_FORMS.get(node.op_type)
    return form.reason if form is not None and form.is_slow(attributes_of(node), weight) else ""


def reason_of_wrong_results(node: onnx.NodeProto) -> str:
    """The reason, in words, why the node's integer kernel would give something else; empty where none is known."""
    options = attributes_of(node)
    if node.op_type != "AveragePool":
        return ""
    if any(size != 1 for size in options.get("dilations", ())):
        return "AveragePool with dilations: ONNX Runtime's integer kernel has none"
    if options.get("ceil_mode") and options.get("count_include_pad"):
        return "AveragePool with ceil_mode and counted padding: ONNX Runtime's integer kernel divides otherwise"
    return ""


def drop_unit_dilations(node: onnx.NodeProto) -> None:
    """Take dilations of 1 from an AveragePool, in place: the integer kernel refuses even these."""
    if node.op_type != "AveragePool" or any(size != 1 for size in attributes_of(node).get("dilations", ())):
        return
    kept = [copied(attribute) for attribute in node.attribute if attribute.name != "dilations"]
    del node.attribute[:]
    node.attribute.extend(kept)
