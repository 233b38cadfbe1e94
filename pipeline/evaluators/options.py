"""The config's section `evaluator`, for each name."""

from __future__ import annotations

from typing import Literal

from pipeline.strict import Cost, Count, Positive, Strict


class TrainEvaluatorOptions(Strict):
    """Train each candidate for a few epochs and take its validation accuracy."""

    name: Literal["train"]
    epochs: Count = 3


class TableEvaluatorOptions(Strict):
    """Look accuracy and costs up in a published table; see `pipeline.evaluators.lookup`.

    Attributes:
        path: a CSV file with a line of names, packed with gzip where it ends with `.gz`.
        key: the column of the architectures' names, as the space writes them.
        accuracy: the column of the accuracies; times `scale` they are from 0 to 1.
        costs: metric → column.
    """

    name: Literal["table"]
    path: str
    key: str
    accuracy: str
    scale: Positive = 1.0
    costs: dict[Cost, str] = {}
