"""Comparison of several files: all timed in one rotation, each with its costs and its ratio to the first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from latency_models.errors import InputError, InvalidModelError
from latency_models.graph.external_data import parse_whole
from latency_models.graph.model_file import model_label
from latency_models.graph.model_inputs import NOTHING_GIVEN, GivenInputs, model_inputs
from latency_models.graph.shapes import real_inputs
from latency_models.model_profile import Profile, profile
from latency_models.timing.meter import LatencyMeter, Ratio, same_environment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from latency_models.devices.device import Device


@dataclass(frozen=True)
class ComparisonRow:
    """One file's costs, and the ratio of its latency to the first file's (1 for the first itself)."""

    profile: Profile
    ratio: Ratio

    def as_dict(self) -> dict[str, object]:
        """The profile for JSON, with `ratio`, its 95 % interval, and whether that leaves out 1."""
        return {
            **self.profile.as_dict(),
            "ratio": self.ratio.ratio,
            "ratio_low": self.ratio.low,
            "ratio_high": self.ratio.high,
            "different": self.ratio.different,
        }


def compare(
    models: Sequence[bytes | Path],
    device: Device,
    *,
    given: GivenInputs = NOTHING_GIVEN,
    budget_s: float = 4.0,
    meter: LatencyMeter | None = None,
) -> tuple[ComparisonRow, ...]:
    """Time `models` together on `device`, within about `budget_s`, and count their other costs.

    `given` are sizes and values of inputs, of every model that has an input of the name. `meter` is a meter of the
    same device, if the caller has one.

    Raises:
        InvalidModelError: one of them is no loadable model, or can't be run.
        InputError: what is given fits the inputs of one of them not, or no model has an input of that name.
    """
    protos = [parse_whole(model) for model in models]
    names = [{info.name for info in real_inputs(proto.graph)} for proto in protos]
    given.check_known(set().union(*names))
    own = [given.only(each) for each in names]
    inputs = [
        model_inputs(proto, model_label(model), device.batch_size, each)
        for proto, model, each in zip(protos, models, own, strict=True)
    ]
    if len({each.batch_size for each in inputs}) > 1:
        raise InputError("the files would be run at different batch sizes; --batch-size or --shape can set one for all")
    device = replace(device, batch_size=inputs[0].batch_size)
    meter = meter if meter is not None else LatencyMeter(device)
    try:
        joint = meter.measure_together(models, budget_s=budget_s, inputs=[each.fed() for each in inputs])
    except InvalidModelError as error:
        refusing = next((at for at, model in enumerate(models) if model_label(model) == error.model), 0)
        raise inputs[refusing].refused(error) from error
    same_environment(joint.latencies)
    profiles = (
        profile(model, device, given=each, latency=latency)
        for model, each, latency in zip(models, own, joint.latencies, strict=True)
    )
    return tuple(ComparisonRow(each, ratio) for each, ratio in zip(profiles, joint.ratios, strict=True))
