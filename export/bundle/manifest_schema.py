"""The manifest's schema: every field that is known, its type and its meaning.

It is the one source: manifests are checked by it when they are read, `docs/manifest.schema.json` and the tables of
`docs/bundle.md` are held against it by tests.

`schema_version` goes up when a field is removed, renamed, or changes its type or meaning. New optional fields come
without that: a reader ignores what it doesn't know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

_MOST_MISTAKES = 3
_LONGEST_QUOTE = 60


class _Part(BaseModel):
    """Strict about types, open to fields that a later version adds."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class FileRecord(_Part):
    """The hash and size that vouch for a file."""

    sha256: str = Field(description="of the file's content")
    bytes: int = Field(description="its size")


class Value(_Part):
    """An input or output of a model."""

    name: str = Field(description="in the graph")
    type: str = Field(description="ONNX's name of the element type, in small letters")
    shape: list[int | str | None] = Field(description="sizes; a name where any size will do")


class ModelRecord(_Part):
    """A model file as it was made."""

    opset: int | None = Field(description="of ONNX's own domain")
    operators: dict[str, int] = Field(description="operator → how many nodes of it")
    inputs: list[Value] = Field(description="of the graph")
    outputs: list[Value] = Field(description="of the graph")


class Preprocessing(_Part):
    """`(x · scale − mean) / std` per channel, after resizing."""

    resize: list[int] | None = Field(description="[height, width] of the network's input; bilinear")
    channels: int = Field(description="of image and input")
    scale: float = Field(description="factor on the 8-bit values")
    mean: list[float] = Field(description="for each channel, in scaled units")
    std: list[float] = Field(description="for each channel, in scaled units")
    layout: str = Field(description="of the input; always NCHW")


class DataSet(_Part):
    """The data that the network was trained and tested on."""

    name: str = Field(description="of the data set")
    train_images: int = Field(description="that trained it")
    validation_images: int = Field(description="that chose the architecture and the best weights")
    test_images: int = Field(description="that chose nothing")
    image_shape: list[int] = Field(description="[height, width, channels] of a raw image")
    value_range: list[int] = Field(description="[least, largest] 8-bit value of the training images")


class ClassResult(_Part):
    """One class of the test data."""

    name: str = Field(description="of the class")
    images: int = Field(description="number of test images in this class")
    correct: int = Field(description="images classified correctly")
    accuracy: float | None = Field(description="correct / images; null without images")
    accuracy_low: float | None = Field(description="lower end of the interval")
    accuracy_high: float | None = Field(description="upper end of the interval")


class Evaluation(_Part):
    """The deployed file on the test data, through ONNX Runtime."""

    file: str = Field(description="name of the evaluated file")
    images: int = Field(description="of the test data")
    correct: int = Field(description="images classified correctly")
    accuracy: float | None = Field(description="correct / images")
    accuracy_low: float | None = Field(description="lower end of the interval")
    accuracy_high: float | None = Field(description="upper end of the interval")
    interval: str = Field(description="its kind and confidence")
    per_class: list[ClassResult] = Field(description="in the order of `classes`")
    confusion: list[list[int]] = Field(description="rows: true class; columns: what it was taken for")


