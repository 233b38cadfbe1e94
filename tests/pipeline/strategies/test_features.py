"""Architectures as codes and as features, of any space."""

from typing import Any

import numpy as np
import pytest

from helpers.driven import Choices, deep, flat, huge
from pipeline.config.space import NasBench201Options, TableSpaceOptions
from pipeline.spaces.base import Choice, SearchSpace, architecture_id
from pipeline.spaces.nasbench201 import NasBench201Space
from pipeline.spaces.nasbench201_features import parse
from pipeline.spaces.nasbench201_paths import PATHS, path_features
from pipeline.spaces.tabular import TabularSpace
from pipeline.strategies.features import Featurizer
from pipeline.strategies.integer_codes import IntegerEncoder, keys

SPACES = {"conditional": deep(), "flat": flat(4, 3), "single": Choices(Choice("only", ("one",)))}


@pytest.fixture(params=list(SPACES))
def space(request: pytest.FixtureRequest) -> SearchSpace:
    return SPACES[request.param]


def squared_distance(featurizer: Featurizer, encoder: IntegerEncoder, *architectures: dict[str, Any]) -> float:
    first, second = featurizer.features(encoder.encode(architectures)).x
    return float(((first - second) ** 2).sum())


class TestCoding:
    def test_every_architecture_in_the_order_of_ranks(self, space: SearchSpace) -> None:
        encoder = IntegerEncoder(space.choices)
        assert encoder.decode(encoder.every()) == list(space.architectures())

    def test_codes_and_back(self, space: SearchSpace) -> None:
        encoder = IntegerEncoder(space.choices)
        codes = encoder.every()
        assert (encoder.encode(encoder.decode(codes)) == codes).all()
        assert len(set(keys(codes))) == space.size()

    def test_equal_values_of_different_types_are_different(self) -> None:
        encoder = IntegerEncoder(Choices(Choice("a", (1, True, 1.0)), Choice("b", (2,), (("a", (True,)),))).choices)
        found = encoder.decode(encoder.every())
        assert [[type(value) for value in each.values()] for each in found] == [[int], [bool, int], [float]]
        assert encoder.encode(found)[:, 0].tolist() == [0, 1, 2]

    @pytest.mark.parametrize("name", ["deep", "huge"])
    def test_draws_and_mutants_are_canonical(self, name: str) -> None:
        made = {"deep": deep, "huge": huge}[name]()
        encoder = IntegerEncoder(made.choices)
        drawn = encoder.sample(200, np.random.default_rng(0))
        children = encoder.mutate(drawn, np.full(200, 3), np.random.default_rng(1))
        for each in encoder.decode(np.vstack([drawn, children])):
            assert made.canonical(each) == each

    def test_a_mutant_makes_one_active_choice_otherwise(self) -> None:
        space = deep()
        encoder = IntegerEncoder(space.choices)
        parents = encoder.sample(300, np.random.default_rng(0))
        children = encoder.mutate(parents, np.ones(300, dtype=np.int64), np.random.default_rng(1))
        pairs = zip(encoder.decode(parents), encoder.decode(children), strict=True)
        changed = [[k for k in set(old) & set(new) if old[k] != new[k]] for old, new in pairs]
        assert all(len(labels) == 1 for labels in changed)
        assert len({labels[0] for labels in changed}) == len(space.choices)
        unchanged = encoder.mutate(parents, np.zeros(300, dtype=np.int64), np.random.default_rng(1))
        assert (unchanged == parents).all()

    def test_where_nothing_can_be_otherwise_nothing_is(self) -> None:
        encoder = IntegerEncoder(SPACES["single"].choices)
        codes = encoder.every()
        assert (encoder.mutate(codes, np.array([2]), np.random.default_rng(0)) == codes).all()


