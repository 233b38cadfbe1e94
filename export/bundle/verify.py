"""Verifying a bundle: hashes, form, parity, accuracy, limits; no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from export.bundle import companion_checks, content_checks
from export.bundle.manifest import (
    HASH_FIELD,
    IMAGE_FILE,
    INT8_FILE,
    MODEL_FILE,
    SAMPLES_FILE,
    manifest_sha256,
    read_manifest,
    section,
)
from export.bundle.model_checks import check_form, form_problem, hash_problem
from export.bundle.samples import ARCHIVE_ERRORS, SampleFile
from export.checks import Check, parity_of_batches
from export.errors import BundleError, InvalidFileError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Interval = tuple[float, float, float]
    Measure = Callable[[Path, Mapping[str, Any]], Mapping[str, Interval | str]]
    Evaluate = Callable[[Path, Mapping[str, Any]], float | str]

# Another processor's kernels may tip a near tie: one image in a thousand is forgiven.
ACCURACY_TOLERANCE = 1e-3
_OF_MANIFEST = ("other files", "predict.py", "intervals")
_OF_FORM = ("model", "operators", "opset", "external_data")
_OF_CONTENT = ("classes", "preprocessing", "parity", "model card", "accuracy")


def verify_bundle(
    directory: Path,
    *,
    measure: Measure | None = None,
    evaluate: Evaluate | None = None,
    most_model_bytes: int | None = None,
) -> list[Check]:
    """Check a bundle from the outside in; damage becomes a failed check, never an exception.

    Only regular files that the manifest lists are opened, and none is parsed, unpacked or run before all have their
    recorded hashes. Files are read in pieces, so that memory doesn't grow with their size.

    Args:
        directory: of the bundle.
        measure: from the deployed model file and the manifest to each metric's (point, low, high), or the reason why
            it can't be judged here. Its exceptions pass through.
        evaluate: from a model file and the manifest to the accuracy on the test data, or the reason why that data is
            not at hand. Its exceptions pass through, but for InvalidFileError: that model failed.
        most_model_bytes: that a model with its external data may have to be loaded; all that needs a larger one is
            skipped, with the reason. Any number where None.

    Returns:
        The checks in the order in which they were made; those that damage made impossible are marked as skipped.
    """
    directory = Path(directory)
    try:
        manifest = read_manifest(directory)
    except BundleError as error:
        return [Check("manifest", False, error.reason)]
    own = _check_manifest_hash(manifest)
    checks = [Check("manifest", True, f"schema version {manifest['schema_version']}"), own]
    limits = _limits(manifest)
    judged = [*_OF_CONTENT, *(f"limit {name}" for name in limits)]
    if own.ok is not True:
        why = "its manifest isn't the one that was written, so it vouches for no file"
        return checks + _skipped(["files", *_OF_MANIFEST, *_OF_FORM, *judged], why)
    files = _check_files(directory, manifest)
    checks.append(files)
    if files.ok is not True:
        return checks + _skipped([*_OF_MANIFEST, *_OF_FORM, *judged], "a file of the bundle isn't the recorded one")
    checks += [
        companion_checks.check_others(directory, manifest),
        companion_checks.check_predict(directory, manifest),
        content_checks.check_intervals(manifest),
    ]
    form, usable = check_form(directory / MODEL_FILE, manifest, most_model_bytes)
    checks += form
    if not usable:
        why = "the model isn't loaded" if form[0].ok is None else "the model can't be trusted to load"
        return checks + _skipped(judged, why)
    checks.append(content_checks.check_classes(directory, manifest))
    checks += _check_contents(directory, manifest, evaluate, most_model_bytes)
    deployed = manifest.get("deployed") or MODEL_FILE
    if (problem := _deployment_problem(deployed, checks)) is not None:
        checks.append(Check("deployed", False, problem))
        return checks + _skipped([f"limit {name}" for name in limits], "nothing to judge")
    if deployed == INT8_FILE and any(check.name == "int8 model" and check.ok is None for check in checks):
        return checks + _skipped([f"limit {name}" for name in limits], f"{INT8_FILE} isn't loaded")
    measured = measure(directory / deployed, manifest) if measure is not None and limits else {}
    checks += [_check_limit(name, limit, measured.get(name)) for name, limit in limits.items()]
    return checks


def _skipped(names: list[str], why: str) -> list[Check]:
    return [Check(name, None, f"skipped: {why}") for name in names]


def _check_contents(
    directory: Path, manifest: Mapping[str, Any], evaluate: Evaluate | None, most_model_bytes: int | None
) -> list[Check]:
    """Check the outputs of the bundle's models on its stored images and on the test data."""
    shape: tuple[int, ...] | None = None
    others: list[Check] = []
    try:
        with SampleFile(directory) as samples:
            checks = [content_checks.check_preprocessing(manifest, samples), _check_parity(directory, samples)]
            others += _check_int8(directory, manifest, samples, most_model_bytes)
            others += _check_image_model(directory, manifest, samples, most_model_bytes)
            shape = samples.image_shape
    except ARCHIVE_ERRORS as error:
        checks = [
            Check("preprocessing", None, f"skipped: {SAMPLES_FILE} can't be read"),
            Check("parity", False, f"{SAMPLES_FILE} can't be read ({' '.join(str(error).split())})"),
        ]
        others = [*_check_int8(directory, manifest, None, most_model_bytes)]
        others += _check_image_model(directory, manifest, None, most_model_bytes)
    checks.append(companion_checks.check_card(directory, manifest, shape))
    deployed = manifest.get("deployed") or MODEL_FILE
    own = "accuracy_test" if deployed == MODEL_FILE else "accuracy_test_fp32"
    recorded = section(manifest, "metrics").get(own)
    checks.append(_check_accuracy("accuracy", directory / MODEL_FILE, manifest, recorded, evaluate))
    if (evaluation := content_checks.check_evaluation(manifest)) is not None:
        checks.append(evaluation)
    if any(check.name == "int8 model" and check.ok for check in others):
        recorded = section(manifest, "int8").get("accuracy_test")
        others.append(_check_accuracy("int8 accuracy", directory / INT8_FILE, manifest, recorded, evaluate))
    return [*checks, *others]


