"""The manifest's sections for the model card: the data, the deployed file's mistakes, the search."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from export.checks import predictions
from export.exporter.image_model import with_preprocessing

if TYPE_CHECKING:
    import numpy.typing as npt

    from latency_models.timing.meter import LatencyMeter
    from pipeline.config.run import RunConfig
    from pipeline.data import DataSet, Split

_MEASURE_S = 1.0
_CONFIDENCE = 0.95


def card_facts(config: RunConfig, data: DataSet, test: Split, deployed: str, model: bytes) -> dict[str, Any]:
    """The manifest's sections `dataset`, `evaluation` and `search`.

    Args:
        config: of the run.
        data: that the network was trained on.
        test: its test split.
        deployed: name of the deployed file.
        model: that file.
    """
    predicted = predictions(model, data.preprocessing.apply(test.images))
    return {
        "dataset": _dataset(data, test),
        "evaluation": {"file": deployed, **evaluation(test.labels, predicted, data.classes)},
        "search": {
            "space": config.space.model_dump(mode="json"),
            "strategy": config.strategy.model_dump(mode="json"),
            "evaluator": config.evaluator.model_dump(mode="json"),
            "recipe": config.train.model_dump(mode="json"),
        },
    }


def evaluation(
    labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], classes: tuple[str, ...]
) -> dict[str, Any]:
    """Accuracy, accuracy of each class and confusion matrix, as the manifest has them.

    Args:
        labels: (N,), true classes.
        predicted: (N,), predicted classes.
        classes: names.
    """
    table = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(table, (labels, predicted), 1)
    rows = [
        {"name": name, **_share(int(table[index, index]), int(table[index].sum()))}
        for index, name in enumerate(classes)
    ]
    return {
        **_share(int(np.trace(table)), len(labels)),
        "interval": "Wilson, 95 %",
        "per_class": rows,
        "confusion": table.tolist(),
    }


def _share(correct: int, images: int) -> dict[str, Any]:
    """A share and its Wilson interval (Wilson, 1927); null where there is nothing to divide by."""
    from scipy.stats import binomtest

    if not images:
        return {"images": 0, "correct": 0, "accuracy": None, "accuracy_low": None, "accuracy_high": None}
    interval = binomtest(correct, images).proportion_ci(_CONFIDENCE, method="wilson")
    return {
        "images": images,
        "correct": correct,
        "accuracy": correct / images,
        "accuracy_low": float(interval.low),
        "accuracy_high": float(interval.high),
    }


def _dataset(data: DataSet, test: Split) -> dict[str, Any]:
    images = data.train.images
    return {
        "name": data.name,
        "train_images": len(data.train),
        "validation_images": len(data.validation),
        "test_images": len(test),
        "image_shape": list(images.shape[1:]),
        "value_range": [int(images.min()), int(images.max())],
    }


def model_metadata(run: str, architecture: str, data: DataSet) -> dict[str, str]:
    """The metadata of the model file itself; values that aren't text are JSON."""
    return {
        "run": run,
        "architecture": architecture,
        "classes": json.dumps(data.classes),
        "input_size": json.dumps(data.input_shape),
        "preprocessing": json.dumps(data.preprocessing.as_dict(), sort_keys=True),
    }


def image_model(wanted: bool, deployed: str, model: bytes, data: DataSet, meter: LatencyMeter) -> ImageModel:
    """The deployed model with its preprocessing inside, and the latencies of the two, if `wanted`.

    Raises:
        ExportError: the preprocessing can't be put into the file.
    """
    if not wanted:
        return None, {}
    whole = with_preprocessing(onnx.load_model_from_string(model), data.preprocessing).SerializeToString()
    latency = meter.measure(whole, budget_s=_MEASURE_S)
    ratio = meter.compare(whole, model, budget_s=_MEASURE_S)
    facts = {
        "of": deployed,
        "latency_ms": latency.latency_ms,
        "latency_low_ms": latency.low_ms,
        "latency_high_ms": latency.high_ms,
        "latency_ratio": ratio.ratio,
        "latency_ratio_low": ratio.low,
        "latency_ratio_high": ratio.high,
        "size_bytes": len(whole),
    }
    return whole, {"image_model": facts}


ImageModel = tuple[bytes | None, dict[str, Any]]
"""The file with the manifest's section on it; None and no section where it isn't wanted."""
