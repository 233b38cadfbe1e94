"""Values of a kernel, as the rules of its work ask for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from latency_models.kernels.footprint import Footprint
    from latency_models.kernels.optimised_graph import Kernel, Value
    from latency_models.predictors.operators import Operator

    Rule = Callable[[Kernel, Footprint], Iterable[Operator]]


def given(kernel: Kernel, at: int) -> Value:
    """An input that the operator can't do without."""
    value = kernel.inputs[at]
    assert value is not None
    return value


def largest(kernel: Kernel) -> Value:
    """The input or output with the most elements."""
    values = [value for value in (*kernel.inputs, *kernel.outputs) if value is not None]
    return max(values, key=lambda value: value.elements)


def positive(size: float) -> float:
    """A size for the logarithm: 1 for one of 0, of a value without elements."""
    return float(size) if size > 0 else 1.0
