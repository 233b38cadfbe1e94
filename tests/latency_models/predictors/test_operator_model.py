"""Networks made of invented operators whose times are known: what the model finds of them."""

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel

from latency_models.predictors.operator_kernel import Hyper
from latency_models.predictors.operator_model import Lines, Observation, OperatorModel
from latency_models.predictors.operators import Operator, constant, convolution, elementwise

CALL = constant("call")
HYPER = Hyper(kind=0.02, shape=0.03, own=0.004, reach=0.8, misfit=0.01)
WIDTHS = (16, 32, 48, 64, 96)
SIDES = (4.0, 8.0, 16.0)


def true_ms(operator: Operator) -> float:
    """About a line in the work, a little off by kind and, smoothly, by size."""
    if operator.kind == "call":
        return 0.004
    lines = {"conv3": (3e-8, 0.0, 2e-8), "conv1": (4e-8, 0.0, 2e-8), "silu": (6e-7,), "add": (2e-7,)}
    line = sum(slope * amount for slope, amount in zip(lines[operator.kind], operator.work, strict=True))
    return (0.001 + line) * (1.0 + 0.08 * math.sin(1.5 * math.log(operator.sizes[0])))


def total_ms(operators: Sequence[Operator]) -> float:
    return sum(true_ms(operator) for operator in operators)


def block(rng: np.random.Generator) -> tuple[Operator, ...]:
    before, after = (int(width) for width in rng.choice(WIDTHS, 2))
    side = float(rng.choice(SIDES))
    return (
        convolution(before, after, int(rng.choice([1, 3])), side),
        elementwise(str(rng.choice(["silu", "add"])), after, side),
    )


def probes(count: int, seed: int = 0, noise: float = 0.005) -> list[Observation]:
    """Some blocks and their call."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        operators = (CALL, *(each for _ in range(rng.integers(1, 3)) for each in block(rng)))
        found.append(Observation(operators, total_ms(operators) * math.exp(noise * rng.standard_normal()), noise))
    return found


def networks(count: int, seed: int = 1, factor: float = 1.0, noise: float = 0.005) -> list[Observation]:
    """Whole networks, that take `factor` times their operators' sum."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        operators = (CALL, *(each for _ in range(rng.integers(4, 12)) for each in block(rng)))
        ms = factor * total_ms(operators) * math.exp(noise * rng.standard_normal())
        found.append(Observation(operators, ms, noise, whole=True))
    return found


def errors(model: OperatorModel, unknown: Sequence[Observation], *, whole: bool = True) -> np.ndarray:
    return np.array([model.predict_ms(each.operators, whole=whole)[0] / each.ms - 1 for each in unknown])


class DenseModel:
    """The same posterior, each covariance summed over pairs of operators."""

    def __init__(self, model: OperatorModel) -> None:
        self.line_ms, self.hyper, self.rows = model.lines.ms, model.hyper, model.observations
        kernel = np.array([[self.between(a, b) for b in self.rows] for a in self.rows])
        own = [each.ms**2 * (self.hyper.misfit**2 + each.noise**2) for each in self.rows]
        self.inverse = np.linalg.inv(kernel + np.diag(own))
        self.residual = np.array([each.ms - self.sum_ms(each) for each in self.rows])

    def sum_ms(self, net: Observation) -> float:
        return sum(self.line_ms(operator) for operator in net.operators)

    def between(self, a: Observation, b: Observation) -> float:
        hyper, found = self.hyper, 0.0
        for one in a.operators:
            for other in b.operators:
                if one.kind != other.kind:
                    continue
                apart = sum((math.log(s) - math.log(t)) ** 2 for s, t in zip(one.sizes, other.sizes, strict=True))
                relative = hyper.kind + hyper.shape * math.exp(-apart / 2 / hyper.reach**2)
                relative += hyper.own if one == other else 0.0
                found += relative * self.line_ms(one) * self.line_ms(other)
        if a.whole and b.whole:
            sums = self.sum_ms(a), self.sum_ms(b)
            found += sums[0] * sums[1] * (0.1**2 + 0.03**2 * math.log(sums[0]) * math.log(sums[1]))
        return found

    def predict(self, net: Observation) -> tuple[float, float]:
        column = np.array([self.between(row, net) for row in self.rows])
        ms = self.sum_ms(net) + column @ self.inverse @ self.residual
        variance = self.between(net, net) - column @ self.inverse @ column
        return ms, math.sqrt(variance + (self.hyper.misfit * ms) ** 2)


