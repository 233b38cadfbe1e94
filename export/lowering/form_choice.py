"""The choice of each activation's fastest form, by timings that the caller makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from export.lowering.lower import lower_with_report

if TYPE_CHECKING:
    import onnx

MeasureRatios = Callable[[Sequence[bytes]], Sequence[tuple[float, float]]]
"""Times models: for each the ratio of its time to the first one's, and the upper end of the ratio's interval."""

_WORTH = 0.98  # a form that gains less is not worth another graph


def alternatives(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """Map each family of the model's activations with several forms to the forms' names, the default first."""
    found: dict[str, dict[str, None]] = {}
    for site in lower_with_report(model).sites:
        found.setdefault(site.activation, {}).update(dict.fromkeys(site.forms))
    return {family: tuple(forms) for family, forms in found.items() if len(forms) > 1}


def choose_forms(model: onnx.ModelProto, measure: MeasureRatios) -> dict[str, str]:
    """Choose the fastest form of each family in a model; families whose default is fastest are left out.

    Each family is varied by itself; all variants are timed beside the default.

    Args:
        model: any; stays as it is.
        measure: times models on their device.
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
