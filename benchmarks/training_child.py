"""Trains architectures from standard input, one after the other, by the evaluator of whichever build runs it.

Started by `same_ranking.py` with a build's checkout on PYTHONPATH, today's or that of 2026-11-21. The first line is the
config; then each line is `[architecture, seed]`, answered by the accuracy on the validation images.
"""

import json
import sys
from typing import Any

import torch

try:
    from pipeline.config.file import parse_config
    from pipeline.spaces.make import make_space
except ImportError:  # as the build of 2026-11-21 had it
    from pipeline.config_file import parse_config  # type: ignore[import-not-found,no-redef]
    from pipeline.trial import make_space  # type: ignore[import-not-found,no-redef]

from pipeline.data import load_data
from pipeline.evaluators.train import TrainEvaluator


def main() -> None:
    torch.set_num_threads(1)
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever a library prints
    config: Any = parse_config(json.loads(sys.stdin.readline()), "the benchmark's config")
    data = load_data(config.data)
    space = make_space(config, data)
    evaluator = TrainEvaluator(config.evaluator, data, config.train)
    for line in sys.stdin:
        architecture, seed = json.loads(line)
        torch.manual_seed(seed)
        print(evaluator.evaluate(space.build(architecture)), file=answers, flush=True)


if __name__ == "__main__":
    main()
