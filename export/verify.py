"""Re-checking what was shipped: hashes, form, parity, accuracy, limits; no torch."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from export import onnx_file
from export.errors import BundleError, InvalidFileError, PreprocessingError
from export.manifest import (
    HASH_FIELD,
    INT8_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    SAMPLES_FILE,
    file_record,
    manifest_sha256,
    read_manifest,
    stays_inside,
)
from export.preprocessing import Preprocessing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt
    import onnx

    Interval = tuple[float, float, float]
    Measure = Callable[[Path, Mapping[str, Any]], Mapping[str, Interval | str]]
    Evaluate = Callable[[Path, Mapping[str, Any]], float | str]

# Another processor's kernels may tip a near tie: one image in a thousand is forgiven.
ACCURACY_TOLERANCE = 1e-3
_PREPROCESSING_TOLERANCE = 1e-5
# What zipfile, zlib and numpy raise on damage; TypeError: a lone array where an archive should be.
_ARCHIVE_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    TypeError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True)
class Check:
    """One check: `ok` is None where it could not be made, and `detail` says why."""

    name: str
    ok: bool | None
    detail: str


def parity(
    model: bytes | Path,
    inputs: npt.NDArray[np.float32],
    expected: npt.NDArray[np.float32],
    atol: float = 1e-4,
    rtol: float = 1e-5,
) -> Check:
    """Compare ONNX Runtime's outputs with the trained network's.

    The largest difference must be within `atol`, or within `rtol` of the largest expected output where that is more:
    float32 has no more digits than that.

    Args:
        model: takes `inputs`, returns one tensor.
        inputs: (N, C, H, W).
        expected: (N, classes).
        atol: largest |difference| in any case.
        rtol: largest |difference| as a share of the largest |expected|.

    Raises:
        InvalidFileError: the model can't be opened, or can't be run on these inputs.
    """
    found = _outputs(model, inputs)
    if found.shape != expected.shape:
        return Check("parity", False, f"outputs have shape {found.shape}, the network's {expected.shape}")
    difference = float(np.max(np.abs(found - expected), initial=0.0))
    tolerance = max(atol, rtol * float(np.max(np.abs(expected), initial=0.0)))
    agreement = float(np.mean(found.argmax(axis=-1) == expected.argmax(axis=-1)))
    detail = (
        f"largest difference {difference:.3g} (tolerance {tolerance:.3g}), "
        f"same first class for {agreement:.2%} of {len(inputs)} inputs"
    )
    return Check("parity", bool(difference <= tolerance), detail)  # NaN is not within any tolerance


def accuracy(
    model: bytes | Path,
    images: npt.NDArray[np.float32],
    labels: npt.NDArray[np.integer[Any]],
    batch_size: int = 256,
    threads: int = 1,
) -> float:
    """Share of images (preprocessed float32, (N, C, H, W)) that ONNX Runtime classifies as labelled, 0 to 1.

    Raises:
        InvalidFileError: the model can't be opened, or can't be run on these images.
        ValueError: no images, or not one label for each.
    """
    if len(images) != len(labels) or not len(images):
        raise ValueError(f"{len(images)} images and {len(labels)} labels: one label for each image is needed")
    session = onnx_file.open_session(model, threads=threads)
    correct = 0
    for start in range(0, len(images), batch_size):
        outputs = onnx_file.run(session, images[start : start + batch_size])
        correct += int((outputs.argmax(axis=-1) == labels[start : start + batch_size]).sum())
    return correct / len(images)


def verify_bundle(
    directory: Path,
    *,
    measure: Measure | None = None,
    evaluate: Evaluate | None = None,
) -> list[Check]:
    """Check a bundle from the outside in; damage becomes a failed check, never an exception.

    Args:
        directory: of the bundle.
        measure: from model file (the one that is deployed) and manifest to each metric's (point, low, high), or why
            it can't be judged here.
            What it raises passes through.
        evaluate: from model file and manifest to the accuracy on the test data, or why that data is not at hand.
            What it raises passes through.

    Returns:
        The checks in the order in which they were made; what damage made impossible is left as skipped.
    """
    directory = Path(directory)
    try:
        manifest = read_manifest(directory)
    except BundleError as error:
        return [Check("manifest", False, error.reason)]
    checks = [
        Check("manifest", True, f"schema version {manifest['schema_version']}"),
        _check_manifest_hash(manifest),
        _check_files(directory, manifest),
    ]
    model_path = directory / MODEL_FILE
    form, usable = _check_form(model_path, manifest)
    checks += form
    if not usable:
        skipped = ("preprocessing", "parity", "accuracy", *(f"limit {name}" for name in _limits(manifest)))
        return checks + [Check(name, None, "skipped: the model can't be trusted to load") for name in skipped]
    checks += _check_samples(directory, manifest)
    deployed = manifest.get("deployed", MODEL_FILE)
    metrics = _section(manifest, "metrics")
    own = "accuracy_test" if deployed == MODEL_FILE else "accuracy_test_fp32"
    checks.append(_check_accuracy("accuracy", model_path, manifest, metrics.get(own), evaluate))
    checks += _check_int8(directory, manifest, evaluate)
    limits = _limits(manifest)
    if (problem := _deployment_problem(deployed, checks)) is not None:
        checks.append(Check("deployed", False, problem))
        return checks + [Check(f"limit {name}", None, "skipped: nothing to judge") for name in limits]
    measured = measure(directory / deployed, manifest) if measure is not None and limits else {}
    checks += [_check_limit(name, limit, measured.get(name)) for name, limit in limits.items()]
    return checks


def _deployment_problem(deployed: Any, checks: list[Check]) -> str | None:
    """Why the file that the manifest calls the deployed one can't be that; None where it can."""
    if deployed == MODEL_FILE:
        return None
    if deployed != INT8_FILE:
        return f"the manifest says {deployed!r}; valid: {MODEL_FILE}, {INT8_FILE}"
    if not any(check.name == "int8 model" and check.ok for check in checks):
        return f"{INT8_FILE}, which the limits were asked for, is missing or can't be loaded"
    return None


