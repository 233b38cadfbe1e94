import numpy as np
import pytest

from latency_models.predictors.feature_kernel import FeatureGroup
from latency_models.predictors.herding import representative_subset

GROUPS = (FeatureGroup("counts", 3), FeatureGroup("noise", 5))


def space(nets: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.hstack([rng.integers(0, 6, (nets, 3)), rng.integers(0, 2, (nets, 5))]).astype(float)


def test_representative_nets_are_distinct_and_extend_each_other() -> None:
    features = space(300)
    chosen = representative_subset(features, GROUPS, 40, seed=3)
    assert len(set(chosen.tolist())) == 40
    assert (representative_subset(features, GROUPS, 15, seed=3) == chosen[:15]).all()


def test_representative_nets_look_like_the_space() -> None:
    features = space(1000)
    chosen = features[representative_subset(features, GROUPS, 25)]
    off = np.abs(chosen.mean(axis=0) - features.mean(axis=0)) / features.std(axis=0)
    drawn = [
        np.abs(features[np.random.default_rng(seed).choice(1000, 25, replace=False)].mean(0) - features.mean(0))
        / features.std(0)
        for seed in range(30)
    ]
    assert off.mean() < 0.6 * np.mean(drawn)


def test_an_oddity_is_not_the_first_choice() -> None:
    features = space(100)
    features[17] = 40.0
    assert 17 not in representative_subset(features, GROUPS, 20)


def test_herding_needs_a_count_that_exists() -> None:
    for count in (0, 31):
        with pytest.raises(ValueError, match="from 1 to 30 can be chosen"):
            representative_subset(space(30), GROUPS, count)