class TestGenericEncoder:
    def test_different_architectures_are_different_features(self, space: SearchSpace) -> None:
        encoder = IntegerEncoder(space.choices)
        codes = encoder.every()
        features = Featurizer(space, encoder, codes).features(codes)
        assert len(np.unique(features.x, axis=0)) == space.size()
        assert np.isfinite(features.linear).all()

    def test_a_point_depends_on_its_architecture_alone(self, space: SearchSpace) -> None:
        encoder = IntegerEncoder(space.choices)
        codes = encoder.every()
        featurizer = Featurizer(space, encoder, codes)
        whole = featurizer.features(codes)
        for row in (0, len(codes) - 1):
            alone = featurizer.features(codes[row : row + 1])
            assert (alone.x[0] == whole.x[row]).all()
            assert (alone.linear[0] == whole.linear[row]).all()

    def test_near_quantities_are_nearer_but_names_are_not(self) -> None:
        choices = (Choice("width", (8, 16, 32)), Choice("kind", ("a", "b", "c")))
        space = Choices(*choices)
        encoder = IntegerEncoder(choices)
        featurizer = Featurizer(space, encoder, encoder.every())
        base = {"width": 8, "kind": "a"}
        near, far = ({**base, "width": width} for width in (16, 32))
        assert squared_distance(featurizer, encoder, base, near) < squared_distance(featurizer, encoder, base, far)
        one, other = ({**base, "kind": kind} for kind in "bc")
        assert squared_distance(featurizer, encoder, base, one) == squared_distance(featurizer, encoder, base, other)

    def test_numbers_of_a_table_are_names(self) -> None:
        options = TableSpaceOptions(name="table", choices=2, alternatives=[0, 1, 2])
        space = TabularSpace(options, (3, 32, 32), 10)
        encoder = IntegerEncoder(space.choices)
        featurizer = Featurizer(space, encoder, encoder.every())
        at = [{"choice_0": 0, "choice_1": value} for value in (0, 1, 2)]
        distances = [squared_distance(featurizer, encoder, at[0], other) for other in at[1:]]
        assert distances[0] == distances[1]

    def test_what_blocks_share_is_counted_wherever_they_are(self) -> None:
        """Architectures with the same counts are nearer than such with as many differences but other counts."""
        space = flat(4, 3)
        encoder = IntegerEncoder(space.choices)
        featurizer = Featurizer(space, encoder, encoder.every())
        base = {"c0": 0, "c1": 1, "c2": 2, "c3": 2}
        swapped, other = {**base, "c0": 1, "c1": 0}, {**base, "c0": 2, "c1": 2}
        assert squared_distance(featurizer, encoder, base, swapped) < squared_distance(featurizer, encoder, base, other)
        assert featurizer.sizes == (4 * 2, 3) or featurizer.sizes == (4 * 3, 3)

    def test_spread_of_many_choices_stays_of_order_one(self) -> None:
        space = huge()
        encoder = IntegerEncoder(space.choices)
        codes = encoder.sample(500, np.random.default_rng(0))
        featurizer = Featurizer(space, encoder, codes)
        x = featurizer.features(codes).x
        ends = np.cumsum(featurizer.sizes)[:-1]
        for group in np.split(x, ends, axis=1):
            assert 2 * group.var(axis=0).sum() < 6.001

    def test_the_linear_parts_inputs_are_standardised(self) -> None:
        space = flat()
        encoder = IntegerEncoder(space.choices)
        codes = encoder.every()
        linear = Featurizer(space, encoder, codes).features(codes).linear
        assert np.abs(linear[:, :-1].mean(axis=0)).max() < 1e-4
        assert (linear[:, :-1] ** 2).sum(axis=1).mean() == pytest.approx(1, rel=1e-4)


class TestNasBench201:
    def test_paths_by_hand(self) -> None:
        """Edges 0→1, 0→2, 1→2, 0→3, 1→3, 2→3."""
        assert sorted(PATHS) == [(0, 2, 5), (0, 4), (1, 5), (3,)]
        conv, pool = "nor_conv_3x3", "avg_pool_3x3"
        cell = parse(f"|{conv}~0|+|none~0|skip_connect~1|+|{pool}~0|none~1|{conv}~2|")
        edges, sums, most, shape = path_features([cell])
        # Live are 0→1→2→3 with two convolutions and a skip, and 0→3 with pooling; columns: skip, 1×1, 3×3, pool, any.
        assert (2 * sums).tolist() == [[1, 0, 2, 1, 2]]
        assert (2 * most).tolist() == [[1, 0, 2, 1, 1]]
        assert shape.tolist() == [[2, 3, 2]]
        assert np.count_nonzero(edges) == 6

    def test_what_nothing_uses_makes_no_difference(self) -> None:
        first, second = (
            parse(f"|{op}~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|") for op in ("none", "nor_conv_1x1")
        )
        for one, other in zip(path_features([first])[:3], path_features([second])[:3], strict=True):
            assert (one == other).all()

    def test_a_surrogate_sees_paths_and_activations(self) -> None:
        alone, several = (
            NasBench201Space(NasBench201Options(name="nasbench201", activations=names), (3, 32, 32), 10)
            for names in (["relu"], ["relu", "silu"])
        )
        for space, groups in ((alone, 4), (several, 5)):
            encoder = IntegerEncoder(space.choices)
            codes = encoder.sample(50, np.random.default_rng(0))
            assert len(Featurizer(space, encoder, codes).sizes) == groups
        relu, silu = ({**several.at(7777 * 2), "activation": name} for name in ("relu", "silu"))
        told = several.features([relu, silu])
        assert [bool((group[0] == group[1]).all()) for group in told] == [True] * 4 + [False]


def test_ids_tell_what_keys_tell() -> None:
    encoder = IntegerEncoder(deep().choices)
    drawn = encoder.sample(300, np.random.default_rng(0))
    ids = [architecture_id(each) for each in encoder.decode(drawn)]
    assert len(set(ids)) == len(set(keys(drawn))) < 300
