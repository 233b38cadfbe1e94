"""The config's section `evaluator`, for each name."""

from __future__ import annotations

from typing import Literal

from pipeline.strict import Count, Strict


class TrainEvaluatorOptions(Strict):
    """Train each candidate for a few epochs and take its validation accuracy."""

    name: Literal["train"]
    epochs: Count = 3