def _check_manifest_hash(manifest: Mapping[str, Any]) -> Check:
    recorded = manifest.get(HASH_FIELD)
    try:
        found = manifest_sha256(manifest)
    except ValueError as error:  # numbers or letters that JSON's text can spell, but no canonical form can
        return Check("manifest_sha256", False, f"the manifest has no canonical form ({error})")
    if recorded == found:
        return Check("manifest_sha256", True, found)
    return Check("manifest_sha256", False, f"the manifest records {recorded}, its content gives {found}")


def _check_files(directory: Path, manifest: Mapping[str, Any]) -> Check:
    files = manifest.get("files")
    if not isinstance(files, dict) or not {MODEL_FILE, SAMPLES_FILE} <= set(files):
        return Check("files", False, f"the manifest's `files` must list {MODEL_FILE} and {SAMPLES_FILE}")
    problems = [problem for name in sorted(files) if (problem := _file_problem(directory, name, files[name]))]
    if problems:
        return Check("files", False, "; ".join(problems))
    present = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
    unlisted = sorted(present - set(files) - {MANIFEST_FILE})
    more = f"; not listed, so not checked: {', '.join(unlisted)}" if unlisted else ""
    return Check("files", True, f"{len(files)} files as recorded{more}")


def _file_problem(directory: Path, name: str, record: Any) -> str | None:
    path = directory / name
    if not stays_inside(name):
        return f"{name!r} points outside the bundle"
    try:
        if not path.resolve().is_relative_to(directory.resolve()):
            return f"{name!r} is a link to outside the bundle"
        if not path.is_file():
            return f"{name} is missing"
        found = file_record(path)
    except (OSError, RuntimeError) as error:
        return f"{name} can't be read ({error})"
    if not isinstance(record, dict) or record.get("sha256") != found["sha256"]:
        return f"{name} was changed: its SHA-256 is not the recorded one"
    if record.get("bytes") != found["bytes"]:
        return f"{name} has {found['bytes']} bytes, not the recorded {record.get('bytes')}"
    return None


def _check_form(path: Path, manifest: Mapping[str, Any]) -> tuple[list[Check], bool]:
    """Check the model as a file; the flag says whether it may be loaded."""
    try:
        model = onnx_file.read_model(path)
    except InvalidFileError as error:
        return [Check("model", False, error.reason)], False
    external = _check_external_data(model, path.parent, manifest)
    checks = [_check_operators(model), _check_opset(model, manifest), external]
    if external.ok is not True:
        skipped = Check("model", None, "skipped: its external data must not be read")
        return [skipped, *checks], False
    try:
        onnx_file.check_model(path)
        onnx_file.open_session(path)
    except InvalidFileError as error:
        return [Check("model", False, error.reason), *checks], False
    return [Check("model", True, "accepted by the ONNX checker and ONNX Runtime"), *checks], True


def _check_operators(model: onnx.ModelProto) -> Check:
    nodes = [node for graph in onnx_file.all_graphs(model.graph) for node in graph.node]
    foreign = {f"{node.domain}:{node.op_type}" for node in nodes if node.domain not in onnx_file.DEFAULT_DOMAINS}
    foreign |= {f"{function.domain}:{function.name} (a function)" for function in model.functions}
    if foreign:
        return Check("operators", False, f"outside ONNX's own domain: {', '.join(sorted(foreign))}")
    return Check("operators", True, f"{len(nodes)} nodes, all of ONNX's own domain")


def _check_opset(model: onnx.ModelProto, manifest: Mapping[str, Any]) -> Check:
    found, recorded = onnx_file.opset_of(model), manifest.get("opset")
    if recorded is None:
        return Check("opset", None, f"skipped: the manifest records none (the model has {found})")
    return Check("opset", found == recorded, f"the model has {found}, the manifest {recorded}")


