"""The choice of a few architectures that represent a whole search space, to be measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from latency_models.predictors.feature_kernel import Scaling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from latency_models.predictors.feature_kernel import FeatureGroup

# More candidates than this change the choice little, and each pair's distance is held.
_CANDIDATES = 2000


def representative_subset(
    features: np.ndarray, groups: Sequence[FeatureGroup], count: int, *, seed: int = 0
) -> np.ndarray:
    """Indices (count,) of representative architectures. Every prefix is representative as well.

    Kernel herding (Chen, Welling and Smola 2010, "Super-samples from kernel herding"): each next one lies where
    the space is densest and the chosen ones are farthest. In contrast to designs of least variance it asks for
    typical architectures, not for extreme ones, which are where a latency model is least true.

    Args:
        features: (n, d), the space or a random sample of it; of more than 2,000 rows, a random part is used.
        groups: of the columns.
        count: how many.
        seed: of that random part.

    Raises:
        ValueError: `count` is not from 1 to the number of candidates.
    """
    candidates = np.random.default_rng(seed).permutation(len(features))[:_CANDIDATES]
    if not 1 <= count <= len(candidates):
        raise ValueError(f"{count} architectures asked for; from 1 to {len(candidates)} can be chosen")
    weights = np.repeat([group.weight for group in groups], [group.columns for group in groups])
    scaled = Scaling.of(features, groups)(features[candidates]) * weights
    distance = _half_squared_distances(scaled)
    # The median makes the kernel's width fit any number of features.
    typical = float(np.median(distance)) / 2 or 1.0
    kernel = np.exp(-distance / typical)
    density = kernel.mean(axis=1)
    covered = np.zeros(len(candidates))
    chosen: list[int] = []
    for round_ in range(count):
        gain = density - covered / (round_ + 1)
        gain[chosen] = -np.inf
        chosen.append(int(np.argmax(gain)))
        covered += kernel[chosen[-1]]
    return np.asarray(candidates[chosen])


def _half_squared_distances(scaled: np.ndarray) -> np.ndarray:
    """(n, d) → (n, n)."""
    products = scaled @ scaled.T
    squared = np.diagonal(products) / 2
    return np.asarray(np.maximum(squared[:, None] + squared[None, :] - products, 0.0))
