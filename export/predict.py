"""Classify images with the network of this bundle: `python predict.py IMAGE… [--top 3] [--json]`.

Needs onnxruntime, numpy and pillow, Python 3.9 or later, and no network. The manifest beside this file tells the
model, the preprocessing and the classes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

# Builds of ONNX Runtime from 1.29 on report their use unless they are told not to before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

try:
    import numpy as np
    import onnxruntime
    from PIL import Image, ImageOps
except ImportError as missing:
    sys.exit(f"predict.py: {missing}; it needs `pip install numpy onnxruntime pillow`")

HERE = Path(__file__).resolve().parent
BATCH = 32
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")
# What Pillow raises on files that are no images, or damaged or hostile ones.
IMAGE_ERRORS = (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError)


class UsageError(Exception):
    """What the user can mend; said in one line, exit code 2."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """The bundle's manifest.

    Raises:
        UsageError: it is missing, no JSON, or lacks what a prediction needs.
    """
    path = folder / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(manifest["preprocessing"], dict):
            raise UsageError(f"{path} records no preprocessing: it can't be told what the network's inputs are")
    except OSError as error:
        raise UsageError(f"{path} can't be read ({error.strerror or error}); predict.py belongs beside it") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is damaged ({type(error).__name__}: {error})") from error
    return manifest


def read_image(path: Path, channels: int) -> np.ndarray:
    """An image file as uint8 (height, width, channels), upright; transparency is ignored.

    Raises:
        UsageError: there is none, it can't be decoded, or it has more than 8 bits a value.
    """
    if channels not in MODES:
        raise UsageError(f"the network takes {channels} channels; image files have {', '.join(map(str, MODES))}")
    try:
        with Image.open(path) as opened:
            if opened.mode not in EIGHT_BITS:
                raise UsageError(f"{path} has values of another kind than 8 bits (mode {opened.mode})")
            pixels = np.asarray(ImageOps.exif_transpose(opened).convert(MODES[channels]))
    except IMAGE_ERRORS as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else " ".join(str(error).split())
        raise UsageError(f"{path} can't be read as an image ({reason})") from error
    return pixels.reshape(pixels.shape[0], pixels.shape[1], channels)


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The image at the network's size, each channel alone by Pillow's bilinear filter, as in training."""
    if image.shape[:2] == (height, width):
        return image
    planes = [
        Image.fromarray(np.ascontiguousarray(image[..., channel])).resize((width, height), Image.Resampling.BILINEAR)
        for channel in range(image.shape[-1])
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def normalised(images: np.ndarray, record: dict[str, Any]) -> np.ndarray:
    """uint8 (N, height, width, channels) to the network's input: float32 (N, channels, height, width)."""
    scaled = images.astype(np.float32) * np.float32(record["scale"])
    values = (scaled - np.asarray(record["mean"], np.float32)) / np.asarray(record["std"], np.float32)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def open_model(path: Path) -> onnxruntime.InferenceSession:
    """The model on the CPU.

    Raises:
        UsageError: there is none, or ONNX Runtime refuses it.
    """
    if not path.is_file():
        raise UsageError(f"there is no model {path}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no other base
        raise UsageError(f"{path} can't be loaded ({' '.join(str(error).split())})") from error


def probabilities(session: onnxruntime.InferenceSession, images: np.ndarray, record: dict[str, Any]) -> np.ndarray:
    """uint8 (N, height, width, channels) to (N, classes).

    Raises:
        UsageError: the model can't be run on images as the manifest describes them.
    """
    source = session.get_inputs()[0]
    whole = source.type == "tensor(uint8)"  # the form with the preprocessing inside gives probabilities itself
    found = []
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        try:
            (output,) = session.run(None, {source.name: batch if whole else normalised(batch, record)})
        except Exception as error:  # as above
            raise UsageError(f"the model can't be run ({' '.join(str(error).split())})") from error
        found.append(output.astype(np.float64))
    logits = np.concatenate(found)
    if whole:
        return logits
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def predictions(paths: list[Path], model: Path | None, top: int) -> list[dict[str, Any]]:
    """For each image file: its name and the `top` classes, likeliest first.

    Raises:
        UsageError: something that the user gave, or the bundle, can't be used.
    """
    manifest = read_manifest(HERE)
    record, classes = manifest["preprocessing"], manifest.get("classes") or []
    try:
        channels, (height, width) = record["channels"], record["resize"]
        images = [read_image(path, channels) for path in paths]
        session = open_model(model if model is not None else HERE / manifest.get("deployed", "model.onnx"))
        found = probabilities(session, np.stack([resized(image, height, width) for image in images]), record)
    except (KeyError, TypeError) as error:
        raise UsageError(f"manifest.json is damaged: its preprocessing can't be used ({error})") from error
    warn_of_range(images, paths, (manifest.get("dataset") or {}).get("value_range"))
    results = []
    for path, row in zip(paths, found):  # noqa: B905 - `strict` came with Python 3.10
        best = [int(index) for index in np.argsort(-row, kind="stable")[:top]]
        named = [
            {"class": classes[i] if i < len(classes) else str(i), "index": i, "probability": float(row[i])}
            for i in best
        ]
        results.append({"image": str(path), "predictions": named})
    return results


def warn_of_range(images: list[np.ndarray], paths: list[Path], value_range: list[int] | None) -> None:
    """Say on stderr where an image is brighter than any that the network was trained on: another scale, likely."""
    if not value_range:
        return
    for image, path in zip(images, paths):  # noqa: B905
        if image.max(initial=0) > value_range[1]:
            print(
                f"predict.py: warning: {path} has values up to {image.max()}; those that the network was trained on"
                f" go up to {value_range[1]}",
                file=sys.stderr,
            )


def model_path(given: str) -> Path:
    """A path, or the name of a file beside this one."""
    return HERE / given if not Path(given).is_file() and (HERE / given).is_file() else Path(given)


def positive(text: str) -> int:
    """A whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def main() -> int:
    """Read the command line, predict, print."""
    parser = argparse.ArgumentParser(prog="predict.py", description="Classify images with the network of this bundle.")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="an image file")
    parser.add_argument("--model", type=model_path, metavar="FILE", help="in place of the deployed one")
    parser.add_argument("--top", type=positive, default=3, help="how many classes to name (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    given = parser.parse_args()
    try:
        results = predictions(given.images, given.model, given.top)
    except UsageError as problem:
        print(f"predict.py: {problem}", file=sys.stderr)
        return 2
    if given.json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
        return 0
    for result in results:
        named = ", ".join(f"{p['class']} ({100 * p['probability']:.1f} %)" for p in result["predictions"])
        print(f"{result['image']}: {named}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
