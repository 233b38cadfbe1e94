"""The networks that operators are learnt from: all can be run, and together they have what other networks have."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest

from latency_models.devices.device import Device
from latency_models.kernels.operators import operators_of
from latency_models.kernels.optimised_graph import optimised_graph
from latency_models.microbench import convolutions, transformers
from latency_models.microbench.benchmarks import FAMILIES, WHOLE, benchmarks

if TYPE_CHECKING:
    from latency_models.microbench.benchmarks import Family
    from latency_models.predictors.operators import Operator

_DRAWN, _DRAWN_OF_LARGE = 12, 4
_LARGE = {convolutions.heavy, transformers.vectors, transformers.rows} | WHOLE
_MOST = 1320  # they are timed in 170 s on two idle cores, when the first file is predicted


@cache
def drawn(family: Family) -> tuple[Operator, ...]:
    """The operators of a family's first networks."""
    count = _DRAWN_OF_LARGE if family in _LARGE else _DRAWN
    models = (family(np.random.default_rng([1, at])) for at in range(count))
    return tuple(operator for model in models for operator in operators_of(optimised_graph(model, Device())))


@pytest.mark.parametrize("family", [family for family, _ in FAMILIES], ids=lambda family: family.__name__)
def test_each_family_gives_graphs_whose_operators_are_known(family: Family) -> None:
    operators = drawn(family)
    assert len(operators) > 1
    assert all(size > 0 for operator in operators for size in operator.sizes)
    assert all(amount >= 0 for operator in operators for amount in operator.work)


def test_operators_of_a_kind_have_equally_many_sizes_and_amounts() -> None:
    forms: dict[str, tuple[int, int]] = {}
    for family, _ in FAMILIES:
        for operator in drawn(family):
            form = (len(operator.sizes), len(operator.work))
            assert forms.setdefault(operator.kind, form) == form, operator.kind


@pytest.mark.parametrize(
    "kind",
    [
        "vector", "matrix", "matrices", "float64 vector", "float64 matrix", "int8 matrix", "Einsum", "LSTM", "GRU",
        "LayerNormalization", "BiasGelu", "FastGelu", "Gelu", "Softmax", "Transpose one", "runs", "Split", "Gather",
        "Where number", "plain conv", "plain grouped", "depthwise", "few integers", "Cast float16 to float32",
        "Resize nearest", "Resize nearest doubled", "Resize cubic", "ConvTranspose", "plain LpPool",
    ],
)  # fmt: skip
def test_operators_of_usual_networks_are_timed(kind: str) -> None:
    assert any(operator.kind == kind for family, _ in FAMILIES for operator in drawn(family))


def test_whole_networks_are_marked() -> None:
    families = tuple((family, 1) for family, _ in FAMILIES if family in WHOLE or family is FAMILIES[0][0])
    assert sorted(each.whole for each in benchmarks(families)) == [False, True, True]


def test_there_are_no_more_than_can_be_timed_in_three_minutes() -> None:
    assert sum(count for _, count in FAMILIES) <= _MOST
