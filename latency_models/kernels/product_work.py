"""The work of matrix products, and of attention, which consists of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from latency_models.kernels.element_types import is_eight_bits, type_word
from latency_models.kernels.footprint import MATRIX, VECTOR
from latency_models.kernels.kernel_values import given, positive
from latency_models.predictors.operators import BLOCK, Operator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from latency_models.kernels.footprint import Footprint
    from latency_models.kernels.kernel_values import Rule
    from latency_models.kernels.optimised_graph import Kernel


def product(kind: str, batch: int, rows: int, depth: int, columns: int, *, stored: bool = False) -> Operator:
    """`batch` products of (rows, depth) by (depth, columns) numbers.

    The second factor is `stored`, and packed into the order of its reading beforehand; or else it is packed each time.
    """
    kind += "vector" if batch * rows == 1 else "matrix" if stored else "matrices"
    macs = batch * rows * depth * BLOCK * math.ceil(columns / BLOCK) / 1e6
    amounts = (macs, batch * depth * columns / 1e6, batch * rows * columns / 1e6, batch * rows * depth / 1e6)
    return Operator(kind, tuple(map(positive, (rows, columns, depth, batch))), (*amounts, batch * 1e-3))


def _product(weight_at: int) -> Rule:
    """A rule for matrix products: with a stored matrix, packed beforehand, or of two computed ones."""

    def rule(kernel: Kernel, footprint: Footprint) -> Iterable[Operator]:
        others, out = given(kernel, weight_at), kernel.outputs[0]
        columns = out.dims[-1] if out.dims else 1
        depth = others.elements // max(1, math.prod(others.dims[:-2])) // max(1, columns)
        single = len(others.dims) <= 2  # then all rows of a batch are one matrix
        batch = 1 if single else max(1, math.prod(out.dims[:-2]))
        rows = out.elements // max(1, columns * batch)
        prefix = "int8 " if is_eight_bits(others) else type_word(kernel)
        yield product(prefix, batch, rows, depth, columns, stored=others.stored)
        if others.stored:
            yield from footprint.waited(VECTOR if rows == 1 else MATRIX, others.n_bytes, rows)
        activation = kernel.attributes.get("activation")
        if activation is not None:
            yield Operator(f"then {activation.decode()}", (positive(out.elements),), (out.elements / 1e6,))

    return rule


def _einsum(kernel: Kernel, footprint: Footprint) -> Iterable[Operator]:
    """A sum over the products of two values: as many multiplications as its letters have values together."""
    equation = kernel.attributes["equation"].decode().replace(" ", "")
    sizes = _letters(kernel, equation)
    macs = math.prod(sizes.values()) if len(kernel.inputs) > 1 else 0
    elements = sum(value.elements for value in (*kernel.inputs, *kernel.outputs) if value is not None)
    depth = macs / max(1, kernel.outputs[0].elements)
    work = (macs / 1e6, elements / 1e6)
    yield Operator(f"{type_word(kernel)}Einsum", (positive(depth), positive(elements)), work)


def _letters(kernel: Kernel, equation: str) -> dict[str, int]:
    """The size of each letter of an equation; an ellipsis' sizes count as one letter's."""
    sizes: dict[str, int] = {}
    for term, value in zip(equation.split("->")[0].split(","), kernel.inputs, strict=True):
        if value is None:
            continue
        before, dots, after = term.partition("...")
        tail = len(value.dims) - len(after)
        pairs = [*zip(before, value.dims, strict=False), *zip(after, value.dims[tail:], strict=False)]
        if dots:
            pairs.append(("...", math.prod(value.dims[len(before) : tail])))
        for letter, size in pairs:
            sizes[letter] = max(size, sizes.get(letter, 1))
    return sizes


def _attention(kernel: Kernel, footprint: Footprint) -> Iterable[Operator]:
    """Attention of any form: products of queries with keys, a softmax, products with values.

    The queries are (batch, tokens, width) or (batch, heads, tokens, width of a head). The form with a projection in it
    has a stored matrix as its second input.
    """
    word, queries, out = type_word(kernel), given(kernel, 0), kernel.outputs[0]
    tokens, width = queries.dims[-2], out.dims[-1] * (out.dims[1] if len(out.dims) == 4 else 1)
    batch = queries.dims[0]
    heads = queries.dims[1] if len(queries.dims) == 4 else _heads(kernel)
    keys = kernel.inputs[1]
    others = keys.dims[-2] if keys is not None and not keys.stored else tokens
    if keys is not None and keys.stored and len(keys.dims) == 2:
        others = tokens
        yield product(word, 1, batch * tokens, keys.dims[0], keys.dims[1], stored=True)
        yield from footprint.waited(MATRIX, keys.n_bytes, batch * tokens)
    size = max(1, width // max(1, heads))
    yield product(word, batch * heads, tokens, size, others)
    yield product(word, batch * heads, tokens, others, size)
    rows = batch * heads * tokens
    yield Operator(f"{word}Softmax", (positive(rows), positive(others)), (rows * others / 1e6, rows / 1e6))
    yield Operator(f"{word}{kernel.op_type}", (positive(out.elements),), (out.elements / 1e6,))


def _heads(kernel: Kernel) -> int:
    for name in ("num_heads", "q_num_heads"):
        if name in kernel.attributes:
            return max(1, int(kernel.attributes[name]))
    return 1


def _few_bits(kernel: Kernel, footprint: Footprint) -> Iterable[Operator]:
    """A product with weights of a few bits, which are unpacked as they are read."""
    depth, columns = int(kernel.attributes["K"]), int(kernel.attributes["N"])
    rows = kernel.outputs[0].elements // max(1, columns)
    bits = int(kernel.attributes.get("bits", 4))
    amounts = (rows * depth * columns / 1e6, depth * columns / 1e6, rows * columns / 1e6, rows * depth / 1e6)
    kind = f"{type_word(kernel)}{bits} bits {'vector' if rows == 1 else 'matrix'}"
    yield Operator(kind, tuple(map(positive, (rows, columns, depth))), amounts)
    yield from footprint.waited(VECTOR if rows == 1 else MATRIX, given(kernel, 1).n_bytes, rows)


RULES: dict[str, Rule] = {
    name: rule
    for names, rule in (
        ("Gemm FusedGemm MatMul FusedMatMul MatMulInteger DynamicQuantizeMatMul MatMulIntegerToFloat", _product(1)),
        ("QGemm QLinearMatMul", _product(3)),
        ("Einsum", _einsum),
        ("Attention MultiHeadAttention", _attention),
        ("MatMulNBits", _few_bits),
    )
    for name in names.split()
}
"""Operator type → its rule."""
