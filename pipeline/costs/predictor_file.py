"""The file of a latency predictor, users' "cost model": where it lies, and what it holds for."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import platformdirs

from latency_models.timing.meter import LatencyMeter
from pipeline import files
from pipeline.config.device import device_of
from pipeline.costs.latency_predictor import LatencyPredictor, predictor_for
from pipeline.errors import HwnasError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from latency_models.devices.device import Device
    from latency_models.devices.environment import Environment
    from pipeline.config.run import RunConfig
    from pipeline.data import DataSet
    from pipeline.spaces.base import SearchSpace

FORMAT = 1
_NOT_DECIDING = ("load_at_start", "cores", "python", "fingerprint")


class CostModelError(HwnasError):
    """A predictor's file that can't be used here, and why."""


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


def save(path: Path, model: LatencyPredictor, scope: Scope) -> None:
    """Write a predictor with its scope."""
    document = {
        "format": FORMAT,
        "hwnas": version("hwnas"),
        "kind": model.kind,
        "identity": scope.identity,
        "device": scope.device.as_dict(),
        "environment": scope.environment.as_dict(),
        "model": model.as_dict(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(path, json.dumps(document).encode())


def read(path: Path, space: SearchSpace, scope: Scope) -> LatencyPredictor:
    """The predictor in a file, for a space whose scope it has to be.

    Raises:
        CostModelError: there is none, it is damaged, or of another scope.
    """
    document = _document(path, scope.identity)
    if document.get("device") != (wanted := scope.device.as_dict()):
        raise CostModelError(f"{path}: it is of another device: {_differences(document.get('device'), wanted)}")
    recorded = document.get("environment")
    if not isinstance(recorded, dict) or recorded.get("fingerprint") != scope.environment.fingerprint:
        differences = _differences(recorded, scope.environment.as_dict())
        raise CostModelError(f"{path}: it was made in another environment ({differences})")
    return _loaded(path, space, document)


def read_anywhere(path: Path, space: SearchSpace, identity: Mapping[str, Any]) -> LatencyPredictor:
    """Like `read`, but accepts a predictor from another device or environment: for replaying past decisions.

    Raises:
        CostModelError: there is none, it is damaged, or it is another space's.
    """
    return _loaded(path, space, _document(path, identity))


def _document(path: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CostModelError(f"{path}: there is no cost model; make one with `hwnas calibrate`") from None
    except (OSError, ValueError) as error:
        raise CostModelError(f"{path}: no cost model, or a damaged one ({error})") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise CostModelError(f"{path}: no cost model of format {FORMAT}; make one with `hwnas calibrate`")
    if (recorded := document.get("identity")) != identity:
        raise CostModelError(f"{path}: it is of another space or input: {_differences(recorded, identity)}")
    return document


def _loaded(path: Path, space: SearchSpace, document: Mapping[str, Any]) -> LatencyPredictor:
    model = predictor_for(space)
    try:
        if document["kind"] != model.kind:
            raise ValueError(f"kind {document['kind']!r}")
        model.load(document["model"])
    except (KeyError, TypeError, ValueError, IndexError, np.linalg.LinAlgError) as error:
        raise CostModelError(f"{path}: a damaged cost model ({type(error).__name__}: {error})") from error
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
        phrases.append(_differences(there, here) if both else f"{key} {there!r} there, {here!r} here")
    return "; ".join(phrases)
