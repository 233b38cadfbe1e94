"""Values of a kernel, as the rules of its work ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latency_models.errors import CostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from latency_models.kernels.footprint import Footprint
    from latency_models.kernels.optimised_graph import Kernel, Value
    from latency_models.predictors.operators import Operator

    Rule = Callable[[Kernel, Footprint], Iterable[Operator]]


class NotPredictableError(CostError):
    """The cost of an operator can't be predicted, only timed."""


def given(kernel: Kernel, at: int) -> Value:
    """An input that the operator can't do without.

    Raises:
        NotPredictableError: it is no tensor, so that it has no size.
    """
    value = kernel.inputs[at] if at < len(kernel.inputs) else None
    if value is None:
        raise NotPredictableError(
            f"the cost of operator {kernel.op_type} can't be predicted, for an input of it is no tensor; "
            "`hwnas profile` times it"
        )
    return value


def largest(kernel: Kernel) -> Value:
    """The input or output with the most elements."""
    values = [value for value in (*kernel.inputs, *kernel.outputs) if value is not None]
    return max(values, key=lambda value: value.elements)


def positive(size: float) -> float:
    """A size for the logarithm: 1 for one of 0, of a value without elements."""
    return float(size) if size > 0 else 1.0
