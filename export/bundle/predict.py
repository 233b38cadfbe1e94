"""Classify images with the network of this bundle: `python predict.py IMAGE… [--top 3] [--json]`.

An image that can't be read doesn't keep the others from being classified; the exit code says that there was one.

Needs onnxruntime, numpy and pillow, Python 3.9 or later, and no network. The manifest beside this file names the
model, the preprocessing and the classes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

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
BRIGHTEST = 255
MISTAKE = 2  # the exit code


class UsageError(Exception):
    """A mistake that the user can mend, described in one line; exit code 2."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are reported like all others."""

    def error(self, message: str) -> NoReturn:
        """Raise in place of leaving the program."""
        raise UsageError(f"{message}\n{self.format_usage().strip()}")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the bundle's manifest.

    Raises:
        UsageError: it is missing, no JSON, or without preprocessing.
    """
    path = folder / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(manifest["preprocessing"], dict):
            raise UsageError(f"{path} records no preprocessing, without which the network's inputs aren't known")
    except OSError as error:
        raise UsageError(f"{path} can't be read ({error.strerror or error}); predict.py belongs beside it") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is damaged ({type(error).__name__}: {error})") from error
    return manifest


def image_files(given: list[Path]) -> list[Path]:
    """The given files, each folder replaced by the images directly in it, sorted by name."""
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    found = []
    for path in given:
        try:
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in known) if path.is_dir() else [path]
        except OSError:  # no right to look into it: reading it says so
            inside = [path]
        found += inside or [path]
    return found


def read_image(path: Path, channels: int) -> np.ndarray:
    """Read an image file as uint8 (height, width, channels), upright; transparency is ignored.

    Args:
        path: of the file.
        channels: a key of `MODES`.

    Raises:
        UsageError: no such file, it can't be decoded, or it has more than 8 bits a value.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder without images")
    try:
        with Image.open(path) as opened:
            if opened.mode not in EIGHT_BITS:
                raise UsageError(f"{path} has values of another kind than 8 bits (mode {opened.mode})")
            pixels = np.asarray(ImageOps.exif_transpose(opened).convert(MODES[channels]))
    except UsageError:
        raise
    except Exception as error:  # Pillow's decoders may raise anything on a damaged or hostile file
        reason = "no such file" if isinstance(error, FileNotFoundError) else one_line(error)
        raise UsageError(f"{path} can't be read as an image ({reason})") from error
    return pixels.reshape(pixels.shape[0], pixels.shape[1], channels)


