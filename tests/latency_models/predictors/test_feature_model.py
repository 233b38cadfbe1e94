import math

import numpy as np
import pytest

from latency_models.errors import CostError
from latency_models.predictors.feature_kernel import JITTER, FeatureGroup, Kernel, Scaling, Similarity
from latency_models.predictors.feature_model import MINIMUM, FeatureModel, FeatureModelError, LatencyUnits

GROUPS = (FeatureGroup("counts", 3), FeatureGroup("noise", 5))
COST_MS = np.array([0.2, 2.0, 0.7])


def space(nets: int, seed: int = 0) -> np.ndarray:
    """Three counts that the latency is made of, and five columns that have nothing to do with it."""
    rng = np.random.default_rng(seed)
    return np.hstack([rng.integers(0, 6, (nets, 3)), rng.integers(0, 2, (nets, 5))]).astype(float)


def additive_ms(features: np.ndarray) -> np.ndarray:
    return 1.5 + features[:, :3] @ COST_MS


def noisy_ms(features: np.ndarray, relative: float = 0.03, seed: int = 1) -> np.ndarray:
    return additive_ms(features) * np.exp(relative * np.random.default_rng(seed).standard_normal(len(features)))


def fitted(nets: int = 30, seed: int = 0) -> FeatureModel:
    features = space(nets, seed)
    return FeatureModel.fit(features, noisy_ms(features, seed=seed), GROUPS)


def test_times_of_operators_add_up() -> None:
    features, unknown = space(20), space(300, seed=1)
    found = FeatureModel.fit(features, additive_ms(features), GROUPS).predict(unknown)
    assert np.abs(found.latency_ms / additive_ms(unknown) - 1).max() < 0.01


def test_what_does_not_add_up_is_learnt_from_more_nets() -> None:
    def curved_ms(features: np.ndarray) -> np.ndarray:
        return additive_ms(features) + 1.5 * np.maximum(features[:, 0] - 2, 0) * (features[:, 1] > 2)

    unknown = space(300, seed=1)
    errors = []
    for nets in (20, 150):
        features = space(nets)
        found = FeatureModel.fit(features, curved_ms(features), GROUPS).predict(unknown)
        errors.append(float(np.median(np.abs(found.latency_ms / curved_ms(unknown) - 1))))
    assert errors[1] < 0.02
    assert errors[1] < errors[0] / 2


def test_intervals_hold_nine_of_ten() -> None:
    unknown = space(500, seed=99)
    shares = []
    for seed in range(8):
        found = fitted(40, seed).predict(unknown)
        measured = noisy_ms(unknown, seed=1000 + seed)
        shares.append(np.mean((found.low_ms <= measured) & (measured <= found.high_ms)))
        assert (found.low_ms < found.latency_ms).all()
        assert (found.latency_ms < found.high_ms).all()
    assert 0.85 <= np.mean(shares) <= 0.97


def test_intervals_grow_with_the_noise() -> None:
    features = space(60)
    widths = []
    for relative in (0.01, 0.1):
        found = FeatureModel.fit(features, noisy_ms(features, relative), GROUPS).predict(features)
        widths.append(float(np.median((found.high_ms - found.low_ms) / found.latency_ms)))
    assert widths[1] > 4 * widths[0]


def test_a_disturbed_measurement_counts_for_little() -> None:
    features, unknown = space(40), space(300, seed=1)
    latency_ms = noisy_ms(features, 0.01)
    clean = FeatureModel.fit(features, latency_ms, GROUPS).predict(unknown).latency_ms
    latency_ms[7] *= 3
    disturbed = FeatureModel.fit(features, latency_ms, GROUPS).predict(unknown).latency_ms
    least_squares, *_ = np.linalg.lstsq(np.c_[features[:, :3], np.ones(40)], latency_ms)
    plain = np.c_[unknown[:, :3], np.ones(300)] @ least_squares
    truth = additive_ms(unknown)
    assert np.abs(disturbed / clean - 1).max() < 0.03
    assert np.abs(disturbed / truth - 1).mean() < np.abs(plain / truth - 1).mean() / 3


def test_predictions_are_positive_and_keep_their_order() -> None:
    features = space(20)
    latency_ms = np.maximum(0.001, 3 * features[:, 1] - 1)
    outside = np.zeros((4, 8))
    outside[:, 1] = [-9, -3, -2, 4]
    found = FeatureModel.fit(features, latency_ms, GROUPS).predict(outside).latency_ms
    assert (found > 0).all()
    assert (np.diff(found) > 0).all()


def test_repeats_and_far_outliers_are_no_obstacle() -> None:
    features = np.concatenate([space(30), space(30), 20 * space(2, seed=5)])
    found = FeatureModel.fit(features, additive_ms(features), GROUPS).predict(space(50, seed=1))
    assert np.isfinite(found.high_ms).all()
    assert np.median(np.abs(found.latency_ms / additive_ms(space(50, seed=1)) - 1)) < 0.05


