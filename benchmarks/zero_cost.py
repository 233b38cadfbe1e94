"""Zero-cost scores of random NAS-Bench-201 networks, against published accuracies and published scores.

Each network is built by the space `nasbench201` (16 channels, five cells a stack as published, a seed of its own) and
scored once on one minibatch. The published scores and accuracies are of CIFAR-10. In place of CIFAR-10's images the
inputs are noise with random labels, or scikit-learn's digits at 32×32 in three equal channels. Told are Spearman's
correlations with the accuracy after 200 epochs and, where there is one, with the published column of the same score;
and the seconds a network took, in one thread. Beside it stands what the published columns have over the whole table.
"""

import csv
import gzip
import math
import time

import numpy as np
import torch
from common import summary, table
from networks import NASBENCH201, nasbench201
from options import SEED, begin, option, positive, some_of
from scipy.stats import spearmanr

from pipeline.errors import EvaluatorError
from pipeline.evaluators.zero_cost.scores import SCORES, score_of
from pipeline.spaces.nasbench201 import NasBench201Space
from pipeline.spaces.nasbench201_features import OPERATORS, parse
from pipeline.spaces.nasbench201_net import LABELS

_PUBLISHED = {"synflow": ("cifar10_logsynflow", "cifar10_synflow"), "naswot": ("cifar10_naswot",)}
_WHOLE = {
    "params": "params_m_cifar10",
    "macs": "flops_m_cifar10",
    "synflow": "cifar10_synflow",
    "naswot": "cifar10_naswot",
}
"""Scores that are published for all architectures; the others aren't."""
_CLASSES, _SIDE = 10, 32


def main() -> None:
    arguments = begin(
        __doc__,
        positive("--networks", 150),
        positive("--images", 32),
        positive("--cells", 5),
        option("--inputs", "noise", choices=["noise", "digits"]),
        some_of("--scores", SCORES),
        SEED,
    )
    torch.set_num_threads(1)
    rows = _read("nasbench201")
    published = {row["arch_index"]: row for row in _read("nasbench201_zero_cost")}
    whole = _of_the_whole_table(rows, published)
    chosen = np.random.default_rng(arguments.seed).choice(len(rows), arguments.networks, replace=False)
    rows = [rows[index] for index in chosen]
    images, labels = _minibatch(arguments.inputs, arguments.images, arguments.seed)
    space = nasbench201(arguments.cells)
    found, seconds = _scores(space, rows, arguments.scores, images, labels)
    accuracy = [float(row["cifar10_test_200"]) for row in rows]
    told = []
    for name, values in found.items():
        row = {"score": name, "accuracy": _correlation(values, accuracy), "networks with one": _valid(values)}
        for place in range(2):
            column = _PUBLISHED.get(name, ())[place : place + 1]
            theirs = [_number(published[row["arch_index"]][column[0]]) for row in rows] if column else []
            row[f"published {place + 1}"] = f"{column[0]} {_correlation(values, theirs)}" if column else ""
            row[f"its accuracy {place + 1}"] = _correlation(theirs, accuracy) if column else ""
        told.append({**row, "ms a network": f"{1e3 * float(np.mean(seconds[name])):.0f}"})
    for row in told:
        goal = f"about {whole[row['score']]}, the whole table's" if row["score"] in whole else "the table has none"
        summary(f"{row['score']} and accuracy", row["accuracy"], goal)
    print()
    table(told)


def _read(name: str) -> list[dict[str, str]]:
    with gzip.open(NASBENCH201.with_name(f"{name}.csv.gz"), "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _of_the_whole_table(rows: list[dict[str, str]], published: dict[str, dict[str, str]]) -> dict[str, str]:
    """Correlation with the accuracy of each published score."""
    accuracy = [float(row["cifar10_test_200"]) for row in rows]
    every = [{**row, **published[row["arch_index"]]} for row in rows]
    return {name: _correlation([_number(row[column]) for row in every], accuracy) for name, column in _WHOLE.items()}


def _minibatch(inputs: str, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    if inputs == "noise":
        shape = (count, 3, _SIDE, _SIDE)
        return torch.randn(shape, generator=generator), torch.randint(_CLASSES, (count,), generator=generator)
    from sklearn.datasets import load_digits

    digits = load_digits()
    rows = np.random.default_rng(seed).choice(len(digits.target), count, replace=False)
    small = torch.tensor(digits.images[rows], dtype=torch.float32)[:, None]
    large = torch.nn.functional.interpolate(small, (_SIDE, _SIDE), mode="bilinear").repeat(1, 3, 1, 1)
    return (large - large.mean()) / large.std(), torch.tensor(digits.target[rows])


def _scores(
    space: NasBench201Space,
    rows: list[dict[str, str]],
    names: list[str],
    images: torch.Tensor,
    labels: torch.Tensor,
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Values of each score, NaN where a network has none, and the seconds."""
    found: dict[str, list[float]] = {name: [] for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for row in rows:
        torch.manual_seed(int(row["arch_index"]))
        network = space.build(space.canonical(_choices(row["arch_str"])))
        for name in names:
            began = time.perf_counter()
            try:
                found[name].append(score_of(name, network, images, labels))
            except EvaluatorError:
                found[name].append(math.nan)
            seconds[name].append(time.perf_counter() - began)
    return found, seconds


def _choices(key: str) -> dict[str, str]:
    return {label: OPERATORS[place] for label, place in zip(LABELS, parse(key), strict=True)}


def _correlation(first: list[float], second: list[float]) -> str:
    """Spearman's; what has no score counts as the worst."""
    low = [np.where(np.isnan(values), -np.inf, values) for values in (np.array(first), np.array(second))]
    return f"{float(spearmanr(*low).statistic):.2f}"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _valid(values: list[float]) -> str:
    return f"{int(np.isfinite(values).sum())} of {len(values)}"


if __name__ == "__main__":
    main()
