"""Every form of every family in ONNX Runtime, against formulas of their own at twice the precision."""

import functools
import math

import numpy as np
import pytest

from export.lowering.activation_sites import deviations
from export.lowering.families import FAMILIES, RecognisedActivation
from export.lowering.forms import FORMS, Context, artanh_coefficients
from export.lowering.node_writer import NodeWriter
from helpers.graphs import graph_of, run

CHANNELS = 8
EACH = np.linspace(0.2, 0.95, CHANNELS)
SIGNED = np.array([-2, -0.7, -0.1, 0.3, 0.9, 1.0, 1.4, 3.0])

# --- formulas, none of them the package's


def sigmoid(x):
    return 0.5 * (1 + np.tanh(x / 2))


def below(x):
    return np.exp(np.minimum(x, 0)) - 1


def log_of_sum(x):
    return np.where(x > 0, x + np.log(1 + np.exp(-np.abs(x))), np.log1p(np.exp(-np.abs(x))))


erf = np.vectorize(math.erf)


def pieces(x, knots, slopes, offset):
    """Each piece by itself, from the first line on."""
    at = np.concatenate([knots[0], [np.inf]])
    y = offset[0, 0] + slopes[0, 0] * np.minimum(x, knots[0, 0])
    for slope, start, end in zip(slopes[0, 1:], at, at[1:], strict=False):
        y = y + slope * np.clip(x - start, 0, end - start)
    return y