def test_the_unit_does_not_matter() -> None:
    features = space(30)
    latency_ms = noisy_ms(features)
    found = FeatureModel.fit(features, latency_ms, GROUPS).predict(features)
    thousandfold = FeatureModel.fit(features, 1000 * latency_ms, GROUPS).predict(features)
    assert thousandfold.latency_ms == pytest.approx(1000 * found.latency_ms, rel=1e-3)
    assert thousandfold.high_ms == pytest.approx(1000 * found.high_ms, rel=1e-3)


def test_wrong_measurements_are_a_users_mistake() -> None:
    features, latency_ms = space(12), additive_ms(space(12))
    assert issubclass(FeatureModelError, CostError)
    with pytest.raises(FeatureModelError, match=f"9 measured nets; a feature model needs at least {MINIMUM}"):
        FeatureModel.fit(features[:9], latency_ms[:9], GROUPS)
    with pytest.raises(FeatureModelError, match=r"latencies of shape \(11,\) for 12 nets"):
        FeatureModel.fit(features, latency_ms[:11], GROUPS)
    with pytest.raises(FeatureModelError, match="a row of 8 for each net"):
        FeatureModel.fit(features[:, :7], latency_ms, GROUPS)
    with pytest.raises(FeatureModelError, match="not a number above 0"):
        FeatureModel.fit(features, latency_ms * 0, GROUPS)
    features[3, 3] = math.nan
    with pytest.raises(FeatureModelError, match="a value that is not a number"):
        FeatureModel.fit(features, latency_ms, GROUPS)
    with pytest.raises(FeatureModelError, match="a row of 8 for each net"):
        fitted().predict(np.zeros((5, 7)))


def test_predictions_are_those_of_the_textbook() -> None:
    features, unknown = space(15), space(4, seed=1)
    latency_ms = noisy_ms(features)
    model = FeatureModel.fit(features, latency_ms, GROUPS)
    kernel, theta, units = Kernel(GROUPS), model.theta, LatencyUnits(latency_ms)
    known, new = model.scaling(features), model.scaling(unknown)
    full = kernel.covariance(theta, known, known) + np.diag(math.exp(2 * theta[-1]) * model.noise + JITTER)
    shared = kernel.covariance(theta, new, known)
    mean = shared @ np.linalg.solve(full, units.standard(latency_ms))
    latent = np.diag(kernel.covariance(theta, new, new) - shared @ np.linalg.solve(full, shared.T))
    deviation = np.sqrt(latent + math.exp(2 * theta[-1]) * units.proportional(mean))
    found = model.predict(unknown)
    assert found.latency_ms == pytest.approx(units.milliseconds(mean))
    assert found.high_ms == pytest.approx(units.milliseconds(mean + model.width * deviation), rel=1e-5)


def test_exactly_additive_latencies_have_narrow_intervals() -> None:
    features = space(40)
    found = FeatureModel.fit(features, additive_ms(features), GROUPS).predict(space(50, seed=1))
    assert ((found.high_ms - found.low_ms) / found.latency_ms).max() < 0.05


def test_the_gradient_is_that_of_the_loss() -> None:
    rng = np.random.default_rng(0)
    scaled = Scaling.of(space(12), GROUPS)(space(12))
    kernel, similarity = Kernel(GROUPS), Similarity.of(scaled, GROUPS)
    target, noise = rng.standard_normal(12), rng.uniform(0.5, 2, 12)
    theta = kernel.start + 0.3 * rng.standard_normal(6)
    _, gradient = kernel.loss(theta, similarity, target, noise)
    for index, step in enumerate(1e-5 * np.eye(6)):
        ahead, behind = (kernel.loss(theta + sign * step, similarity, target, noise)[0] for sign in (1, -1))
        assert gradient[index] == pytest.approx((ahead - behind) / 2e-5, rel=1e-4, abs=1e-6)


def test_covariance_by_hand() -> None:
    groups = (FeatureGroup("pair", 2), FeatureGroup("one", 1))
    scaling = Scaling(groups, np.zeros(3), np.array([1.0, 1.0, 2.0]))
    left, right = scaling(np.array([[1.0, 1.0, 2.0]])), scaling(np.array([[1.0, 3.0, 4.0]]))
    theta = np.log([2.0, 3.0, 1.0, 0.5, 1.5, 0.1])
    # pair: (1·1 + 1·3) / 2 = 2, half squared distance 2² / 2 / 2 = 1; one: 1 · 2 = 2, (1 − 2)² / 2 = 0.5.
    expected = 4 * 2 + 9 * 2 + 1.5**2 * math.exp(-1 * 1 - 0.25 * 0.5) + 10
    assert Kernel(groups).covariance(theta, left, right) == pytest.approx(np.array([[expected]]))
    # (1 + 1) / 2 = 1 and 1 are the squared lengths.
    assert Kernel(groups).variance(theta, left) == pytest.approx(np.array([4 + 9 + 1.5**2 + 10]))
