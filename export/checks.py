"""Checks of a model file against the trained network: parity and accuracy; no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from export import agreement, onnx_file
from export.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy.typing as npt


@dataclass(frozen=True)
class Check:
    """The result of one check; `ok` is None where it could not be made, and `detail` says why."""

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
    float32 has no more digits than that. Each input is also run alone, because a deployed network sees one image at a
    time, and its answer must not depend on the others in a batch. And on zeros, negative and large values as on the
    given ones the session has to compute what the file says, which it shows with optimisations off: real inputs alone
    may hide a kernel that is wrong for others.

    Args:
        model: takes `inputs`, returns one tensor.
        inputs: (N, C, H, W).
        expected: (N, classes).
        atol: largest |difference| in any case.
        rtol: largest |difference| as a share of the largest |expected|.

    Raises:
        InvalidFileError: the model can't be opened, or can't be run on these inputs.
    """
    return parity_of_batches(model, [(inputs, expected)], atol, rtol)


def parity_of_batches(
    model: bytes | Path,
    batches: Iterable[tuple[npt.NDArray[Any], npt.NDArray[Any]]],
    atol: float = 1e-4,
    rtol: float = 1e-5,
) -> Check:
    """Compare outputs as `parity` does, of inputs that come in batches: (inputs, expected) each.

    Raises:
        InvalidFileError: the model can't be opened, or can't be run on these inputs.
    """
    session = onnx_file.open_session(model)
    difference = apart = largest = 0.0
    count = answers = agreeing = 0
    for inputs, expected in batches:
        found = onnx_file.run(session, inputs)
        if found.shape != expected.shape or found.dtype.kind != "f":
            return Check("parity", False, f"outputs have shape {found.shape}, the network's {expected.shape}")
        difference = _larger(difference, found - expected)
        largest = _larger(largest, expected)
        alone = np.concatenate([onnx_file.run(session, inputs[at : at + 1]) for at in range(len(inputs))])
        if alone.shape != expected.shape:
            what = f"inputs run alone give outputs of shape {alone.shape}, in a batch {expected.shape}"
            return Check("parity", False, what)
        apart = _larger(apart, alone - expected)
        agreeing += int((found.argmax(axis=-1) == expected.argmax(axis=-1)).sum())
        answers += found.size // max(found.shape[-1], 1)
        count += len(inputs)
    tolerance = max(atol, rtol * largest)
    if difference <= tolerance and not apart <= tolerance:
        what = f"an input run alone gives something else than in a batch (largest difference {apart:.3g})"
        return Check("parity", False, what)
    if difference <= tolerance and (fault := _optimised_away(model, inputs)):
        return Check("parity", False, fault)
    detail = (
        f"largest difference {difference:.3g} (tolerance {tolerance:.3g}), "
        f"same first class for {agreeing / max(answers, 1):.2%} of {count} inputs"
    )
    return Check("parity", bool(difference <= tolerance), detail)  # NaN is not within any tolerance


def _larger(so_far: float, values: npt.NDArray[Any]) -> float:
    """The larger of a number and all |values|; NaN where one is NaN."""
    return float(np.maximum(so_far, np.max(np.abs(values), initial=0.0)))


def _optimised_away(model: bytes | Path, inputs: npt.NDArray[np.float32]) -> str:
    """Differences that ONNX Runtime's optimisations make to a model, in words; empty where there are none."""
    content = model if isinstance(model, bytes) else model.read_bytes()
    probes = agreement.probes(inputs)
    seen = agreement.disagreement(content, probes)
    if seen is None:
        return ""
    try:
        _, places = agreement.kept_apart(onnx_file.read_model(content), probes)
        where = f"it joins {'; '.join(places)}" if places else "on one run and not on another"
    except ExportError:
        where = "also node by node"
    return f"ONNX Runtime computes something else than the file says, {seen}: {where}"


def accuracy(
    model: bytes | Path,
    images: npt.NDArray[np.float32],
    labels: npt.NDArray[np.integer[Any]],
    batch_size: int = 256,
    threads: int = 1,
) -> float:
    """Share (0 to 1) of images (preprocessed float32, (N, C, H, W)) that ONNX Runtime classifies as labelled.

    Raises:
        InvalidFileError: the model can't be opened, or can't be run on these images.
        ValueError: no images, or not one label for each.
    """
    if len(images) != len(labels) or not len(images):
        raise ValueError(f"{len(images)} images and {len(labels)} labels: one label for each image is needed")
    return int((predictions(model, images, batch_size, threads) == labels).sum()) / len(images)


def predictions(
    model: bytes | Path, images: npt.NDArray[np.float32], batch_size: int = 256, threads: int = 1
) -> npt.NDArray[np.int64]:
    """Predicted class of each image (preprocessed float32, (N, C, H, W)), shape (N,), through ONNX Runtime.

    Raises:
        InvalidFileError: the model can't be opened, or can't be run on these images.
    """
    session = onnx_file.open_session(model, threads=threads)
    starts = range(0, len(images), batch_size)
    found = [onnx_file.run(session, images[start : start + batch_size]).argmax(axis=-1) for start in starts]
    return np.concatenate(found).astype(np.int64) if found else np.zeros(0, np.int64)
