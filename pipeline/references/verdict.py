"""The verdict on a search: its winner beside the reference points, in figures and in words."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from latency_models.timing.statistics import NORMAL_95

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.references.records import Reference, References

    Row = dict[str, Any]

_OWN = ("name", "status", "error", "epochs", "training_s", "file", "broken_limits")
_METRICS = (
    "accuracy_validation",
    "accuracy_test",
    "latency_ms",
    "latency_low_ms",
    "latency_high_ms",
    "size_bytes",
    "peak_memory_bytes",
    "macs",
    "params",
)
_AGAINST = (
    "latency_ratio",
    "latency_ratio_low",
    "latency_ratio_high",
    "accuracy_validation_difference",
    "accuracy_test_difference",
)
_MEGABYTE = 10**6
_CHANCE = 1.2  # times the accuracy of guessing


def rows(known: References, manifest: Mapping[str, Any]) -> list[Row]:
    """One flat mapping for each reference; unknown values are None, as is a comparison with another winner.

    Args:
        known: of the run.
        manifest: of its bundle.
    """
    return [_row(reference, manifest) for reference in known.references]


def _row(reference: Reference, manifest: Mapping[str, Any]) -> Row:
    against = reference.against_winner
    if against is not None and against.winner != manifest["architecture_id"]:
        against = None
    learned = reference.metrics.get("accuracy_validation", 1.0) > _CHANCE / len(manifest["classes"])
    remarks = (
        f"failed: {reference.error}" if reference.error else "",
        "" if learned else "learned nothing with this recipe",
        f"breaks {reference.broken_limits}" if reference.broken_limits else "",
    )
    return {
        **{name: getattr(reference, name) for name in _OWN},
        **{name: reference.metrics.get(name) for name in _METRICS},
        **{name: getattr(against, name, None) for name in _AGAINST},
        "remark": "; ".join(filter(None, remarks)),
    }


def reference_costs(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Known costs of a reference under the names that configs use."""
    scaled = {"size_mb": "size_bytes", "peak_memory_mb": "peak_memory_bytes"}
    costs = {name: metrics.get(name) for name in ("latency_ms", "macs", "params", "energy_mj")}
    costs |= {name: None if (raw := metrics.get(key)) is None else raw / _MEGABYTE for name, key in scaled.items()}
    return {name: float(value) for name, value in costs.items() if value is not None}


def verdict(references: Sequence[Row], manifest: Mapping[str, Any]) -> str:
    """The sentences on the winner.

    Args:
        references: see `rows`.
        manifest: of the run's bundle.
    """
    accuracy_test, test_images = manifest["metrics"]["accuracy_test"], manifest["metrics"]["test_images"]
    compared = [row for row in references if row["latency_ratio"] is not None]
    failed = [row["name"] for row in references if row["status"] == "failed"]
    noise = NORMAL_95 * math.sqrt(2 * accuracy_test * (1 - accuracy_test) / test_images)
    sentence, named = _judgement(compared, accuracy_test, noise)
    sentences = [sentence]
    less = [row for row in compared if row["accuracy_test_difference"] < 0 and row is not named]
    faster = [row for row in less if row["latency_ratio_high"] < 1]
    for by_chance, lead in ((False, "but less accurate"), (True, "and less accurate by no more than chance may do")):
        listed = [f"{r['name']} ({_ratio(r)}; {_points(r)})" for r in faster if _within(r, noise) == by_chance]
        if listed:
            sentences.append(f"Faster than the winner, {lead}: {', '.join(listed)}.")
    if compared:
        sentences.append(f"On {test_images:,} test images, accuracies less than {noise:.2g} apart may be so by chance.")
    if failed:
        sentences.append(f"Failed: {', '.join(failed)}.")
    return " ".join(sentences)


def _within(row: Row, noise: float) -> bool:
    """Whether chance alone may explain the difference of its test accuracy from the winner's."""
    return bool(abs(row["accuracy_test_difference"]) < noise)


def _judgement(compared: Sequence[Row], accuracy_test: float, noise: float) -> tuple[str, Row | None]:
    """The first sentence, and the reference that it names."""
    if not compared:
        return "No reference point was finished and timed against the winner.", None
    equal = [row for row in compared if row["accuracy_test_difference"] >= 0]
    if not equal:
        best = max(compared, key=lambda row: row["accuracy_test"])
        return _less_accurate(best, len(compared), accuracy_test, noise), best
    fastest = min(equal, key=lambda row: row["latency_ratio"])
    return _against_the_fastest(fastest, accuracy_test), fastest


def _less_accurate(best: Row, count: int, accuracy_test: float, noise: float) -> str:
    """The sentence for references that are all less accurate than the winner."""
    name, share, takes = best["name"], f"{best['accuracy_test']:.4f}", f"takes {_ratio(best)}"
    if _within(best, noise):
        which = f"The only reference, {name}," if count == 1 else f"Of {count} references the most accurate, {name},"
        return (
            f"{which} is less accurate than the winner by no more than chance may do (test accuracy {share} against "
            f"{accuracy_test:.4f}); it {takes}."
        )
    if count == 1:
        return (
            f"The only reference, {name}, is less accurate than the winner (test accuracy {share} against "
            f"{accuracy_test:.4f}) and {takes}."
        )
    return (
        f"None of {count} references is as accurate as the winner (test accuracy {accuracy_test:.4f}); "
        f"the most accurate, {name} ({share}), {takes}."
    )


def _against_the_fastest(row: Row, accuracy_test: float) -> str:
    name, accuracies = row["name"], f"{row['accuracy_test']:.4f} against the winner's {accuracy_test:.4f}"
    if row["latency_ratio_low"] > 1:
        interval = f"{row['latency_ratio_low']:.2f} to {row['latency_ratio_high']:.2f}"
        return (
            f"At equal or better accuracy the winner is {row['latency_ratio']:.2f} times faster ({interval}) than "
            f"the fastest reference that is as accurate, {name} (test accuracy {accuracies})."
        )
    if row["latency_ratio_high"] < 1:
        return f"A reference wins: {name} is at least as accurate (test accuracy {accuracies}) and takes {_ratio(row)}."
    return (
        f"The search gained nothing over {name}, which is at least as accurate (test accuracy {accuracies}): no "
        f"difference in latency was seen ({_ratio(row)})."
    )


def _ratio(row: Row) -> str:
    low, high = row["latency_ratio_low"], row["latency_ratio_high"]
    return f"{row['latency_ratio']:.2f} ({low:.2f} to {high:.2f}) times the winner's latency"


def _points(row: Row) -> str:
    return f"{-row['accuracy_test_difference']:.4f} less"
