"""The file of a latency predictor, users' "cost model": where it lies, and what it holds for."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import platformdirs
from pydantic import BaseModel, ConfigDict, ValidationError

from latency_models.strict_json import DamagedJsonError, mistakes, read_json
from latency_models.strict_yaml import shown
from latency_models.timer import one_line
from latency_models.timing.meter import LatencyMeter
from pipeline import files
from pipeline.config.device import device_of
from pipeline.costs.latency_predictor import LatencyPredictor, predictor_for
from pipeline.errors import EXIT_CHECK_FAILED, HwnasError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from latency_models.devices.device import Device
    from latency_models.devices.environment import Environment
    from pipeline.config.run import RunConfig
    from pipeline.data import DataSet
    from pipeline.spaces.base import SearchSpace

FORMAT = 1
MOST_BYTES = 16 * 10**6
"""Of a predictor's file; one of a thousand timed networks has a tenth of a megabyte."""
# Numbers that follow the schema, and still make no model: all alike, or as far apart as numbers can be.
_UNFITTABLE = (ValueError, ArithmeticError, LookupError, RuntimeError, MemoryError, np.linalg.LinAlgError)
_NOT_DECIDING = ("load_at_start", "cores", "python", "fingerprint")


class CostModelError(HwnasError):
    """A predictor's file that can't be used here, and why."""


class DamagedCostModelError(CostModelError):
    """A predictor's file that breaks its schema, or from which no predictor can be made."""

    exit_code = EXIT_CHECK_FAILED

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path}: a damaged cost model: {what}; `hwnas calibrate` makes a new one")


class CostModelFile(BaseModel):
    """The schema of a predictor's file; `model` has one of its own for each kind of predictor."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    format: Literal[1]
    hwnas: str = ""
    kind: str
    identity: dict[str, Any]
    device: dict[str, Any]
    environment: dict[str, Any]
    model: dict[str, Any]
    channel_blocks: dict[str, Any] | None = None


@dataclass(frozen=True)
class Scope:
    """All that a predictor holds for.

    Attributes:
        identity: the space with its input, see `identity_of`.
        device: that latencies are of.
        environment: that they were measured in.
    """

    identity: Mapping[str, Any]
    device: Device
    environment: Environment

    @classmethod
    def of(cls, config: RunConfig, data: DataSet, meter: LatencyMeter) -> Scope:
        """The scope of a config's space on a meter's device, now.

        Raises:
            CostError: the device can't be used.
        """
        return cls(identity_of(config, data), meter.device, meter.environment())

    @classmethod
    def today(cls, config: RunConfig, data: DataSet) -> Scope:
        """The scope of a config's space on its device, now.

        Raises:
            CostError: the device can't be used.
        """
        with LatencyMeter(device_of(config.device)) as meter:
            return cls.of(config, data, meter)

    @property
    def file(self) -> Path:
        """The place where a predictor of this scope is looked for."""
        key = json.dumps([self.identity, self.device.as_dict(), self.environment.fingerprint], sort_keys=True)
        space = self.identity["space"]["name"].replace(":", "-")
        name = f"{space}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
        return platformdirs.user_data_path("hwnas") / "cost_models" / name


def identity_of(config: RunConfig, data: DataSet) -> dict[str, Any]:
    """The facts that decide which networks a space has: its section, the input's shape, the number of classes."""
    return {
        "space": json.loads(config.space.model_dump_json()),
        "input_shape": list(data.input_shape),
        "classes": len(data.classes),
    }


