"""A small space as a pool, something to learn about it, and a Gaussian process by the textbook's formulas."""

import numpy as np

from helpers.driven import flat
from pipeline.strategies.features import Features, Featurizer
from pipeline.strategies.integer_codes import IntegerEncoder
from pipeline.strategies.surrogate import Surrogate

SPACE = flat(5, 3)
CODES_OF = IntegerEncoder(SPACE.choices)
CODES = CODES_OF.every()
ENCODER = Featurizer(SPACE, CODES_OF, CODES)
POOL = ENCODER.features(CODES)


def truth(rows: np.ndarray) -> np.ndarray:
    """Smooth in the choices, of mean about 0 and variance about 1."""
    effects = CODES[rows] @ np.array([1.0, -0.7, 0.5, 0.2, 0.1]) + 0.4 * (CODES[rows, 0] == CODES[rows, 1])
    return np.asarray((effects - 1.2) / 1.2)


def model_of(rows: np.ndarray, y: np.ndarray) -> Surrogate:
    model = Surrogate(ENCODER.sizes)
    model.fit(POOL.take(rows), y)
    return model


def exact(model: Surrogate, seen: Features, y: np.ndarray, at: Features) -> tuple[np.ndarray, np.ndarray]:
    """The textbook's formulas, without any factor that grows."""
    seen, scaled = model.scaled(seen), model.scaled(at)
    k = model.covariance(seen, seen).astype(float) + model.noise * np.eye(len(y))
    cross = model.covariance(seen, scaled).astype(float)
    solved = np.linalg.solve(k, cross)
    return solved.T @ y, model.prior_variance(at) - (cross * solved).sum(axis=0)