class TestPosterior:
    def test_is_that_of_a_dense_process_over_pairs_of_operators(self) -> None:
        model = OperatorModel.fit([*probes(15), *networks(4, factor=1.05)], HYPER)
        dense = DenseModel(model)
        for unknown in (*networks(5, seed=7), *probes(5, seed=8)):
            found = model.predict_ms(unknown.operators, whole=unknown.whole)
            assert found == pytest.approx(dense.predict(unknown), rel=1e-6)

    def test_of_single_operators_is_sklearns(self) -> None:
        rng = np.random.default_rng(0)
        operators = [elementwise("silu", c, s) for c in WIDTHS for s in SIDES]
        seen, unknown = operators[::2], operators[1::2]
        rows = [Observation((o,), true_ms(o) * math.exp(0.01 * rng.standard_normal()), 0.01) for o in seen]
        model = OperatorModel.fit(rows, HYPER)
        lines = np.array([model.lines.ms(o) for o in seen])
        times = np.array([each.ms for each in rows])
        theirs = GaussianProcessRegressor(
            ConstantKernel(HYPER.kind) + ConstantKernel(HYPER.shape) * RBF(HYPER.reach),
            alpha=HYPER.own + (times / lines) ** 2 * (HYPER.misfit**2 + 0.01**2),
            optimizer=None,
        ).fit(np.log([o.sizes for o in seen]), times / lines - 1)
        mean, deviation = theirs.predict(np.log([o.sizes for o in unknown]), return_std=True)
        for operator, relative, spread in zip(unknown, mean, deviation, strict=True):
            line = model.lines.ms(operator)
            ms = line * (1 + relative)
            own = math.sqrt(line**2 * (spread**2 + HYPER.own) + (HYPER.misfit * ms) ** 2)
            assert model.predict_ms([operator], whole=False) == pytest.approx((ms, own), rel=1e-6)

    def test_the_order_of_operators_and_observations_does_not_matter(self) -> None:
        rows = [*probes(20), *networks(3)]
        unknown = networks(1, seed=9)[0].operators
        there, back = (OperatorModel.fit(each, HYPER) for each in (rows, rows[::-1]))
        assert back.predict_ms(unknown[::-1]) == pytest.approx(there.predict_ms(unknown), rel=1e-6)

    def test_of_a_kind_that_was_never_seen_tells_next_to_nothing(self) -> None:
        model = OperatorModel.fit(probes(20), HYPER)
        assert 0 < model.operator_ms(elementwise("mish", 64, 8)) < 1e-4

    def test_two_networks_are_the_least(self) -> None:
        one = probes(1)[0]
        assert OperatorModel.fit([one, one]).predict_ms(one.operators, whole=False)[0] == pytest.approx(one.ms, rel=0.1)
        with pytest.raises(ValueError, match="two or more networks"):
            OperatorModel.fit([one])
        with pytest.raises(ValueError, match="times above 0"):
            OperatorModel.fit([one, Observation(one.operators, 0.0, 0.01)])