class Metrics(_Part):
    """Accuracy and costs of the deployed file. Beside a null stands `<field>_unavailable` with the reason."""

    accuracy_validation: float | None = Field(default=None, description="0 to 1, ONNX Runtime; training's own at fp32")
    accuracy_test: float | None = Field(default=None, description="0 to 1, through ONNX Runtime")
    accuracy_test_torch: float | None = Field(default=None, description="of the trained network in torch")
    accuracy_validation_fp32: float | None = Field(default=None, description="INT8 devices: before quantisation")
    accuracy_test_fp32: float | None = Field(default=None, description="INT8 devices: before quantisation")
    test_images: int | None = Field(default=None, description="number of test images")
    latency_ms: float | None = Field(default=None, description="of an undisturbed call, milliseconds")
    latency_low_ms: float | None = Field(default=None, description="lower end of its 95 % interval")
    latency_high_ms: float | None = Field(default=None, description="upper end of its 95 % interval")
    latency_p50_ms: float | None = Field(default=None, description="median of the calls as they came")
    latency_p99_ms: float | None = Field(default=None, description="99th percentile of the calls as they came")
    ratio: float | None = Field(default=None, description="time over the reference models'")
    reference: str | None = Field(default=None, description="which reference models")
    reference_ms: float | None = Field(default=None, description="their time, measured in alternation with the file")
    n_samples: int | None = Field(default=None, description="calls that were timed")
    warnings: list[str] = Field(default=[], description="why the latency is to be doubted")
    precision: str | None = Field(default=None, description="of the file: fp32 or int8")
    shapes: dict[str, list[int]] = Field(default={}, description="input → sizes that it was measured with")
    peak_memory_source: str | None = Field(default=None, description="who counted the peak")
    peak_memory_bytes: int | None = Field(default=None, description="most that activations take at one time")
    size_bytes: int | None = Field(default=None, description="of the file")
    macs: int | None = Field(default=None, description="multiply-accumulates of a batch")
    params: int | None = Field(default=None, description="number of trained parameters")
    energy_mj: float | None = Field(default=None, description="of one inference above idle, millijoules")
    gpu_memory_bytes: int | None = Field(default=None, description="what a GPU's memory grows by")


class Int8(_Part):
    """The decision for or against INT8, and the figures that it rests on."""

    kept: bool = Field(description="whether model.int8.onnx is part of the bundle")
    reason: str = Field(description="why, or why not")
    latency_ratio: float | None = Field(default=None, description="time over fp32's, in alternation")
    latency_ratio_low: float | None = Field(default=None, description="lower end of its 95 % interval")
    latency_ratio_high: float | None = Field(default=None, description="upper end of its 95 % interval")
    accuracy_validation: float | None = Field(default=None, description="quantised, 0 to 1")
    accuracy_validation_fp32: float | None = Field(default=None, description="before, 0 to 1")
    accuracy_test: float | None = Field(default=None, description="quantised; only where it is kept")
    size_bytes: int | None = Field(default=None, description="of the quantised file")
    method: str | None = Field(default=None, description="of calibration")
    plan: str | None = Field(default=None, description="which nodes stay in float, in words")
    float_values: list[str] = Field(default=[], description="values that stay in float")
    float_reasons: dict[str, str] = Field(default={}, description="value → why it stays in float")
    tried: list[dict[str, Any]] = Field(default=[], description="plans and methods tried, each with its figures")
    search_seconds: float | None = Field(default=None, description="that trying them took")


class ImageModel(_Part):
    """The model with the preprocessing inside."""

    of: str = Field(description="the file that it was made of")
    latency_ms: float | None = Field(default=None, description="of an undisturbed call, milliseconds")
    latency_low_ms: float | None = Field(default=None, description="lower end of its 95 % interval")
    latency_high_ms: float | None = Field(default=None, description="upper end of its 95 % interval")
    latency_ratio: float | None = Field(default=None, description="time over that file's, in alternation")
    latency_ratio_low: float | None = Field(default=None, description="lower end of its 95 % interval")
    latency_ratio_high: float | None = Field(default=None, description="upper end of its 95 % interval")
    size_bytes: int | None = Field(default=None, description="of the file")


class Search(_Part):
    """The config's sections that decided the search, with every default written out."""

    space: dict[str, Any] = Field(description="`space`")
    strategy: dict[str, Any] = Field(description="`strategy`")
    evaluator: dict[str, Any] = Field(description="`evaluator`")
    recipe: dict[str, Any] = Field(description="`train`")