def check_writable(path: Path) -> None:
    """Find out before long work whether a predictor can be saved.

    Raises:
        CostModelError: it can't, or a config would not take the name for a file's.
    """
    if path.suffix != ".json":
        raise CostModelError(f"{path}: a cost model's name ends in .json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.check_writable(path)
    except OSError as error:
        place = "--output names another place, and so does XDG_DATA_HOME"
        raise CostModelError(f"{path} can't be written ({error.strerror or error}); {place}") from error


def save(path: Path, model: LatencyPredictor, scope: Scope, channel_blocks: Mapping[str, Any] | None = None) -> None:
    """Write a predictor with its scope, and with the device's blocks of channels where they were timed."""
    document = {
        "format": FORMAT,
        "hwnas": version("hwnas"),
        "kind": model.kind,
        "identity": scope.identity,
        "device": scope.device.as_dict(),
        "environment": scope.environment.as_dict(),
        "model": model.as_dict(),
    }
    if channel_blocks is not None:
        document["channel_blocks"] = dict(channel_blocks)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(path, json.dumps(document).encode())


def read(path: Path, space: SearchSpace, scope: Scope) -> LatencyPredictor:
    """The predictor in a file, for a space whose scope it has to be.

    Raises:
        CostModelError: there is none, it is damaged, or of another scope.
    """
    document = _document(path, scope.identity)
    if document.device != (wanted := scope.device.as_dict()):
        raise CostModelError(f"{path}: it is of another device: {_differences(document.device, wanted)}")
    if document.environment.get("fingerprint") != scope.environment.fingerprint:
        differences = _differences(document.environment, scope.environment.as_dict())
        raise CostModelError(f"{path}: it was made in another environment ({differences})")
    return _loaded(path, space, document)


def read_anywhere(path: Path, space: SearchSpace, identity: Mapping[str, Any]) -> LatencyPredictor:
    """Like `read`, but accepts a predictor from another device or environment: for replaying past decisions.

    Raises:
        CostModelError: there is none, it is damaged, or it is another space's.
    """
    return _loaded(path, space, _document(path, identity))


def recorded_space(path: Path) -> dict[str, Any]:
    """The section `space` that a predictor's file says it is of; empty where it says none, or can't be read."""
    try:
        document = read_json(path, MOST_BYTES)
    except (OSError, DamagedJsonError):
        return {}
    identity = document.get("identity") if isinstance(document, dict) else None
    space = identity.get("space") if isinstance(identity, dict) else None
    return space if isinstance(space, dict) else {}


def _document(path: Path, identity: Mapping[str, Any]) -> CostModelFile:
    try:
        content = read_json(path, MOST_BYTES)
    except FileNotFoundError:
        raise CostModelError(f"{path}: there is no cost model; make one with `hwnas calibrate`") from None
    except OSError as error:
        raise CostModelError(f"{path}: no cost model ({error.strerror or error})") from error
    except DamagedJsonError as error:
        raise DamagedCostModelError(path, str(error)) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CostModelError(f"{path}: no cost model of format {FORMAT}; make one with `hwnas calibrate`")
    try:
        document = CostModelFile.model_validate(content)
    except ValidationError as error:
        raise DamagedCostModelError(path, mistakes(error)) from error
    if document.identity != identity:
        raise CostModelError(f"{path}: it is of another space or input: {_differences(document.identity, identity)}")
    return document


def _loaded(path: Path, space: SearchSpace, document: CostModelFile) -> LatencyPredictor:
    model = predictor_for(space)
    if document.kind != model.kind:
        raise DamagedCostModelError(path, f"kind: {document.kind[:60]!r}, where this space has {model.kind!r}")
    try:
        model.load(document.model)
    except ValidationError as error:
        raise DamagedCostModelError(path, mistakes(error)) from error
    except _UNFITTABLE as error:
        raise DamagedCostModelError(path, f"model: {one_line(error) or type(error).__name__}") from error
    return model


def check_cost_model(config: RunConfig, data: DataSet, space: SearchSpace) -> None:
    """Read the file that a config's `cost_model` names, to see whether it can be used.

    Raises:
        CostModelError: it can't.
        CostError: the device can't be used.
    """
    read(Path(config.cost_model), space, Scope.today(config, data))


def _differences(recorded: Any, today: Mapping[str, Any]) -> str:
    """The facts in which a file differs from today, in words."""
    if not isinstance(recorded, dict):
        return "it doesn't say which"
    phrases = []
    for key, here in today.items():
        there = recorded.get(key)
        if key in _NOT_DECIDING or there == here:
            continue
        both = isinstance(there, dict) and isinstance(here, dict)
        phrases.append(_differences(there, here) if both else f"{key} {shown(there)} there, {shown(here)} here")
    return "; ".join(phrases)