class TestLearning:
    def test_times_of_operators_add_up(self) -> None:
        found = errors(OperatorModel.fit(probes(200)), networks(50))
        assert np.abs(found).mean() < 0.02
        assert np.abs(found).max() < 0.05

    def test_an_operators_own_share_is_found(self) -> None:
        rng = np.random.default_rng(0)
        operators = [each for _ in range(100) for each in block(rng)]
        nets = [(CALL, *(operators[at] for at in rng.choice(200, 3))) for _ in range(200)]
        model = OperatorModel.fit([Observation(each, total_ms(each), 0.002) for each in nets])
        for operator in (convolution(64, 64, 3, 8.0), convolution(96, 48, 1, 16.0), elementwise("silu", 64, 16.0)):
            assert model.operator_ms(operator) == pytest.approx(true_ms(operator), rel=0.15)

    def test_more_work_never_has_a_lower_line(self) -> None:
        lines = OperatorModel.fit(probes(40, noise=0.2)).lines
        assert all((line >= 0).all() for line in lines.coefficients.values())

    def test_what_whole_networks_have_in_common_is_learnt_from_a_few(self) -> None:
        unknown, parts = networks(40, seed=5, factor=1.08), probes(100, seed=6)
        alone = OperatorModel.fit(probes(100))
        assert errors(alone, unknown).mean() < -0.05
        known = OperatorModel.fit([*alone.observations, *networks(5, factor=1.08)], alone.hyper)
        assert known.hyper == alone.hyper
        assert np.abs(errors(known, unknown)).mean() < 0.02
        assert np.abs(errors(known, parts, whole=False)).mean() < 0.02

    def test_what_they_have_in_common_does_not_grow_beyond_the_largest(self) -> None:
        model = OperatorModel.fit([*probes(100), *networks(12, factor=1.08)])
        large = convolution(512, 512, 3, 28)
        some, more = ((CALL, *[large] * count) for count in (20, 2000))
        alone, together = ([model.predict_ms(each, whole=whole)[0] for each in (some, more)] for whole in (False, True))
        factors = [whole / parts for whole, parts in zip(together, alone, strict=True)]
        assert factors[1] == pytest.approx(factors[0], rel=1e-3)
        assert factors[0] > 1.02

    def test_measurements_narrow_the_interval(self) -> None:
        unknown = networks(20, seed=5)
        widths = []
        for nets in (0, 2, 20):
            model = OperatorModel.fit([*probes(60), *networks(nets)], HYPER)
            widths.append(np.mean([model.predict_ms(each.operators)[1] / each.ms for each in unknown]))
        assert widths[0] > 2 * widths[1] > 2 * widths[2]

    def test_a_noisy_measurement_counts_for_little(self) -> None:
        rows = probes(60)
        unknown = networks(10)
        wrong = Observation(rows[7].operators, 1.5 * rows[7].ms, 0.005)
        off = []
        for noise in (0.005, 2.0):
            model = OperatorModel.fit(rows, HYPER)
            disturbed = OperatorModel(
                [*rows[:7], Observation(wrong.operators, wrong.ms, noise), *rows[8:]], HYPER, model.lines
            )
            off.append(np.abs(errors(disturbed, unknown) - errors(model, unknown)).mean())
        assert off[1] < off[0] / 5

    def test_intervals_hold_about_nine_of_ten(self) -> None:
        held = []
        for seed in range(4):
            model = OperatorModel.fit([*probes(60, seed), *networks(5, 100 + seed, factor=1.06)])
            for each in networks(60, 200 + seed, factor=1.06):
                found = model.predict(each.operators)
                assert found.low_ms < found.latency_ms < found.high_ms
                held.append(found.low_ms <= each.ms <= found.high_ms)
        assert 0.85 <= np.mean(held) <= 0.99