def _deployment_problem(deployed: Any, checks: list[Check]) -> str | None:
    """The reason why the file named as the deployed one can't be deployed; None where it can."""
    if deployed == MODEL_FILE:
        return None
    if deployed != INT8_FILE:
        return f"the manifest says {deployed!r}; valid: {MODEL_FILE}, {INT8_FILE}"
    if not any(check.name == "int8 model" and check.ok is not False for check in checks):
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
    """Check all files' sizes, then their hashes one by one, up to the first that is wrong."""
    files = section(manifest, "files")
    if not {MODEL_FILE, SAMPLES_FILE} <= set(files):
        return Check("files", False, f"the manifest's `files` must list {MODEL_FILE} and {SAMPLES_FILE}")
    for problem_of in (form_problem, hash_problem):
        for name in sorted(files):
            if (problem := problem_of(directory, name, files[name])) is not None:
                return Check("files", False, problem)
    return Check("files", True, f"{len(files)} files as recorded")


def _check_parity(directory: Path, samples: SampleFile) -> Check:
    try:
        return parity_of_batches(directory / MODEL_FILE, samples.pairs("inputs", "outputs"))
    except InvalidFileError as error:
        return Check("parity", False, str(error))


def _check_int8(
    directory: Path, manifest: Mapping[str, Any], samples: SampleFile | None, most_model_bytes: int | None
) -> list[Check]:
    """Check form and outputs of the quantised model, where the bundle has one."""
    if INT8_FILE not in section(manifest, "files"):
        return []
    form, usable = check_form(directory / INT8_FILE, manifest, most_model_bytes)
    checks = [Check(f"int8 {check.name}", check.ok, check.detail) for check in form]
    if usable and samples is not None:
        checks.append(content_checks.check_int8_outputs(directory, samples))
    return checks


def _check_image_model(
    directory: Path, manifest: Mapping[str, Any], samples: SampleFile | None, most_model_bytes: int | None
) -> list[Check]:
    """Check form and outputs of the model with the preprocessing inside, where the bundle has one."""
    if IMAGE_FILE not in section(manifest, "files"):
        return []
    form, usable = check_form(directory / IMAGE_FILE, manifest, most_model_bytes)
    checks = [Check(f"image {check.name}", check.ok, check.detail) for check in form]
    if usable and samples is not None:
        checks.append(content_checks.check_image_outputs(directory, manifest, samples))
    return checks


def _check_accuracy(
    title: str, path: Path, manifest: Mapping[str, Any], recorded: Any, evaluate: Evaluate | None
) -> Check:
    if not _is_number(recorded):
        return Check(title, None, "skipped: the manifest records no accuracy_test")
    try:
        found = evaluate(path, manifest) if evaluate is not None else "no test data at hand"
    except InvalidFileError as error:
        return Check(title, False, f"it can't be run on the test data: {error.reason}")
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
    return {name: float(value) for name, value in section(manifest, "limits").items() if _is_number(value)}


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