class Run(_Part):
    """The run that it came from."""

    seed: int = Field(description="of search and training")
    pick: str = Field(description="rule that chose it from the front, or its id")
    config_sha256: str = Field(description="of what decides the search's results")
    trials: int = Field(description="in the journal")
    front: list[str] = Field(description="ids of the front's members")
    epochs: int = Field(description="of the winner's training")


class Manifest(_Part):
    """The file manifest.json; only `schema_version`, `files` and `manifest_sha256` are required."""

    schema_version: int = Field(description="1")
    manifest_sha256: str = Field(description="of the canonical JSON of all other fields")
    files: dict[str, FileRecord] = Field(description="every file but this one")
    models: dict[str, ModelRecord] = Field(default={}, description="each model file as it was made")
    name: str | None = Field(default=None, description="of the run")
    created: str | None = Field(default=None, description="ISO 8601, UTC")
    architecture_id: str | None = Field(default=None, description="hash of the architecture")
    architecture: dict[str, Any] = Field(default={}, description="label → value, in canonical form")
    activations: dict[str, str] = Field(default={}, description="place → activation")
    classes: list[str] = Field(default=[], description="in the order of the outputs")
    preprocessing: Preprocessing | None = Field(default=None, description="from image to input")
    dataset: DataSet | None = Field(default=None, description="what it was trained and tested on")
    evaluation: Evaluation | None = Field(default=None, description="where it is right and wrong")
    opset: int | None = Field(default=None, description="asked for; every model file has it")
    device: dict[str, Any] = Field(default={}, description="the config's section: name, threads, batch size, precision")
    limits: dict[str, float] = Field(default={}, description="metric → limit asked for")
    deployed: str | None = Field(default=None, description="the file that limits and metrics are of")
    won: dict[str, float | None] = Field(default={}, description="metric → found, in the limits' units")
    asked: dict[str, Any] = Field(default={}, description="the config's sections `final` and `export`")
    objectives: list[str] = Field(default=[], description="of the search")
    metrics: Metrics | None = Field(default=None, description="of the deployed file")
    parity: str | None = Field(default=None, description="how near the file is to the trained network, in words")
    int8: Int8 | None = Field(default=None, description="the verdict on INT8")
    image_model: ImageModel | None = Field(default=None, description="only with model.image.onnx")
    data: dict[str, Any] = Field(
        default={}, description="the config's section; `hwnas verify` looks for the test data there"
    )
    search: Search | None = Field(default=None, description="how it was found")
    run: Run | None = Field(default=None, description="where it was found")
    environment: dict[str, Any] = Field(
        default={}, description="of the latency's measurement: processor, runtime, load"
    )
    gpu: Any = Field(default=None, description="the GPU that trained it, if any")
    versions: dict[str, str] = Field(default={}, description="package → version")


def damage(document: Mapping[str, Any]) -> str | None:
    """Say where a manifest breaks its schema, and what stands there; None where it follows it."""
    try:
        Manifest.model_validate(document)
    except ValidationError as error:
        mistakes = [_sentence(each) for each in error.errors(include_url=False, include_context=False)]
        more = len(mistakes) - _MOST_MISTAKES
        return "; ".join(mistakes[:_MOST_MISTAKES]) + (f"; and {more} more" if more > 0 else "")
    return None


def json_schema() -> dict[str, Any]:
    """Give the schema in JSON Schema's words, draft 2020-12."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Manifest.model_json_schema()}
    for part in (schema, *schema["$defs"].values()):
        part.pop("title", None)
        for field in part["properties"].values():
            field.pop("title", None)
    return schema


def _sentence(error: ErrorDetails) -> str:
    place = ".".join(str(part) for part in error["loc"])
    said = error["msg"][:1].lower() + error["msg"][1:]
    if error["type"] == "missing":
        return f"{place}: is missing"
    found = repr(error["input"])
    return f"{place}: {said}, found {found if len(found) <= _LONGEST_QUOTE else found[: _LONGEST_QUOTE - 1] + '…'}"
