import numpy as np
import pytest

from pipeline.spaces.base import ArchitectureError
from pipeline.spaces.nasbench201_features import FEATURE_GROUPS, OPERATORS, features, parse

_SHORT = {"0": "none", "s": "skip_connect", "1": "nor_conv_1x1", "3": "nor_conv_3x3", "p": "avg_pool_3x3"}


def written(cell: str) -> str:
    """`3|1s|0p3`: one letter for each edge → the benchmark's own string."""
    nodes = [
        "|" + "|".join(f"{_SHORT[letter]}~{source}" for source, letter in enumerate(node)) + "|"
        for node in cell.split("|")
    ]
    return "+".join(nodes)


def group(cell: str, name: str) -> list[float]:
    ends = np.cumsum([group.columns for group in FEATURE_GROUPS])
    at = [group.name for group in FEATURE_GROUPS].index(name)
    row = features([parse(written(cell))])[0]
    return list(row[ends[at] - FEATURE_GROUPS[at].columns : ends[at]])


def test_a_cell_is_read_edge_by_edge() -> None:
    text = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|none~0|nor_conv_3x3~1|skip_connect~2|"
    assert [OPERATORS[index] for index in parse(text)] == [
        "avg_pool_3x3",
        "nor_conv_1x1",
        "skip_connect",
        "none",
        "nor_conv_3x3",
        "skip_connect",
    ]
    assert written("p|1s|03s") == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no NAS-Bench-201 cell"),
        ("|none~0|+|none~0|none~1|", "no NAS-Bench-201 cell"),
        (written("0|00|000").replace("~2", "~1"), "no NAS-Bench-201 cell"),
        (written("0|00|000").replace("none~2", "conv~2"), "unknown operator 'conv'"),
    ],
)
def test_what_is_no_cell_is_refused(text: str, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message):
        parse(text)


def test_as_many_columns_as_the_groups_say() -> None:
    found = features([parse(written("3|1s|0p3")), parse(written("0|00|000"))])
    assert found.shape == (2, sum(group.columns for group in FEATURE_GROUPS))
    # Nothing leads through the second cell.
    assert not found[1].any()


def test_operators_that_nothing_uses_are_not_used() -> None:
    # skip, 1×1, 3×3, pool. The 3×3 into node 2 and the 1×1 from node 1 to it end there: node 2 leads nowhere.
    assert group("s|31|1p0", "operators") == [1, 2, 1, 1]
    assert group("s|31|1p0", "used operators") == [1, 1, 0, 1, 1]
    # Node 2 has two summands, so that no convolution takes up the zeros.
    assert group("s|31|1p0", "kept operators") == [1, 1, 0, 1, 1]


def test_a_convolution_alone_before_zeros_is_kept_with_what_leads_to_it() -> None:
    # Node 2 is the 3×3 of node 1, which is a pooling of the input; only the direct skip is used.
    assert group("p|03|s00", "used operators") == [1, 0, 0, 0, 1]
    assert group("p|03|s00", "kept operators") == [1, 0, 1, 1, 1]
    # Node 1 is zero: its skip into node 2 is no summand, a pooling of it would be one.
    assert group("0|3s|s00", "kept operators") == [1, 0, 1, 0, 1]
    assert group("0|3p|s00", "kept operators") == [1, 0, 0, 0, 1]
    # Something other than `none` follows node 1, if to no use: its convolution goes.
    assert group("3|ss|s00", "kept operators") == [1, 0, 0, 0, 1]


def test_a_cell_without_a_path_has_no_used_operators() -> None:
    # The last edge is used, but node 2 is zero.
    assert group("3|00|001", "operators") == [0, 1, 1, 0]
    assert group("3|00|001", "used operators") == [0, 0, 0, 0, 0]
    assert group("3|00|001", "shape") == [0] * 16
    # The 3×3 takes the zeros up and runs on the input; the one of zeros that leads to the output gives a constant.
    assert group("3|00|001", "kept operators") == [0, 0, 1, 0, 0]
    assert group("0|03|001", "kept operators") == [0, 0, 0, 0, 0]


def test_edges_are_one_hot_by_operator() -> None:
    found = np.reshape(group("s|10|0p3", "edges"), (4, 6))
    assert np.argwhere(found).tolist() == [[0, 0], [1, 1], [2, 5], [3, 4]]
    # Without the edge from node 1, the skip that feeds it isn't used either.
    found = np.reshape(group("s|10|003", "used edges"), (4, 6))
    assert np.argwhere(found).tolist() == [[1, 1], [2, 5]]


def test_shape_by_hand() -> None:
    # 0→1 3×3, 0→2 3×3, 1→2 1×1, 0→3 skip, 1→3 pool, 2→3 1×1.
    assert group("3|31|sp1", "shape") == [
        *(3, 3, 4),  # 0→1→2→3 has three convolutions on three edges; paths 03, 013, 023, 0123
        *(2, 1, 1),  # convolutions out of nodes 0, 1, 2
        *(1, 0),  # a second convolution out of node 0; no second pooling anywhere
        *(0, 1, 2),  # additions at nodes 1, 2, 3
        *(1, 1, 1),  # all nodes used
        *(3, 1),  # each node has a convolution leading to it; connected
    ]


def test_equal_work_reads_the_same_but_for_what_is_never_used() -> None:
    """Two cells that differ only in an edge into a node that leads nowhere."""
    for name in ("used operators", "used edges", "shape"):
        assert group("3|s0|330", name) == group("3|10|330", name)
    assert group("3|s0|330", "operators") != group("3|10|330", "operators")
