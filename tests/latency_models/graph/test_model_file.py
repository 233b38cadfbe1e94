"""What is refused at the door: files that no runtime loads, each with one sentence."""

from collections.abc import Sequence

import onnx
import pytest
from onnx import TensorProto, helper

from latency_models.errors import InvalidModelError
from latency_models.graph.model_file import parse

OPSETS = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]


def calling(*callees: str) -> list[onnx.NodeProto]:
    """Nodes that call functions one after the other, from a to b."""
    names = ["a", *(f"t{at}" for at in range(len(callees) - 1)), "b"]
    return [helper.make_node(each, [names[at]], [names[at + 1]], domain="own") for at, each in enumerate(callees)]


def within_a_branch(callee: str) -> list[onnx.NodeProto]:
    branch = helper.make_graph(
        [helper.make_node(callee, ["a"], ["y"], domain="own")], "g", [], [helper.make_tensor_value_info("y", 1, [1])]
    )
    return [helper.make_node("If", ["a"], ["b"], then_branch=branch, else_branch=branch)]


def model(functions: dict[str, Sequence[onnx.NodeProto]]) -> bytes:
    made = [helper.make_function("own", name, ["a"], ["b"], nodes, OPSETS) for name, nodes in functions.items()]
    graph = helper.make_graph(
        [helper.make_node(next(iter(functions)), ["x"], ["y"], domain="own")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    return bytes(helper.make_model(graph, functions=made, opset_imports=OPSETS).SerializeToString())


RELU = [helper.make_node("Relu", ["a"], ["b"])]


@pytest.mark.parametrize(
    "functions",
    [
        {"F": calling("F")},
        {"F": calling("G"), "G": calling("F")},
        {"F": calling("G", "G"), "G": calling("H"), "H": calling("G")},
        {"F": within_a_branch("F")},
    ],
    ids=["itself", "each other", "further in", "within a branch"],
)
def test_functions_that_call_themselves(functions: dict[str, Sequence[onnx.NodeProto]]) -> None:
    with pytest.raises(InvalidModelError, match=r"its function '[FG]' calls itself"):
        parse(model(functions))


def test_functions_that_call_others() -> None:
    parsed = parse(model({"F": calling("G", "H"), "G": calling("H"), "H": RELU}))
    assert len(parsed.functions) == 3


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty"), (b"no model", "truncated"), (onnx.ModelProto(ir_version=8).SerializeToString(), "no graph")],
)
def test_what_is_no_model(content: bytes, words: str) -> None:
    with pytest.raises(InvalidModelError, match=words):
        parse(content)