FORMULAS = {
    "leaky_relu": lambda x, slope: np.maximum(x, 0) + slope * np.minimum(x, 0),
    "clip": lambda x, low, high: np.minimum(np.maximum(x, low), high),
    "hardsigmoid": lambda x, alpha, beta: np.minimum(np.maximum(alpha * x + beta, 0), 1),
    "hardswish": lambda x: x * np.minimum(np.maximum(x + 3, 0), 6) / 6,
    "squared_relu": lambda x: np.where(x > 0, x * x, 0),
    "softsign": lambda x: np.sign(x) * (1 - 1 / (1 + np.abs(x))),
    "gelu": lambda x: x * (1 + erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * sigmoid(math.sqrt(8 / math.pi) * (x + 0.044715 * x * x * x)),
    "sigmoid": lambda x, inner, scale, shift: scale * sigmoid(inner * x) + shift,
    "swish": lambda x, beta: x * sigmoid(beta * x),
    "acon": lambda x, inner, difference, lower: difference * x * sigmoid(inner * x) + lower * x,
    "mish": lambda x: x * np.tanh(log_of_sum(x)),
    "elu": lambda x, scale, alpha: scale * (np.maximum(x, 0) + alpha * below(x)),
    "celu": lambda x, alpha: np.maximum(x, 0) + alpha * below(x / alpha),
    "softplus": lambda x, beta: log_of_sum(beta * x) / beta,
    "piecewise_linear": pieces,
}
PARAMETERS: dict[str, list[dict[str, object]]] = {
    "leaky_relu": [{"slope": [value]} for value in (0.0, 0.01, -0.5, 1.7)]
    + [{"slope": SIGNED}, {"slope": EACH}, {"slope": -EACH}],
    "clip": [{"low": [0.0], "high": [6.0]}, {"low": [-1.0], "high": [1.0]}, {"low": [-5.5], "high": [-2.0]}],
    "hardsigmoid": [{"alpha": [1 / 6], "beta": [0.5]}, {"alpha": [0.2], "beta": [0.4]}],
    "sigmoid": [
        {"inner": [1.0], "scale": [1.0], "shift": [0.0]},
        {"inner": [2.0], "scale": [2.0], "shift": [-1.0]},
        {"inner": [1.3], "scale": [4.0], "shift": [-2.0]},
        {"inner": SIGNED, "scale": 1 + EACH, "shift": SIGNED},
    ],
    "swish": [{"beta": [1.0]}, {"beta": [0.3]}, {"beta": [-2.0]}, {"beta": SIGNED}],
    "acon": [
        {"inner": [1.0], "difference": [1.0], "lower": [0.2]},
        {"inner": [1.3], "difference": [0.7], "lower": [-0.2]},
        {"inner": SIGNED, "difference": EACH, "lower": SIGNED[::-1]},
        {"inner": np.ones(CHANNELS), "difference": np.ones(CHANNELS), "lower": SIGNED},
    ],
    "elu": [
        {"scale": [1.0], "alpha": [1.0]},
        {"scale": [1.0], "alpha": [0.3]},
        {"scale": [1.0], "alpha": [2.0]},
        {"scale": [1.0507009873554805], "alpha": [1.6732632423543772]},
        {"scale": np.ones(CHANNELS), "alpha": EACH},
    ],
    "celu": [{"alpha": [1.0]}, {"alpha": [0.5]}, {"alpha": [3.0]}, {"alpha": 2 * EACH}],
    "softplus": [{"beta": [1.0]}],
    "piecewise_linear": [
        {"knots": [[-1.0, 0.0, 1.0]], "slopes": [[0.01, 0.25, 0.75, 1.0]], "offset": [[0.0]]},
        {"knots": [[-1.0, 2.0]], "slopes": [[-1.0, 0.25, -0.75]], "offset": [[0.5]]},
    ],
}
CONTEXTS = [
    Context(channels, joins, opset)
    for channels in (CHANNELS, None)
    for joins in (False, True)
    for opset in (9, 11, 13, 17, 18, 20)
]


def written():
    """Each form with each of its parameters, at the lowest and highest opset, in and out of the blocked layout."""
    cases = {}
    for family, forms in FORMS.items():
        for number, parameters in enumerate(PARAMETERS.get(family, [{}])):
            known = RecognisedActivation(
                family, {name: np.asarray(value, np.float64) for name, value in parameters.items()}
            )
            for form in forms:
                fits = [context for context in CONTEXTS if form.applies(known, context)]
                for context in {(each.channels, each.opset): each for each in (*fits[:1], *fits[-1:])}.values():
                    where = f"{family}-{form.name}-{number}-{context.channels}-{context.opset}"
                    cases[where] = (known, form, context)
    return cases


CASES = written()


@functools.cache
def points():
    """(n,) float32: dense to 1e4, denser near 0, and by their size down to what float32 has."""
    small = np.geomspace(1e-38, 1e4, 3000)
    dense = (np.linspace(-1e4, 1e4, 40_001), np.linspace(-30, 30, 12_001))
    return np.unique(np.concatenate([*dense, -small, small, [0.0]]).astype(np.float32))


def in_onnx_runtime(known, form, context, x):
    """The form on x in each channel: (channels, n)."""
    writer = NodeWriter(set(), "", channels=context.channels)
    output = form.write(writer, "x", known)
    shape = (1, CHANNELS, 1, len(x))
    model = graph_of(writer.nodes, writer.constants, shape, opset=context.opset, outputs=(output,))
    return run(model, np.array(np.broadcast_to(np.float32(form.scale) * x, shape)))[0][0, :, 0]


def formula(known, x):
    stored = {name: np.float64(np.float32(values)) for name, values in known.parameters.items()}
    shaped = stored if known.family == "piecewise_linear" else {name: v[:, None] for name, v in stored.items()}
    with np.errstate(over="ignore"):
        return np.broadcast_to(FORMULAS[known.family](x.astype(np.float64), **shaped), (CHANNELS, len(x)))


def test_every_form_of_every_family_is_tested():
    assert set(FORMULAS) == set(FAMILIES) == set(FORMS)
    assert {case.split("-")[0] + "-" + case.split("-")[1] for case in CASES} == {
        f"{family}-{form.name}" for family, forms in FORMS.items() for form in forms
    }


@pytest.mark.parametrize("case", CASES)
def test_it_is_exact_over_the_whole_range(case):
    known, form, context = CASES[case]
    x = points()
    assert (np.diff(x) > 0).all()
    assert x[0] == -1e4
    assert x[-1] == 1e4
    found, wanted = in_onnx_runtime(known, form, context, x), formula(known, x)
    error = np.abs(found - wanted) / np.maximum(1, np.maximum(np.abs(x), np.abs(wanted)))
    assert error.max() <= 1e-6, (float(error.max()), float(x[error.max(axis=0).argmax()]))


def text(value):
    return "NaN" if np.isnan(value) else "+∞" if value == np.inf else "−∞" if value == -np.inf else f"{value:.4g}"


@pytest.mark.parametrize("case", CASES)
def test_deviations_at_special_values_are_listed(case):
    """Held against the family: all that the runtime gives instead is listed, and nothing else."""
    known, form, context = CASES[case]
    x = np.array([np.nan, np.inf, -np.inf], np.float32)
    found, wanted = in_onnx_runtime(known, form, context, x), np.broadcast_to(known(x), (CHANNELS, 3))
    real = {
        f"{name} gives {text(new)} instead of {text(old)}"
        for at, name in enumerate(("NaN", "+∞", "−∞"))
        for new, old in zip(found[:, at], wanted[:, at], strict=True)
        if text(new) != text(old)
    }
    listed = deviations(known, form, None)
    assert listed is not None, "the form is refused"
    assert set(listed) == real


def test_what_isnt_exact_is_refused():
    """With a scale this large the exponential's last digits show."""
    known = RecognisedActivation("elu", {"scale": np.array([300.0]), "alpha": np.ones(1)})
    blocked = next(form for form in FORMS["elu"] if form.name == "blocked")
    assert deviations(known, blocked, None) is None


def test_the_series_of_softplus_is_as_good_as_float32():
    z = np.linspace(1e-6, 1 / 3, 10_001)
    series = z * np.polyval(artanh_coefficients()[::-1], z * z)
    np.testing.assert_allclose(series, np.log((1 + z) / (1 - z)), atol=1e-7)
