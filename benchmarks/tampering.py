"""Answers of `hwnas verify` to bundles that were damaged or tampered with.

Each case changes a copy of a real bundle, through the command line it is verified, and the table tells the exit code,
the first check that failed for it and its words. "Signed" cases renew the hashes, as whoever tampers on purpose would.

Without a bundle it makes one, by a search of a minute on the digits.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from common import REPOSITORY, hwnas, summary, table
from onnx import TensorProto, helper, numpy_helper
from options import begin, file_path
from tampering_tools import added, cut, flip, gone, remade, reworded, rewrite, sign

from export.bundle.manifest import HASH_FIELD, file_record, read_manifest
from export.bundle.model_checks import model_record
from export.bundle.write import write_bundle
from export.exporter.image_model import with_preprocessing
from export.preprocessing import Preprocessing
from export.quantization.quantize import quantize_int8

MODEL, INT8, IMAGE = "model.onnx", "model.int8.onnx", "model.image.onnx"


@dataclass(frozen=True)
class Case:
    """One kind of damage.

    Attributes:
        check: one that must fail.
        words: that its detail must have.
        damage: done to the bundle in a folder, with these arguments.
    """

    name: str
    check: str
    words: str
    damage: Callable[..., None]
    arguments: tuple[Any, ...] = ()


BETTER = {"accuracy_test": 0.9999}


def swap(bundle: Path) -> None:
    """Put the quantised file under the other's name and the other way round."""
    (bundle / MODEL).rename(bundle / "aside")
    (bundle / INT8).rename(bundle / MODEL)
    (bundle / "aside").rename(bundle / INT8)


def swap_signed(bundle: Path) -> None:
    swap(bundle)
    sign(bundle)


def swap_recounted(bundle: Path) -> None:
    """Also the operators are those of the files as they lie there now."""
    swap(bundle)
    models = {name: model_record(onnx.load(str(bundle / name))) for name in (MODEL, INT8)}
    rewrite(bundle, lambda manifest: manifest["models"].update(models))
    sign(bundle)


def other_weights(model: onnx.ModelProto, kind: type, make: Callable[[np.ndarray], np.ndarray]) -> None:
    """Another network of the same shape: every matrix of one type anew."""
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == kind and values.ndim > 1:
            tensor.CopyFrom(numpy_helper.from_array(make(values).astype(kind), tensor.name))


def drawn(values: np.ndarray) -> np.ndarray:
    """Normal values of the same spread."""
    return np.random.default_rng(0).standard_normal(values.shape) * values.std()


def shuffled(values: np.ndarray) -> np.ndarray:
    """The same values in another order."""
    return np.random.default_rng(0).permutation(values.ravel()).reshape(values.shape)


def one_weight(model: onnx.ModelProto) -> None:
    """One byte of the largest weight's bias or matrix: a weight becomes huge."""
    tensor = max(model.graph.initializer, key=lambda item: int(np.prod(item.dims)))
    content = bytearray(tensor.raw_data)
    content[3] ^= 0x40  # an exponent bit of the first number
    tensor.raw_data = bytes(content)


def external(bundle: Path, location: str, place: Callable[[Path, bytes], None]) -> None:
    """Move the first weight into another file, record the model anew, and put that file somewhere."""
    model = onnx.load(str(bundle / MODEL))
    tensor = model.graph.initializer[0]
    content = tensor.raw_data
    where = location.format(parent=bundle.parent)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=where)
    (bundle / MODEL).write_bytes(model.SerializeToString())
    sign(bundle)
    place(bundle, content)
    rewrite(bundle, lambda manifest: manifest["files"].update({where: file_record((bundle / where).resolve())}))


def inside(bundle: Path, content: bytes) -> None:
    (bundle / "weights.bin").write_bytes(content)


def lost(bundle: Path) -> None:
    """Weights that were recorded, and then were lost."""
    external(bundle, "weights.bin", inside)
    (bundle / "weights.bin").unlink()


def outside(bundle: Path, content: bytes) -> None:
    (bundle.parent / "weights.bin").write_bytes(content)


def linked(bundle: Path, content: bytes) -> None:
    outside(bundle, content)
    (bundle / "weights.bin").symlink_to(bundle.parent / "weights.bin")


def custom_operator(model: onnx.ModelProto) -> None:
    """An operator that a shared library would have to bring."""
    node = next(node for node in model.graph.node if len(node.input) == 1 and node.op_type != "Flatten")
    node.op_type, node.domain = "Mystery", "com.stranger"
    node.ClearField("attribute")
    model.opset_import.add(domain="com.stranger", version=1)