class TestLeaveOneOut:
    def test_is_refitting_without_the_row(self) -> None:
        rows = [*probes(12), *networks(4, factor=1.05)]
        model = OperatorModel.fit(rows, HYPER)
        off, deviations = model.leave_one_out()
        largest = max((row for row in rows if row.whole), key=lambda row: row.ms)
        for at, row in enumerate(rows):
            if row is largest:  # without it, what whole networks have in common doesn't grow as far
                continue
            rest = OperatorModel(rows[:at] + rows[at + 1 :], HYPER, model.lines)
            ms, deviation = rest.predict_ms(row.operators, whole=row.whole)
            assert off[at] == pytest.approx((row.ms - ms) / row.ms, rel=1e-6, abs=1e-9)
            sure = deviation**2 - (HYPER.misfit * ms) ** 2
            spread = math.sqrt(sure / row.ms**2 + HYPER.misfit**2 + row.noise**2)
            assert deviations[at] == pytest.approx(spread, rel=1e-6)

    def test_whole_networks_decide_the_width_where_there_are_some(self) -> None:
        rows = [*probes(160, noise=0.1), *networks(12)]
        quiet = [Observation(each.operators, each.ms, 0.005, each.whole) for each in rows]
        model = OperatorModel.fit(quiet, HYPER)
        off, deviations = model.leave_one_out()
        # Of 12 the 12th: ⌈13 · 0.9⌉.
        assert model.width == pytest.approx(np.abs(off / deviations)[160:].max())

    def test_few_are_told_by_models_that_know_nothing_of_them(self) -> None:
        rows = [*probes(20, noise=0.1), *networks(4)]
        model = OperatorModel.fit(rows, HYPER)
        errors = model.held_out_errors()
        assert errors is not None
        known = [row for at, row in enumerate(rows) if at % 6 != 0]
        ms, _ = OperatorModel(known, HYPER, Lines.fit(known)).predict_ms(rows[0].operators, whole=False)
        assert errors[0] == pytest.approx(ms / rows[0].ms - 1.0)
        # Their own lines have seen them: what is left of them looks better than it is.
        assert np.abs(errors).mean() > np.abs(model.leave_one_out()[0]).mean()
        assert OperatorModel.fit(rows[:11], HYPER).held_out_errors() is None


class TestDocument:
    def model(self) -> OperatorModel:
        return OperatorModel.fit([*probes(15), *networks(3, factor=1.05)])

    def test_survives_json(self) -> None:
        model = self.model()
        again = OperatorModel.from_dict(json.loads(json.dumps(model.as_dict())))
        assert again.observations == model.observations
        assert again.hyper == model.hyper
        assert again.as_dict() == model.as_dict()
        for each in networks(10, seed=4):
            assert again.predict(each.operators) == model.predict(each.operators)

    def test_counts_how_often_an_operator_is_there(self) -> None:
        operators = (CALL, elementwise("silu", 16, 4), elementwise("silu", 16, 4))
        rows = [Observation(operators, 0.01, 0.01), Observation(operators[:2], 0.007, 0.01)]
        document = OperatorModel.fit(rows).as_dict()
        assert document["operators"] == [["call", [], []], ["silu", [16, 4], [256]]]
        assert [row["operators"] for row in document["observations"]] == [[0, 1, 1], [0, 1]]

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (("operators",), None),
            (("operators", 0), ["call", []]),
            (("operators", 1, 1), ["wide", 8.0]),
            (("operators", 1, 1), [8.0]),
            (("operators", 1, 1), [-16.0, 32.0, 8.0]),
            (("operators", 1, 2), [1.0]),
            (("operators", 1, 2), [math.nan, 1.0, 1.0]),
            (("observations",), []),
            (("observations", 0), {}),
            (("observations", 0, "operators"), [9999]),
            (("observations", 0, "operators"), ["call"]),
            (("observations", 0, "ms"), 0.0),
            (("observations", 0, "ms"), math.nan),
            (("observations", 0, "noise"), math.inf),
            (("hyper",), None),
            (("hyper",), []),
            (("hyper", "kind"), math.nan),
            (("hyper", "reach"), 0.0),
            (("hyper",), {"kind": 0.01}),
            (("hyper", "misfit"), -0.01),
        ],
        ids=str,
    )
    def test_a_damaged_one_is_refused(self, path: tuple[Any, ...], value: Any) -> None:
        document = self.model().as_dict()
        *parents, last = path
        inner: Any = document
        for key in parents:
            inner = inner[key]
        inner[last] = value
        with pytest.raises((KeyError, TypeError, ValueError, IndexError)):
            OperatorModel.from_dict(document)
