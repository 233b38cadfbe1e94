"""Choosing between forms by a measure that is handed in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from export.activations import table as activations
from export.exporter.graph_builder import plain_graph
from export.lowering.form_choice import alternatives, choose_forms
from export.lowering.forms import FORMS
from export.lowering.lower import lower, lower_with_report

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx

SHAPE = (16, 8, 8)


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(16, 16, 1), activations.create(name, 16), nn.Conv2d(16, 16, 1)).eval()


def plain(name: str) -> onnx.ModelProto:
    return plain_graph(network(name), SHAPE)


def saying(ratios: Sequence[float], width: float = 0.0) -> Callable[[Sequence[bytes]], list[tuple[float, float]]]:
    """A measure that gives the default 1 and the variants these ratios."""

    def measure(models: Sequence[bytes]) -> list[tuple[float, float]]:
        assert len(models) == 1 + len(ratios)
        return [(1.0, 1.0), *((ratio, ratio + width) for ratio in ratios)]

    return measure


class TestChoosing:
    def test_only_activations_with_several_forms_are_varied(self):
        assert alternatives(plain("relu")) == {}
        assert alternatives(plain("hardswish")) == {}
        found = alternatives(plain("mish"))
        assert list(found) == ["mish"]
        assert found["mish"] == tuple(form.name for form in FORMS["mish"])

    def test_the_fastest_wins(self):
        assert choose_forms(plain("mish"), saying([1.1, 0.9, 0.7, 5.0])) == {"mish": "division"}

    @pytest.mark.parametrize(
        ("ratios", "width"), [([1.0, 1.2, 1.0, 5.0], 0.0), ([0.99, 1.0, 1.0, 1.0], 0.0), ([0.9, 1, 1, 1], 0.2)]
    )
    def test_the_default_stays_where_nothing_is_clearly_faster(self, ratios, width):
        assert choose_forms(plain("mish"), saying(ratios, width)) == {}

    def test_nothing_is_timed_where_there_is_no_choice(self):
        def never(models: Sequence[bytes]) -> list[tuple[float, float]]:
            raise AssertionError("asked for times")

        assert choose_forms(plain("silu"), never) == {}

    @pytest.mark.parametrize("name", ["mish", "softplus", "elu", "selu", "prelu_channel"])
    def test_every_form_that_is_offered_can_be_had(self, name):
        model = plain(name)
        for family, forms in alternatives(model).items():
            written = [lower(model, {family: form}) for form in forms]
            assert len({each.SerializeToString() for each in written}) == len(forms)
            assert [lower_with_report(model, {family: form}).sites[0].form for form in forms] == list(forms)

    def test_a_form_that_may_not_stand_there_is_not_taken(self):
        flat = plain_graph(nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Mish()).eval(), (1, 8, 8))
        (site,) = lower_with_report(flat, {"mish": "reflected"}).sites
        assert site.form != "reflected"
