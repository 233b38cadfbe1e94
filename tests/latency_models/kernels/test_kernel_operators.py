"""The amounts of work of kernels, counted by hand."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from onnx import TensorProto

from latency_models.kernels.footprint import Footprint
from latency_models.kernels.operators import NotPredictableError, operators_of
from latency_models.kernels.optimised_graph import Kernel, OptimisedGraph, Value

if TYPE_CHECKING:
    from latency_models.predictors.operators import Operator

FLOAT, DOUBLE, HALF, INT64, UINT8 = (
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.FLOAT16,
    TensorProto.INT64,
    TensorProto.UINT8,
)
BLOCKED = "com.microsoft.nchwc"


def value(*dims: int, stored: bool = False, kind: int = FLOAT, name: str = "") -> Value:
    return Value(name or f"{'w' if stored else 'v'}{dims}{kind}", dims, kind, stored)


def kernel(
    op_type: str, inputs: list[Value | None], output: Value, *, domain: str = "", **attributes: object
) -> Kernel:
    return Kernel(op_type, domain, tuple(inputs), (output,), attributes)


def operators(*kernels: Kernel) -> list[Operator]:
    return operators_of(OptimisedGraph(kernels, 0))


def only(kind: str, *kernels: Kernel) -> Operator:
    (found,) = (operator for operator in operators(*kernels) if operator.kind == kind)
    return found


def kinds(*kernels: Kernel) -> list[str]:
    return [operator.kind for operator in operators(*kernels) if operator.kind not in ("kernel", "call")]


def gemm(rows: int, before: int, after: int, kind: int = FLOAT, name: str = "w") -> Kernel:
    weight = value(before, after, stored=True, kind=kind, name=f"{name}{before}x{after}")
    return kernel("Gemm", [value(rows, before, kind=kind), weight], value(rows, after, kind=kind))


def test_each_kernel_and_the_call_with_its_inputs_and_outputs_take_their_time() -> None:
    first = kernel("Tanh", [value(9, name="x")], value(9, name="y"))
    second = kernel("Relu", [value(9, name="y")], value(9, name="z"))
    found = operators(first, second)
    assert Counter(each.kind for each in found) == {"kernel": 2, "Tanh": 1, "Relu": 1, "call": 1}
    assert found[-1].work == (0.002,)


def test_a_product_counts_whole_vectors_of_columns() -> None:
    found = only("matrix", gemm(10, 100, 24))
    assert found.sizes == (10.0, 24.0, 100.0, 1.0)
    assert found.work[:4] == pytest.approx((10 * 100 * 32 / 1e6, 0.0024, 0.00024, 0.001))
    assert kinds(gemm(1, 100, 24)) == ["vector"]


def test_products_of_computed_values_are_counted_one_by_one() -> None:
    product = kernel("MatMul", [value(2, 3, 50, 16), value(2, 3, 16, 50)], value(2, 3, 50, 50))
    found = only("matrices", product)
    assert found.sizes == (50.0, 50.0, 16.0, 6.0)
    assert found.work[0] == pytest.approx(6 * 50 * 16 * 64 / 1e6)


def from_memory(found: list[Operator]) -> list[tuple[str, tuple[float, ...]]]:
    return [(each.kind, each.work) for each in found if each.kind.endswith("from memory")]


def test_weights_beyond_the_last_cache_come_from_memory() -> None:
    assert from_memory(operators(gemm(1, 256, 256))) == []
    ((kind, work),) = from_memory(operators(gemm(1, 8000, 8000)))
    assert kind == "vector from memory"
    assert work[-1] == pytest.approx(256.0, rel=0.01)
    ((kind, many),) = from_memory(operators(gemm(240, 8000, 8000)))
    assert kind == "matrix from memory"
    assert many[1] == pytest.approx(work[1] * (1 + 1 / 24) / (1 + 240 / 24), rel=0.01)


def test_weights_of_a_layer_come_from_memory_if_the_whole_network_is_large() -> None:
    ((_, alone),) = from_memory(operators(gemm(1, 1000, 1000)))
    assert alone[-1] < 0.01
    among = operators(gemm(1, 1000, 1000), *(gemm(1, 4000, 4000, name=name) for name in "abc"))
    assert [work[-1] for _, work in from_memory(among)] == pytest.approx([4.0, 64.0, 64.0, 64.0], rel=0.02)


@pytest.mark.parametrize(
    ("size", "domain", "reader"), [(3, BLOCKED, "windows"), (1, BLOCKED, "1x1"), (3, "", "matrix")]
)
def test_kernels_that_read_weights_in_other_orders_wait_differently(size: int, domain: str, reader: str) -> None:
    found = from_memory(operators(convolution(2, 2048, 2048, size, domain=domain)))
    assert [kind for kind, _ in found] == [f"{reader} from memory"]


def test_of_a_table_only_the_rows_that_are_looked_up_are_read() -> None:
    table = value(30_000, 256, stored=True)
    lookup = kernel("Gather", [table, value(1, 12, kind=INT64)], value(1, 12, 256))
    assert Footprint.of(OptimisedGraph((lookup,), table.n_bytes)).n_bytes < 50_000
    assert only("Gather", lookup).work[1] == pytest.approx(12 / 1e6)


def test_values_are_alive_from_their_kernel_to_their_last_reader() -> None:
    x, y, z = (value(1000, name=name) for name in "xyz")
    chain = (kernel("Tanh", [x], y), kernel("Relu", [y], z))
    assert Footprint.of(OptimisedGraph(chain, 0)).n_bytes == 8000
    both = (kernel("Tanh", [x], y), kernel("Add", [y, x], z))
    assert Footprint.of(OptimisedGraph(both, 0)).n_bytes == 12_000


@pytest.mark.parametrize(("number", "word"), [(FLOAT, ""), (DOUBLE, "float64 "), (HALF, "float16 ")])
def test_kinds_say_the_type_of_numbers(number: int, word: str) -> None:
    assert kinds(gemm(4, 8, 8, number)) == [f"{word}matrix"]
    assert kinds(kernel("Tanh", [value(99, kind=number)], value(99, kind=number))) == [f"{word}Tanh"]


def test_kernels_of_quantised_values_are_named_by_themselves() -> None:
    quantise = kernel("QuantizeLinear", [value(99), value(stored=True)], value(99, kind=UINT8))
    back = kernel("DequantizeLinear", [value(99, kind=UINT8), value(stored=True)], value(99))
    assert kinds(quantise, back) == ["QuantizeLinear", "DequantizeLinear"]
    sixteen = kernel("QuantizeLinear", [value(99), value(stored=True)], value(99, kind=TensorProto.UINT16))
    assert kinds(sixteen) == ["uint16 QuantizeLinear"]


def test_conversions_name_both_types() -> None:
    assert kinds(kernel("Cast", [value(99, kind=HALF)], value(99))) == ["Cast float16 to float32"]


def test_a_few_integers_are_bookkeeping_and_many_are_work() -> None:
    assert kinds(kernel("Add", [value(2, kind=INT64), value(2, kind=INT64)], value(2, kind=INT64))) == ["few integers"]
    assert kinds(kernel("Add", [value(99, kind=INT64), value(99, kind=INT64)], value(99, kind=INT64))) == ["int64 Add"]


@pytest.mark.parametrize(
    ("other", "kind", "run"),
    [
        ((4, 8, 6, 6), "Add", None),
        ((1,), "Add number", None),
        ((8, 1, 1), "Add channels", 36),
        ((6,), "Add channels", 6),
        ((1, 8, 6, 6), "Add channels", 8 * 36),
        ((4, 1, 1, 1), "Add channels", 8 * 36),
    ],
)
def test_repeated_operands_are_read_in_runs(other: tuple[int, ...], kind: str, run: int | None) -> None:
    found = only(kind, kernel("Add", [value(4, 8, 6, 6), value(*other, stored=True)], value(4, 8, 6, 6)))
    assert found.sizes[1:] == (() if run is None else (run,))


@pytest.mark.parametrize(
    ("perm", "kind"),
    [
        ((0, 2, 1, 3), "runs"),
        ((0, 3, 1, 2), "Transpose one"),
        ((0, 3, 2, 1), "Transpose"),
        ((1, 0, 2, 3), "view"),
    ],
)
def test_transpositions_differ_by_what_stays_together(perm: tuple[int, ...], kind: str) -> None:
    dims = (1, 5, 6, 7)
    found = kinds(kernel("Transpose", [value(*dims)], value(*(dims[axis] for axis in perm)), perm=list(perm)))
    assert found == [kind]


def test_a_recurrent_layer_multiplies_inputs_and_states() -> None:
    weights = [value(2, 512, width, stored=True) for width in (40, 128)]
    lstm = kernel("LSTM", [value(50, 1, 40), *weights], value(50, 2, 1, 128))
    found = only("LSTM", lstm)
    assert found.work[:3] == pytest.approx((2 * 50 * 512 * 40 / 1e6, 2 * 50 * 512 * 128 / 1e6, 0.1))
    assert found.sizes == (50.0, 40.0, 128.0, 1.0)


def test_an_einstein_sum_multiplies_once_for_each_value_of_its_letters() -> None:
    found = only(
        "Einsum",
        kernel("Einsum", [value(2, 3, 7, 5), value(2, 3, 9, 5)], value(2, 3, 7, 9), equation=b"bhik, bhjk -> bhij"),
    )
    assert found.work[0] == pytest.approx(2 * 3 * 7 * 9 * 5 / 1e6)
    dots = kernel("Einsum", [value(2, 3, 7, 5), value(5, 4)], value(2, 3, 7, 4), equation=b"...k,kj->...j")
    assert only("Einsum", dots).work[0] == pytest.approx(2 * 3 * 7 * 5 * 4 / 1e6)


def test_attention_is_its_products_and_a_softmax() -> None:
    q, k = value(1, 4, 10, 8, name="q"), value(1, 4, 12, 8, name="k")
    v, out = value(1, 4, 12, 8, name="v"), value(1, 4, 10, 8)
    attention = kernel("Attention", [q, k, v], out)
    assert kinds(attention) == ["matrices", "matrices", "Softmax", "Attention"]
    scores, mixed, *_ = (each for each in operators(attention) if each.kind == "matrices")
    assert scores.sizes == (10.0, 12.0, 8.0, 4.0)
    assert mixed.sizes == (10.0, 8.0, 12.0, 4.0)


def convolution(side: int, before: int, after: int, size: int, group: int = 1, domain: str = BLOCKED) -> Kernel:
    pad = size // 2
    weight = value(after, before // group, size, size, stored=True)
    attributes = {"group": group, "pads": [pad] * 4, "strides": [1, 1]}
    x, y = value(1, before, side, side), value(1, after, side, side)
    return kernel("Conv", [x, weight], y, domain=domain, **attributes)


def test_a_convolution_counts_the_products_inside_of_the_map() -> None:
    found = only("conv", convolution(4, 16, 16, 3))
    assert found.work[0] == pytest.approx(16 * 16 * 100 / 1e6)  # 10² of the 12² places of the window lie inside


def test_neighbours_are_computed_together_except_at_the_edges() -> None:
    inside = only("conv", convolution(14, 16, 16, 3)).work[4] / (16 * 9 * (40 / 42) ** 2 / 1e6)
    assert inside == pytest.approx(14 * (2 + 2))  # a row: one alone at each edge, two times six
    whole = only("1x1", convolution(6, 16, 16, 1)).work[4] / (16 / 1e6)
    assert whole == pytest.approx(6)  # 36 places in a row


def test_grouped_and_depthwise_convolutions_are_kinds_of_their_own() -> None:
    assert kinds(convolution(8, 32, 32, 3, group=32)) == ["depthwise"]
    assert kinds(convolution(8, 32, 32, 3, group=2)) == ["grouped"]
    assert kinds(convolution(8, 32, 32, 3, group=4, domain="")) == ["plain grouped"]


def test_values_without_elements_have_no_work() -> None:
    empty = kernel("Concat", [value(1, 0, 16), value(1, 8, 16)], value(1, 8, 16), axis=1)
    none = kernel("Tanh", [value(1, 0, 16)], value(1, 0, 16))
    product = kernel("MatMul", [value(1, 0, 16), value(1, 16, 4)], value(1, 0, 4))
    for found in operators(empty, none, product, gemm(0, 4, 4)):
        assert all(np.isfinite(np.log(size)) for size in found.sizes)
        assert all(amount >= 0 for amount in found.work)


@pytest.mark.parametrize("op_type", ["NonMaxSuppression", "Frobnicate"])
def test_unknown_kernels_with_weights_are_refused(op_type: str) -> None:
    stranger = kernel(op_type, [value(1, 64), value(64, 64, stored=True)], value(1, 64))
    with pytest.raises(NotPredictableError, match=op_type):
        operators(stranger)


def test_kernels_of_what_is_no_tensor_are_refused() -> None:
    for stranger in (Kernel("SequenceEmpty", "", (), (), {}), kernel("MatMul", [value(4, 4), None], value(4, 4))):
        with pytest.raises(NotPredictableError, match=stranger.op_type):
            operators(stranger)


ASYMMETRIC = {"coordinate_transformation_mode": b"asymmetric", "nearest_mode": b"floor"}


@pytest.mark.parametrize(
    ("kind", "output", "attributes"),
    [
        ("Resize nearest doubled", value(1, 4, 6, 6), ASYMMETRIC),
        ("Resize nearest", value(1, 4, 9, 9), ASYMMETRIC),
        ("Resize nearest", value(1, 4, 6, 6), {}),
        ("Resize nearest", value(1, 4, 6, 6), {**ASYMMETRIC, "nearest_mode": b"ceil"}),
        ("Resize linear", value(1, 4, 6, 6), {"mode": b"linear"}),
        ("Resize cubic antialiased", value(1, 4, 6, 6), {"mode": b"cubic", "antialias": 1}),
    ],
)
def test_maps_are_resized_by_their_way_and_growth(kind: str, output: Value, attributes: dict[str, object]) -> None:
    node = kernel("Resize", [value(1, 4, 3, 3), None, None, value(4, stored=True)], output, **attributes)
    assert only(kind, node).sizes == (output.elements, output.elements / 36)


@pytest.mark.parametrize(("op_type", "inputs"), [("Upsample", 1), ("Resize", 2)])
def test_older_operators_only_repeat_values(op_type: str, inputs: int) -> None:
    given = [value(1, 4, 3, 3), value(4, stored=True)][:inputs]
    assert kinds(kernel(op_type, given, value(1, 4, 6, 6))) == ["Resize nearest doubled"]


def test_a_transposed_convolution_sums_its_products_into_the_output() -> None:
    node = kernel("ConvTranspose", [value(1, 8, 5, 5), value(8, 6, 3, 3, stored=True)], value(1, 6, 11, 11))
    found = only("ConvTranspose", node)
    assert found.sizes == (8, 6, 5, 3)
    assert found.work == pytest.approx([25 * 8 * 6 * 9 / 1e6, 25 * 6 * 9 / 1e6, 200 / 1e6, 726 / 1e6])


def test_grouped_transposed_convolutions_are_counted_by_group() -> None:
    node = kernel("ConvTranspose", [value(1, 8, 5, 5), value(8, 3, 3, 3, stored=True)], value(1, 6, 11, 11), group=2)
    assert only("ConvTranspose", node).work[0] == pytest.approx(25 * 8 * 3 * 9 / 1e6)
