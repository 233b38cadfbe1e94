"""Which form of each activation is fastest, found by timing; what times them is the caller's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from export.lowering.lower import lower_with_report

if TYPE_CHECKING:
    import onnx

MeasureRatios = Callable[[Sequence[bytes]], Sequence[tuple[float, float]]]
"""From models to the time of each over the first one's: the ratio, and the upper end of its interval."""

_WORTH = 0.98  # a form that gains less is not worth another graph


def alternatives(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """Families of the model's activations that several forms fit → names of those forms, the default first."""
    found: dict[str, dict[str, None]] = {}
    for site in lower_with_report(model).sites:
        found.setdefault(site.activation, {}).update(dict.fromkeys(site.forms))
    return {family: tuple(forms) for family, forms in found.items() if len(forms) > 1}


def choose_forms(model: onnx.ModelProto, measure: MeasureRatios) -> dict[str, str]:
    """The fastest form of each family in a model, where that isn't the default.

    Each family is varied by itself; all variants are timed beside the default.

    Args:
        model: any; stays as it is.
        measure: times models on the device that they are for.
    """
    variants = [(family, form) for family, forms in alternatives(model).items() for form in forms[1:]]
    if not variants:
        return {}
    lowered = [lower_with_report(model, dict([variant])).model.SerializeToString() for variant in variants]
    ratios = measure([lower_with_report(model).model.SerializeToString(), *lowered])[1:]
    best: dict[str, tuple[float, str]] = {}
    for (family, form), (ratio, high) in zip(variants, ratios, strict=True):
        if ratio < _WORTH and high < 1.0 and ratio < best.get(family, (1.0, ""))[0]:
            best[family] = (ratio, form)
    return {family: form for family, (_, form) in best.items()}
