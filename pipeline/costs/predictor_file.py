"""A latency predictor's file: where it lies, what it holds for."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import platformdirs

from latency_models.timing.meter import LatencyMeter
from pipeline import files
from pipeline.errors import HwnasError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from latency_models.devices.device import Device
    from latency_models.devices.environment import Environment
    from pipeline.config.run import RunConfig
    from pipeline.data import DataSet
    from pipeline.spaces.base import SearchSpace
from pipeline.costs.latency_predictor import LatencyPredictor, cost_model_for

FORMAT = 1


_NOT_DECIDING = ("load_at_start", "cores", "python", "fingerprint")


class CostModelError(HwnasError):
    """A cost model's file that can't be used here; tells why."""


def identity_of(config: RunConfig, data: DataSet) -> dict[str, Any]:
    """What a cost model is of: the space with its input."""
    return {
        "space": json.loads(config.space.model_dump_json()),
        "input_shape": list(data.input_shape),
        "classes": len(data.classes),
    }


def default_file(identity: Mapping[str, Any], device: Device, environment: Environment) -> Path:
    """Where the cost model of a space on a device lies unless it is put elsewhere."""
    key = json.dumps([identity, device.as_dict(), environment.fingerprint], sort_keys=True)
    name = f"{identity['space']['name'].replace(':', '-')}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
    return platformdirs.user_data_path("hwnas") / "cost_models" / name


def check_writable(path: Path) -> None:
    """Find out before the work whether a cost model can be saved there.

    Raises:
        CostModelError: it can't, or searches would not take the name for a file's.
    """
    if path.suffix != ".json":
        raise CostModelError(f"{path}: a cost model's name ends in .json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.check_writable(path)
    except OSError as error:
        place = "--output names another place, and so does XDG_DATA_HOME"
        raise CostModelError(f"{path} can't be written ({error.strerror or error}); {place}") from error


def save(
    path: Path, model: LatencyPredictor, identity: Mapping[str, Any], device: Device, environment: Environment
) -> None:
    """Write a cost model with all that says where it holds."""
    document = {
        "format": FORMAT,
        "hwnas": version("hwnas"),
        "kind": model.kind,
        "identity": identity,
        "device": device.as_dict(),
        "environment": environment.as_dict(),
        "model": model.as_dict(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_whole(path, json.dumps(document).encode())


def read(
    path: Path, space: SearchSpace, identity: Mapping[str, Any], device: Device, environment: Environment
) -> LatencyPredictor:
    """The cost model in a file, for this space, device and environment.

    Raises:
        CostModelError: there is none, it is damaged, or it is another space's, device's or environment's.
    """
    document = _document(path, identity)
    if document.get("device") != (wanted := device.as_dict()):
        raise CostModelError(f"{path}: it is of another device: {_apart(document.get('device'), wanted)}")
    found = document.get("environment")
    if not isinstance(found, dict) or found.get("fingerprint") != environment.fingerprint:
        told = _apart(found, environment.as_dict())
        raise CostModelError(f"{path}: it was made in another environment ({told})")
    return _loaded(path, space, document)


def read_anywhere(path: Path, space: SearchSpace, identity: Mapping[str, Any]) -> LatencyPredictor:
    """As `read`, wherever it was made: for what was decided by the model, not for what is measured now.

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
    if document.get("identity") != identity:
        raise CostModelError(f"{path}: it is of another space or input: {_apart(document.get('identity'), identity)}")
    return document


def _loaded(path: Path, space: SearchSpace, document: Mapping[str, Any]) -> LatencyPredictor:
    model = cost_model_for(space)
    try:
        if document["kind"] != model.kind:
            raise ValueError(f"kind {document['kind']!r}")
        model.load(document["model"])
    except (KeyError, TypeError, ValueError, IndexError, np.linalg.LinAlgError) as error:
        raise CostModelError(f"{path}: a damaged cost model ({type(error).__name__}: {error})") from error
    return model


def check_cost_model(config: RunConfig, data: DataSet, space: SearchSpace, device: Device) -> None:
    """Read the file that a config names, to see whether it can be used.

    Raises:
        CostModelError: it can't.
        CostError: the device can't be used.
    """
    with LatencyMeter(device) as meter:
        read(Path(config.cost_model), space, identity_of(config, data), device, meter.environment())


def _apart(found: Any, wanted: Mapping[str, Any]) -> str:
    """What differs between a file's facts and today's, in words."""
    if not isinstance(found, dict):
        return "it doesn't say which"
    told = []
    for key, here in wanted.items():
        there = found.get(key)
        if key in _NOT_DECIDING or there == here:
            continue
        both = isinstance(there, dict) and isinstance(here, dict)
        told.append(_apart(there, here) if both else f"{key} {there!r} there, {here!r} here")
    return "; ".join(told)
