"""The device's blocks of channels, and the step of a space's widths that follows them.

The blocks are timed where a search or a calibration begins. The step is then written into the config as a number, so
that whatever comes later has the same space and times nothing again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from latency_models.channel_blocks import BUDGET_S, find_channel_blocks, off_block
from latency_models.strict_json import DamagedJsonError, read_json
from latency_models.timing.meter import LatencyMeter
from pipeline.config.device import device_of
from pipeline.config.space import DEVICE_STEP, WIDEST_STEP, WIDTH_STEP
from pipeline.costs.precision import quantizer_for
from pipeline.costs.predictor_file import recorded_space
from pipeline.spaces.make import make_space

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig
    from pipeline.data import DataSet
    from pipeline.spaces.base import SearchSpace
    from pipeline.trials.reporter import Reporter

MOST_BYTES = 10**6
_KEY = "width_step"
_WIDTH = "_width"
_SHOWN = 24
"""The width whose cost is told as evidence, beside that of 32: whole blocks of 16 and 8 differ most there."""


class WidthTime(BaseModel):
    """The time of a width relative to that of 32 channels, with its 95 % interval."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    channels: int
    relative_time: float
    low: float
    high: float


class Evidence(BaseModel):
    """The times that blocks were found by."""

    model_config = ConfigDict(extra="ignore", strict=True)

    dense: list[WidthTime] = []
    depthwise: list[WidthTime] = []


class BlocksRecord(BaseModel):
    """Blocks of channels as files and `--json` have them; see `latency_models.channel_blocks.ChannelBlocks`.

    Attributes:
        space_widths: of the space, narrowest first; `off_block_widths` those that are no multiples of the dense block.
        fixed_widths: of the stages with a single width.
    """

    model_config = ConfigDict(extra="ignore", strict=True)

    dense: int | None
    depthwise: int | None
    dense_unavailable: str = ""
    depthwise_unavailable: str = ""
    evidence: Evidence = Evidence()
    space_widths: list[int] = []
    off_block_widths: list[int] = []
    fixed_widths: dict[str, int] = {}

    def beside(self, space: SearchSpace) -> BlocksRecord:
        """The record with what it means for a space's widths."""
        stages = {choice.label: choice.values for choice in space.choices if choice.label.endswith(_WIDTH)}
        facts = {
            "space_widths": list(space.widths),
            "off_block_widths": list(off_block(space.widths, self.dense)) if self.dense is not None else [],
            "fixed_widths": {
                label.removesuffix(_WIDTH): int(values[0]) for label, values in stages.items() if len(values) == 1
            },
        }
        return self.model_copy(update=facts)

    def as_dict(self) -> dict[str, Any]:
        """The record for JSON; reasons only in place of blocks that weren't found."""
        document = self.model_dump()
        for name in ("dense", "depthwise"):
            if document[name] is not None:
                del document[f"{name}_unavailable"]
        return document


def timed_blocks(meter: LatencyMeter, budget_s: float = BUDGET_S) -> BlocksRecord:
    """Time the blocks of a meter's device, at its precision.

    Raises:
        CostError: the device can't be used.
    """
    found = find_channel_blocks(meter, quantizer_for(meter.device.precision), budget_s=budget_s)
    return BlocksRecord.model_validate(found.as_dict())


def asks_device(config: RunConfig) -> bool:
    """Whether the config leaves the step of the widths to the device."""
    return _KEY in type(config.space).model_fields and _step_in(config) == DEVICE_STEP


def with_step(config: RunConfig, step: int) -> RunConfig:
    """The config with this step of its space's widths."""
    return config.model_copy(update={"space": config.space.model_copy(update={_KEY: step})})


def with_any_step(config: RunConfig) -> RunConfig:
    """The config with the usual step in place of the device's, to check all else before something is timed."""
    return with_step(config, WIDTH_STEP) if asks_device(config) else config


@dataclass(frozen=True)
class OwnStep:
    """A config whose step of the widths was left to the device, with the number that was found.

    Attributes:
        config: with a number for the step.
        space: of that config.
        blocks: that were timed; None where the step is a cost model's.
    """

    config: RunConfig
    space: SearchSpace
    blocks: BlocksRecord | None


