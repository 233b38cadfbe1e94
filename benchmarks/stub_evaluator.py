"""An evaluator that doesn't train: accuracy is a hash of the network's structure.

It makes a search's results a function of config and seed alone, fast, so that searches can be compared to the
last digit. In a config, with this folder as the working directory:

    evaluator: {name: "stub_evaluator:HashEvaluator", sleep_s: 0.1, uneven: true}
"""

import hashlib
import random
import time
from typing import Any, cast

from torch import nn

from pipeline.evaluators.base import CandidateEvaluator
from pipeline.trials.result import Progress


class HashEvaluator(CandidateEvaluator):
    """Accuracy as a hash of the network's structure.

    Options: `sleep_s`, how long a trial pretends to take; `uneven`, by chance 0 to twice that.
    """

    def evaluate(self, model: nn.Module, progress: Progress | None = None) -> float:
        """A number from 0.5 to 1 that depends on modules and shapes, and on no weight."""
        options = cast("Any", self.options)
        seconds = float(getattr(options, "sleep_s", 0.0))
        time.sleep(random.uniform(0, 2 * seconds) if getattr(options, "uneven", False) else seconds)
        digest = hashlib.sha256(repr(model).encode()).digest()
        return 0.5 + 0.5 * int.from_bytes(digest[:4], "big") / 2**32