def microsoft_operator(model: onnx.ModelProto) -> None:
    """An operator of ONNX Runtime's own, which no other runtime has."""
    value = model.graph.output[0].name
    last = next(node for node in model.graph.node if value in node.output)
    last.output[0] = f"{value}_before"
    model.graph.node.append(helper.make_node("QuickGelu", [f"{value}_before"], [value], domain="com.microsoft"))
    model.opset_import.add(domain="com.microsoft", version=1)


def stamp(model: onnx.ModelProto, opset: int) -> None:
    model.opset_import[0].version = opset


def brighter(model: onnx.ModelProto) -> None:
    """Another normalisation inside of the image model."""
    names = ("preprocessing.mean", "preprocessing.scale")
    for tensor in model.graph.initializer:
        if tensor.name in names:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.1), tensor.name))


def turned(manifest: dict[str, Any]) -> None:
    manifest["classes"] = manifest["classes"][::-1]


def linked_readme(bundle: Path) -> None:
    path = bundle / "README.md"
    path.rename(bundle.parent / "README.md")
    path.symlink_to(bundle.parent / "README.md")


def paler(manifest: dict[str, Any]) -> None:
    manifest["preprocessing"]["mean"] = [value + 0.1 for value in manifest["preprocessing"]["mean"]]


CASES = (
    Case("one byte of the weights", "files", f"{MODEL} was changed", flip, (MODEL,)),
    Case("one byte of the INT8 weights", "files", f"{INT8} was changed", flip, (INT8,)),
    Case("one byte of the stored images", "files", "samples.npz was changed", flip, ("samples.npz",)),
    Case("one byte of predict.py", "files", "predict.py was changed", flip, ("predict.py",)),
    Case("one bit of a weight, signed", "parity", "largest difference", remade, (MODEL, one_weight)),
    Case("fp32 and INT8 file swapped", "files", f"{INT8} was changed", swap),
    Case("the same, signed", "operators", "others than the manifest counts", swap_signed),
    Case("the same, signed and recounted", "parity", "largest difference", swap_recounted),
    Case("accuracy edited", "manifest_sha256", "its content gives", rewrite, (
        lambda manifest: manifest["metrics"].update(BETTER), False)),
    Case("accuracy edited, signed", "evaluation", "stated is 0.9999", rewrite, (
        lambda manifest: manifest["metrics"].update(BETTER),)),
    Case("a file's hash edited, signed", "files", f"{MODEL} was changed", rewrite, (
        lambda manifest: manifest["files"][MODEL].update(sha256="0" * 64),)),
    Case("classes turned round, signed", "classes", "aren't the manifest's", rewrite, (turned,)),
    Case("preprocessing edited, signed", "preprocessing", "within 0.", rewrite, (paler,)),
    Case("limits that it breaks, signed", "limit macs", "at most 1000", rewrite, (
        lambda manifest: manifest.update(limits={"macs": 1000, "size_mb": 1e-6}),)),
    Case("stamped with opset 19, signed", "opset", "the model has 19, the manifest 20", remade, (MODEL, stamp, 19)),
    Case("external data lost", "files", "weights.bin is missing", lost),
    Case("external data at ../, signed", "files", "points outside", external, ("../weights.bin", outside)),
    Case("external data at /, signed", "files", "points outside", external, ("{parent}/weights.bin", outside)),
    Case("external data by a link, signed", "files", "link to outside", external, ("weights.bin", linked)),
    Case("a custom operator, signed", "operators", "com.stranger:Mystery", remade, (MODEL, custom_operator)),
    Case("a runtime's own operator, signed", "operators", "com.microsoft:QuickGelu", remade, (
        MODEL, microsoft_operator)),
    Case("model cut short", "files", f"{MODEL} was changed", cut, (MODEL,)),
    Case("model missing", "files", f"{MODEL} is missing", gone, (MODEL,)),
    Case("another net of the same shape, signed", "parity", "largest difference", remade, (
        MODEL, other_weights, np.float32, drawn)),
    Case("another INT8 net, signed", "int8 parity", "differ from the stored ones", remade, (
        INT8, other_weights, np.int8, shuffled)),
    Case("another image model, signed", "image parity", "largest difference", remade, (IMAGE, brighter)),
    Case("samples missing", "files", "samples.npz is missing", gone, ("samples.npz",)),
    Case("README a link to elsewhere", "files", "link to outside", linked_readme),
    Case("predict.py edited, signed", "predict.py", "isn't the one that hwnas", reworded, ("predict.py", "255", "254")),
    Case("the card's accuracy edited, signed", "model card", "README.md isn't what the manifest gives", reworded, (
        "README.md", "accuracy on the test images | ", "accuracy on the test images | 9")),
    Case("a latency outside its interval, signed", "intervals", "metrics.latency_ms is 1e-06", rewrite, (
        lambda manifest: manifest["metrics"].update(latency_ms=1e-6),)),
    Case("a class's accuracy edited, signed", "evaluation", "single classes", rewrite, (
        lambda manifest: manifest["evaluation"]["per_class"][0].update(correct=-1),)),
    Case("a module json.py beside predict.py", "other files", "json.py", added, ("json.py",)),
    Case("an image model that isn't listed", "other files", IMAGE, rewrite, (
        lambda manifest: manifest["files"].pop(IMAGE),)),
    Case("manifest cut short", "manifest", "JSON", cut, ("manifest.json",)),
    Case("manifest of a later schema", "manifest", "schema_version is 99", rewrite, (
        lambda manifest: manifest.update(schema_version=99),)),
)  # fmt: skip


