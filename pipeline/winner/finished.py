"""The manifest of a run's finished bundle, with all that every such bundle has."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from export.bundle.manifest import MANIFEST_FILE, read_manifest
from export.errors import BundleError
from pipeline.trials.row import first_fault

if TYPE_CHECKING:
    from pathlib import Path

_Share = Annotated[float, Field(ge=0, le=1)]
_Cost = Annotated[float, Field(gt=0)]
_Count = Annotated[int, Field(ge=0, lt=2**63)]
_OPEN = with_config(ConfigDict(extra="allow", strict=True, allow_inf_nan=False))


@_OPEN
class _Metrics(TypedDict):
    accuracy_validation: _Share
    accuracy_test: _Share
    accuracy_test_torch: _Share
    test_images: Annotated[int, Field(gt=0, lt=2**53)]
    latency_ms: _Cost
    latency_low_ms: _Cost
    latency_high_ms: _Cost
    size_bytes: _Count
    peak_memory_bytes: _Count | None
    macs: _Count | None
    params: _Count | None


@_OPEN
class _Attempt(TypedDict):
    plan: str
    outcome: str
    method: NotRequired[str | None]
    latency_ratio: _Cost | None
    latency_ratio_low: _Cost | None
    latency_ratio_high: _Cost | None
    accuracy_validation: _Share | None
    accuracy_validation_fp32: _Share | None


@_OPEN
class _Int8(TypedDict):
    kept: bool
    reason: str
    tried: NotRequired[list[_Attempt]]


@_OPEN
class _Won(TypedDict):
    accuracy: _Share


@_OPEN
class _Run(TypedDict):
    config_sha256: str
    pick: str
    epochs: int


@_OPEN
class _Finished(TypedDict):
    """Parts of a manifest that are read; its own schema, for bundles of any kind, has nearly all of it as optional."""

    architecture_id: Annotated[str, Field(pattern="^[0-9a-f]{12}$")]
    architecture: dict[str, Any]
    activations: dict[str, str]
    classes: Annotated[list[str], Field(min_length=1)]
    limits: dict[str, float]
    deployed: Literal["model.onnx", "model.int8.onnx"]
    won: _Won
    metrics: _Metrics
    int8: _Int8
    device: dict[str, Any]
    run: _Run
    environment: dict[str, Any]
    versions: dict[str, str]


def read_finished(bundle: Path) -> dict[str, Any]:
    """Read the manifest of a run's bundle.

    Raises:
        BundleError: there is no bundle, or its manifest is damaged or lacks what a search writes: where, and what.
    """
    manifest = read_manifest(bundle)
    try:
        _adapter().validate_python(manifest)
    except ValidationError as error:
        raise BundleError(bundle, f"{MANIFEST_FILE} is damaged: {first_fault(error)}") from None
    return manifest


@cache
def _adapter() -> TypeAdapter[_Finished]:
    return TypeAdapter(_Finished)