def one_line(error: Exception) -> str:
    """An error's message on one line; its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The image at the network's size, each channel resized alone by Pillow's bilinear filter, as in training."""
    if image.shape[:2] == (height, width):
        return image
    planes = [
        Image.fromarray(np.ascontiguousarray(image[..., channel])).resize((width, height), Image.Resampling.BILINEAR)
        for channel in range(image.shape[-1])
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def normalised(images: np.ndarray, record: dict[str, Any]) -> np.ndarray:
    """Turn uint8 images (N, height, width, channels) into the network's input, float32 (N, channels, height, width)."""
    scaled = images.astype(np.float32) * np.float32(record["scale"])
    values = (scaled - np.asarray(record["mean"], np.float32)) / np.asarray(record["std"], np.float32)
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def open_model(path: Path) -> onnxruntime.InferenceSession:
    """Open the model on the CPU.

    Raises:
        UsageError: no such file, or ONNX Runtime refuses it.
    """
    if not path.is_file():
        raise UsageError(f"there is no model {path}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no other base
        raise UsageError(f"{path} can't be loaded ({one_line(error)})") from error


def probabilities(session: onnxruntime.InferenceSession, images: np.ndarray, record: dict[str, Any]) -> np.ndarray:
    """Compute the class probabilities (N, classes) of uint8 images (N, height, width, channels).

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
            raise UsageError(f"the model can't be run ({one_line(error)})") from error
        found.append(output.astype(np.float64))
    logits = np.concatenate(found)
    if whole:
        return logits
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def predictions(paths: list[Path], model: Path | None, top: int) -> list[dict[str, Any]]:
    """Classify image files: for each its name and the `top` likeliest classes, or the reason why it can't be read.

    Raises:
        UsageError: the bundle or the model can't be used.
    """
    manifest = read_manifest(HERE)
    record, classes = manifest["preprocessing"], manifest.get("classes") or []
    try:
        channels, (height, width) = record["channels"], record["resize"]
        if channels not in MODES:
            raise UsageError(f"the network takes {channels} channels; image files have {', '.join(map(str, MODES))}")
        session = open_model(model if model is not None else HERE / manifest.get("deployed", "model.onnx"))
        results: list[dict[str, Any]] = [{"image": str(path)} for path in paths]
        images, read, usual = [], [], value_range(manifest)
        for path, result in zip(paths, results):  # noqa: B905 - `strict` came with Python 3.10
            try:
                image = read_image(path, channels)
            except UsageError as problem:
                result["error"] = str(problem)
                continue
            warn_of_range(path, int(image.max(initial=0)), usual)
            images.append(resized(image, height, width))
            read.append(result)
        found = probabilities(session, np.stack(images), record) if images else ()
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"manifest.json is damaged: its preprocessing can't be used ({error})") from error
    for result, row in zip(read, found):  # noqa: B905
        best = [int(index) for index in np.argsort(-row, kind="stable")[:top]]
        result["predictions"] = [
            {"class": classes[i] if i < len(classes) else str(i), "index": i, "probability": float(row[i])}
            for i in best
        ]
    return results


def value_range(manifest: dict[str, Any]) -> list[int] | None:
    """Least and largest value of the training images; None where the manifest doesn't say."""
    dataset = manifest.get("dataset")
    known = dataset.get("value_range") if isinstance(dataset, dict) else None
    sound = isinstance(known, list) and len(known) == 2 and all(isinstance(value, int) for value in known)
    return known if sound else None


def warn_of_range(path: Path, brightest: int, known: list[int] | None) -> None:
    """Warn on stderr that an image is brighter than all training images, likely because its scale is another."""
    if known and brightest > known[1]:
        scale = f": if its scale is 0 to {BRIGHTEST}, multiply its values by {known[1]}/{BRIGHTEST} first"
        print(
            f"predict.py: warning: {path} has values up to {brightest}; those that the network was trained on"
            f" go up to {known[1]}{scale if known[1] else ''}",
            file=sys.stderr,
        )


def expected_images() -> str:
    """A help text on the images that the network takes; empty where the manifest doesn't say."""
    try:
        manifest = read_manifest(HERE)
        record, known = manifest["preprocessing"], value_range(manifest)
        height, width = record["resize"]
        kind = {1: "grey", 3: "colour", 4: "colour and transparency"}[record["channels"]]
        text = f"The network takes images of {width} x {height} pixels ({kind}); others are resized."
        if known and 0 < known[1] < BRIGHTEST:
            text += (
                f" Those that it was trained on have values from {known[0]} to {known[1]}: an image on the usual scale"
                f" of 0 to {BRIGHTEST} has to be multiplied by {known[1]}/{BRIGHTEST} first. Values are taken as they"
                " stand in the file."
            )
    except (UsageError, KeyError, TypeError, ValueError):
        return ""
    return text


def model_path(given: str) -> Path:
    """Resolve a path or the name of a file beside this one."""
    return HERE / given if not Path(given).is_file() and (HERE / given).is_file() else Path(given)


def positive(text: str) -> int:
    """Parse a whole number from 1 on."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def command_line() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = Parser(
        prog="predict.py", description="Classify images with the network of this bundle.", epilog=expected_images()
    )
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="an image file, or a folder: the images in it"
    )
    parser.add_argument("--model", type=model_path, metavar="FILE", help="in place of the deployed one")
    parser.add_argument("--top", type=positive, default=3, help="how many classes to name (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON document")
    return parser


def main() -> int:
    """Read the command line, predict, print."""
    try:
        given = command_line().parse_args()
        results = predictions(image_files(given.images), given.model, given.top)
    except UsageError as problem:
        print(f"predict.py: {problem}", file=sys.stderr)
        if "--json" in sys.argv[1:]:
            message = str(problem).partition("\n")[0]
            print(json.dumps({"error": {"message": message, "exit_code": MISTAKE}}, indent=2, ensure_ascii=False))
        return MISTAKE
    failed = [result["error"] for result in results if "error" in result]
    if given.json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
    for result in () if given.json else results:
        if "predictions" in result:
            named = ", ".join(f"{p['class']} ({100 * p['probability']:.1f} %)" for p in result["predictions"])
            print(f"{result['image']}: {named}")
    for reason in failed:
        print(f"predict.py: {reason}", file=sys.stderr)
    if failed and len(results) > 1:
        print(f"predict.py: {len(failed)} of {len(results)} images can't be classified", file=sys.stderr)
    return MISTAKE if failed else 0


if __name__ == "__main__":
    sys.exit(main())