def own_step(config: RunConfig, data: DataSet, reporter: Reporter) -> OwnStep:
    """Find the step of the widths for a config that leaves it to the device, and say which it is and why.

    A cost model's file that the config names is of a space with a step: that one is taken. Where the dense
    convolutions have no clear block the step is the usual one.

    Raises:
        CostError: the device can't be used.
        HwnasError: there is no space with this step.
    """
    if config.cost_model.endswith(".json"):
        numbered = with_step(config, _step_of(Path(config.cost_model)))
        reporter.note(f"space.width_step: {_step_in(numbered)}, as in the cost model {config.cost_model}")
        return OwnStep(numbered, make_space(numbered, data), None)
    reporter.stage(f"Timing the blocks of channels of the device {config.device.name}")
    with LatencyMeter(device_of(config.device)) as meter:
        found = timed_blocks(meter)
    numbered = with_step(config, found.dense or WIDTH_STEP)
    space = make_space(numbered, data)
    blocks = found.beside(space)
    reporter.note(f"space.width_step: {_step_in(numbered)}. {words(blocks, numbered)}")
    return OwnStep(numbered, space, blocks)


def _step_in(config: RunConfig) -> object:
    return getattr(config.space, _KEY, None)


def _step_of(cost_model: Path) -> int:
    """The step of a cost model's space; the usual one where the file doesn't tell, which is refused for that later."""
    step = recorded_space(cost_model).get(_KEY, WIDTH_STEP)
    return step if type(step) is int and 1 <= step <= WIDEST_STEP else WIDTH_STEP


def sentence(blocks: BlocksRecord) -> str:
    """Say in one or two sentences what was found and how."""
    if blocks.dense is None and blocks.depthwise is None:
        return f"No clear blocks of channels: {blocks.dense_unavailable}; {blocks.depthwise_unavailable}."
    times = {row.channels: row.relative_time for row in blocks.evidence.dense}
    evidence = f" (timed: {_SHOWN} channels take {times[_SHOWN]:.2f} of what 32 do)" if _SHOWN in times else ""
    if blocks.dense is None:
        return (
            f"Depthwise convolutions cost by blocks of {blocks.depthwise} channels; dense ones by no clear ones:"
            f" {blocks.dense_unavailable}."
        )
    return (
        f"Dense 3×3 convolutions cost by blocks of {blocks.dense} channels on this device{evidence}, depthwise ones by"
        f" {f'blocks of {blocks.depthwise}' if blocks.depthwise else f'no clear ones: {blocks.depthwise_unavailable}'}."
    )


def words(blocks: BlocksRecord, config: RunConfig) -> str:
    """Say in a few sentences what was found, how, and what it means for the widths of the config's space."""
    said = [sentence(blocks)]
    if blocks.off_block_widths:
        count, wrong = len(blocks.space_widths), ", ".join(map(str, blocks.off_block_widths))
        follow = f"; space.width_step: {DEVICE_STEP} follows it" if _step_in(config) is not None else ""
        said.append(
            f"{len(blocks.off_block_widths)} of the space's {count} widths are no multiples of {blocks.dense} ({wrong})"
            f" and cost what the next multiple does{follow}."
        )
    if blocks.fixed_widths and len(getattr(config.space, "width_multipliers", ())) > 1:
        fixed = ", ".join(f"{stage} ({width})" for stage, width in blocks.fixed_widths.items())
        said.append(
            f"In steps of {_step_in(config)} channels a single width is left for {fixed}; a larger"
            " space.width gives a choice."
        )
    return " ".join(said)


def as_file(blocks: BlocksRecord) -> bytes:
    """The content of a run's file of the blocks."""
    return json.dumps({"format": 1, **blocks.as_dict()}, indent=1).encode()


class _File(BlocksRecord):
    format: Literal[1]


def read_blocks(path: Path) -> BlocksRecord | None:
    """The blocks in a run's file, or in a cost model's; None where there are none, or they can't be read."""
    try:
        document = read_json(path, 16 * MOST_BYTES)
        if isinstance(document, dict) and "channel_blocks" in document:
            return BlocksRecord.model_validate(document["channel_blocks"])
        return _File.model_validate(document)
    except (OSError, DamagedJsonError, ValidationError):
        return None
