"""The report's drawings and sentences, on made-up trials."""

import re
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.config.file import parse_config
from pipeline.report import page
from pipeline.report.plots import front_plot, prediction_plot, progress_plot


def trial(number: int, accuracy: float, status: str = "ok") -> Any:
    objectives = {"accuracy": accuracy, "latency_ms": 1.0 + number}
    return SimpleNamespace(id=str(number), number=number, status=status, objectives=objectives, details={})


def told(source: str, predicted: bool = False) -> Any:
    latency: dict[str, Any] = {"source": source}
    if predicted:
        latency["predicted"] = {"latency_ms": 1.1, "low_ms": 0.9, "high_ms": 1.2}
    return SimpleNamespace(objectives={"latency_ms": 1.0}, details={"latency": latency})


def ticks(drawing: str, axis: str) -> list[float]:
    """The numbers along an axis, in order: matplotlib writes each as a comment beside its outlines."""
    part = drawing[drawing.index(f'id="matplotlib.axis_{axis}"') :]
    end = part.find('id="matplotlib.axis_', 10)
    labels = re.findall(r"<!-- ([−\d.]+) -->", part if end < 0 else part[:end])
    return [float(label.replace("−", "-")) for label in labels]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
def test_trials_have_whole_numbers_and_no_accuracy_is_above_one(count: int) -> None:
    records = [trial(number, 1.0 - 0.002 * number) for number in range(count)]
    drawing = progress_plot(records)
    across = ticks(drawing, "1")
    assert across
    assert all(number == int(number) for number in across)
    for plot in (drawing, front_plot(records, records[:1], "latency_ms", None, "0", joined=True)):
        upward = ticks(plot, "2")
        assert upward
        assert max(upward) <= 1.0


def test_accuracies_far_below_one_keep_their_own_scale() -> None:
    upward = ticks(progress_plot([trial(0, 0.3), trial(1, 0.5)]), "2")
    assert max(upward) < 0.6


@pytest.mark.parametrize(
    ("records", "sentence"),
    [
        ([told("measured")] * 5, "All 5 latencies were measured."),
        ([told("measured")], "The only latency was measured."),
        ([told("predicted")] * 3, "All 3 latencies are predictions."),
        ([told("predicted")], "The only latency is a prediction."),
        ([told("measured")] + [told("predicted")] * 2, "Of 3 latencies 1 was measured and 2 only predicted."),
        ([told("measured")] * 2 + [told("predicted")], "Of 3 latencies 2 were measured and 1 only predicted."),
    ],
)
def test_how_latencies_became_known(records: list[Any], sentence: str) -> None:
    config = parse_config({"data": {"name": "digits"}, "space": {"name": "convnet"}}, "a test")
    section = page._cost_model(config.model_copy(update={"cost_model": "both"}), records)
    assert section == {"text": sentence, "plot": ""}


def test_a_prediction_that_was_measured_afterwards() -> None:
    config = parse_config({"data": {"name": "digits"}, "space": {"name": "convnet"}}, "a test")
    section = page._cost_model(config.model_copy(update={"cost_model": "both"}), [told("measured", predicted=True)])
    assert section is not None
    assert section["text"] == (
        "The only latency was measured. 1 was predicted first and then measured: the median error is 10.0%,"
        " the largest 10.0%; the measurement lies in 1 of the 90 % intervals."
    )


def test_a_prediction_outside_of_its_interval_is_drawn_all_the_same() -> None:
    assert prediction_plot([{"measured_ms": 1.0, "latency_ms": 3.0, "low_ms": 1.0, "high_ms": 2.0}]).startswith("<svg")