def _check_external_data(model: onnx.ModelProto, directory: Path, manifest: Mapping[str, Any]) -> Check:
    """Weights in other files must lie in the bundle and be vouched for by the manifest."""
    locations = {
        entry.value
        for tensor in onnx_file.all_tensors(model)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    listed = _section(manifest, "files")
    for location in sorted(locations):
        if not stays_inside(location) or location not in listed:
            return Check("external_data", False, f"{location!r} is not one of the bundle's recorded files")
        problem = _file_problem(directory, location, listed[location])
        if problem:
            return Check("external_data", False, problem)
    detail = f"in {', '.join(sorted(locations))}" if locations else "none: weights are embedded"
    return Check("external_data", True, detail)


def _check_samples(directory: Path, manifest: Mapping[str, Any]) -> list[Check]:
    try:
        # Opened here: numpy leaves the file open when it is no archive.
        with (directory / SAMPLES_FILE).open("rb") as file, np.load(file, allow_pickle=False) as samples:
            inputs, outputs, images = (samples[name] for name in ("inputs", "outputs", "images"))
    except _ARCHIVE_ERRORS as error:
        reason = " ".join(str(error).split())
        return [
            Check("preprocessing", None, f"skipped: {SAMPLES_FILE} can't be read"),
            Check("parity", False, f"{SAMPLES_FILE} can't be read ({reason})"),
        ]
    checks = [_check_preprocessing(manifest, images, inputs)]
    try:
        return [*checks, parity(directory / MODEL_FILE, inputs, outputs)]
    except InvalidFileError as error:
        return [*checks, Check("parity", False, str(error))]


def _check_preprocessing(
    manifest: Mapping[str, Any], images: npt.NDArray[np.uint8], inputs: npt.NDArray[np.float32]
) -> Check:
    """The recorded preprocessing must make the stored inputs from the stored images."""
    record = manifest.get("preprocessing")
    if record is None:
        return Check("preprocessing", None, "skipped: the manifest records none")
    if not isinstance(record, dict):
        return Check("preprocessing", False, f"the manifest records a {type(record).__name__}, not an object")
    if record.get("resize", 0) is None:
        record = record | {"resize": list(images.shape[1:3])}
    try:
        made = Preprocessing.from_dict(record).apply(images)
    except PreprocessingError as error:
        return Check("preprocessing", False, str(error))
    if made.shape != inputs.shape:
        return Check("preprocessing", False, f"makes inputs of shape {made.shape}, stored are {inputs.shape}")
    difference = float(np.max(np.abs(made - inputs), initial=0.0))
    detail = f"stored images give the stored inputs within {difference:.3g}"
    return Check("preprocessing", bool(difference <= _PREPROCESSING_TOLERANCE), detail)


def _check_int8(directory: Path, manifest: Mapping[str, Any], evaluate: Evaluate | None) -> list[Check]:
    """Form and accuracy of the quantised model, where the bundle has one."""
    if INT8_FILE not in _section(manifest, "files"):
        return []
    path = directory / INT8_FILE
    form, usable = _check_form(path, manifest)
    checks = [Check(f"int8 {check.name}", check.ok, check.detail) for check in form]
    if usable:
        recorded = _section(manifest, "int8").get("accuracy_test")
        checks.append(_check_accuracy("int8 accuracy", path, manifest, recorded, evaluate))
    return checks


def _check_accuracy(
    title: str, path: Path, manifest: Mapping[str, Any], recorded: Any, evaluate: Evaluate | None
) -> Check:
    if not _is_number(recorded):
        return Check(title, None, "skipped: the manifest records no accuracy_test")
    found = evaluate(path, manifest) if evaluate is not None else "no test data at hand"
    if isinstance(found, str):
        return Check(title, None, f"skipped: {found} (recorded is {recorded:.4f})")
    ok = abs(found - recorded) <= ACCURACY_TOLERANCE + 1e-9
    return Check(title, ok, f"{found:.4f} on the test data, recorded is {recorded:.4f}")


def _check_limit(name: str, limit: float, measured: Interval | str | None) -> Check:
    title = f"limit {name}"
    if measured is None:
        return Check(title, None, f"skipped: {name} was not measured")
    if isinstance(measured, str):
        return Check(title, None, f"skipped: {measured}")
    point, low, high = measured
    spread = f" ({low:.4g} to {high:.4g})" if low != high else ""
    # Broken only where the whole interval lies above: inside the noise nothing is decided.
    return Check(title, low <= limit, f"{point:.6g}{spread}, at most {limit:g}")


def _limits(manifest: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in _section(manifest, "limits").items() if _is_number(value)}


def _section(manifest: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = manifest.get(name)
    return section if isinstance(section, dict) else {}


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _outputs(model: bytes | Path, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return onnx_file.run(onnx_file.open_session(model), inputs)