def completed(source: Path, target: Path) -> Path:
    """A copy of a bundle that has every kind of model: those it lacks are made of its own samples."""
    manifest = read_manifest(source)
    with np.load(source / "samples.npz", allow_pickle=False) as samples:
        inputs, outputs, images = (samples[name] for name in ("inputs", "outputs", "images"))
    model = onnx.load(str(source / MODEL))
    int8 = quantize_int8(model, inputs).SerializeToString()
    preprocessing = Preprocessing.from_dict(manifest["preprocessing"])
    image = with_preprocessing(model, preprocessing).SerializeToString()
    for name in (HASH_FIELD, "files", "models", "schema_version"):
        manifest.pop(name, None)
    manifest["int8"] = {"kept": True, "reason": "made for this"}
    manifest["image_model"] = {"of": MODEL}
    return write_bundle(
        target,
        model=model,
        manifest=manifest,
        inputs=inputs,
        outputs=outputs,
        raw_inputs=images,
        int8=int8,
        image_model=image,
    )


def searched(folder: Path) -> Path:
    """A bundle of the smallest real search."""
    settings = {"budget.trials": 4, "final.epochs": 10, "export.quantize": "never"}
    hwnas("search", REPOSITORY / "configs" / "digits-cpu.yaml", "--run-dir", folder / "run", settings=settings)
    return folder / "run" / "bundle"


def verified(bundle: Path) -> tuple[int, list[dict[str, Any]]]:
    """Exit code and checks of `hwnas verify`."""
    done = hwnas("verify", bundle, "--json", environment={"OMP_NUM_THREADS": "1"}, codes=range(256))
    return done.returncode, json.loads(done.stdout)["checks"]


def row(number: int, case: Case, bundle: Path) -> dict[str, str]:
    """One case's line of the table."""
    case.damage(bundle, *case.arguments)
    code, checks = verified(bundle)
    failed = [check for check in checks if check["ok"] is False]
    told = next((check for check in failed if check["name"] == case.check and case.words in check["detail"]), None)
    others = ", ".join(check["name"] for check in failed if check is not told)
    return {
        "": str(number),
        "case": case.name,
        "exit": str(code),
        "check": told["name"] if told else "NOT FOUND",
        "detail": (told["detail"] if told else "")[:90],
        "also failed": others,
    }


def main() -> None:
    given = begin(__doc__, file_path("bundle", text="of an earlier run", nargs="?"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sound = completed(given.bundle or searched(folder), folder / "sound")
        code, checks = verified(sound)
        print(f"as it was made: exit {code}, {sum(check['ok'] is True for check in checks)} checks passed\n")
        rows = []
        for number, case in enumerate(CASES, 1):
            place = folder / str(number)
            rows.append(row(number, case, Path(shutil.copytree(sound, place / "bundle"))))
        table(rows)
        found = sum(line["exit"] == "3" and line["check"] != "NOT FOUND" for line in rows)
        summary("tampering found", f"{found} of {len(rows)}, sound bundle exit {code}", f"{len(CASES)}, 0")


if __name__ == "__main__":
    main()
