"""A space's cost model: what it learns, its file, and each way in which a file is refused."""

import json
import os
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latency_models.devices.device import Device
from latency_models.devices.environment import Environment, capture
from latency_models.predictors.feature_model import MINIMUM
from latency_models.predictors.operator_model import Observation, OperatorModel
from latency_models.predictors.operators import Operator
from latency_models.predictors.prediction import Prediction
from pipeline.config.file import parse_config
from pipeline.config.run import RunConfig
from pipeline.costs.latency_predictor import (
    BlockwisePredictor,
    FeaturePredictor,
    LatencyPredictor,
    predictor_for,
    relative_noise,
)
from pipeline.costs.predictor_file import CostModelError, DamagedCostModelError, Scope, identity_of, read, save
from pipeline.data import DataSet, load_data
from pipeline.spaces.base import Architecture, Value, architecture_id
from pipeline.spaces.convnet import ConvNetSpace

NOISE = 0.005


class WholeSpace(ConvNetSpace):
    """The same networks, whose blocks nobody tells."""

    def blocks(self, architecture: Mapping[str, Value]) -> None:  # type: ignore[override]
        return None


def config_of(**space: Any) -> RunConfig:
    sections = {"data": {"name": "digits"}, "space": {"name": "convnet", "width": 8, "depths": [1, 2], **space}}
    return parse_config(sections, "the test's config")


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return config_of()


@pytest.fixture(scope="module")
def data(config: RunConfig) -> DataSet:
    return load_data(config.data)


@pytest.fixture(scope="module")
def space(config: RunConfig, data: DataSet) -> ConvNetSpace:
    return ConvNetSpace(config.space, data.input_shape, len(data.classes))


@pytest.fixture(scope="module")
def whole_space(config: RunConfig, data: DataSet) -> WholeSpace:
    return WholeSpace(config.space, data.input_shape, len(data.classes))


@pytest.fixture(scope="module")
def environment() -> Environment:
    return capture(Device())


def drawn(space: ConvNetSpace, count: int, seed: int = 0) -> list[Architecture]:
    rng = random.Random(seed)
    return [space.at(rng.randrange(space.size())) for _ in range(count)]


def operator_ms(operator: Operator) -> float:
    """A time that is about proportional to the work; activations differ."""
    return 0.0005 + 1e-7 * sum(operator.work) * (1 + 0.2 * (len(operator.kind) % 3))


def true_ms(space: ConvNetSpace, architecture: Architecture) -> float:
    blocks = ConvNetSpace.blocks(space, architecture)
    return sum(operator_ms(operator) for block in blocks for operator in block.operators)


def counted_of(space: ConvNetSpace, architecture: Architecture) -> dict[str, float]:
    """Counts that suit the space's features; only their names and sizes matter here."""
    work = [sum(operator.work) for block in ConvNetSpace.blocks(space, architecture) for operator in block.operators]
    return {"macs": sum(work), "params": float(len(work)), "size_mb": len(work) / 50, "peak_memory_mb": max(work) / 1e5}


def taught(model: LatencyPredictor, space: ConvNetSpace, nets: int, seed: int = 0) -> LatencyPredictor:
    rng = np.random.default_rng(seed)
    for architecture in drawn(space, nets, seed):
        ms = true_ms(space, architecture) * float(np.exp(NOISE * rng.standard_normal()))
        model.observe(architecture, counted_of(space, architecture), ms, NOISE)
    return model


def probes_of(space: ConvNetSpace, count: int) -> list[Observation]:
    found = []
    for at, architecture in enumerate(drawn(space, count, seed=9)):
        blocks = space.blocks(architecture)
        start = at % (len(blocks) - 1)
        operators = space.chain(blocks[start : start + 2]).operators
        found.append(Observation(operators, sum(map(operator_ms, operators)), NOISE))
    return found


def off(model: LatencyPredictor, space: ConvNetSpace) -> np.ndarray:
    found = []
    for architecture in drawn(space, 40, seed=5):
        prediction = model.predict(architecture, counted_of(space, architecture))
        assert isinstance(prediction, Prediction)
        assert prediction.low_ms <= prediction.latency_ms <= prediction.high_ms
        found.append(prediction.latency_ms / true_ms(space, architecture) - 1)
    return np.abs(found)


class TestPieces:
    def test_are_what_a_space_that_tells_them_is_predicted_from(self, space: ConvNetSpace) -> None:
        model = predictor_for(space)
        assert isinstance(model, BlockwisePredictor)
        architecture = space.at(0)
        operators = [operator for block in space.blocks(architecture) for operator in block.operators]
        assert sorted(map(str, model.operators(architecture)[1:])) == sorted(map(str, operators))
        assert model.operators(architecture)[0].kind == "call"

    def test_nothing_is_predicted_from_too_few_networks(self, space: ConvNetSpace) -> None:
        model = taught(BlockwisePredictor(space), space, BlockwisePredictor.least_nets - 1)
        assert model.predict(space.at(0), {}) is None
        taught(model, space, 1, seed=3)
        assert model.predict(space.at(0), {}) is not None
        assert model.description == "operators: 0 timed probes, 12 whole networks"

    def test_probes_alone_suffice(self, space: ConvNetSpace) -> None:
        model = BlockwisePredictor(space)
        model.observe_probes(probes_of(space, 60))
        assert model.description == "operators: 60 timed probes, 0 whole networks"
        assert model.held_out().shape == (60,)
        assert np.median(np.abs(model.held_out())) < 0.05
        before = off(model, space).mean()
        taught(model, space, 5)
        assert model.held_out().shape == (60,)
        assert off(model, space).mean() < min(0.03, before)

    def test_the_same_observations_are_fitted_once(self, space: ConvNetSpace, monkeypatch: pytest.MonkeyPatch) -> None:
        fitted = []
        fit = OperatorModel.fit

        def spied(observations: Any, hyper: Any = None) -> OperatorModel:
            fitted.append(len(observations))
            return fit(observations, hyper)

        monkeypatch.setattr(OperatorModel, "fit", spied)
        model = BlockwisePredictor(space)
        model.observe_probes(probes_of(space, 30))
        for _ in range(2):
            assert model.predict(space.at(0), {}) is not None
            assert model.held_out() is not None
            assert len(model.as_dict()["observations"]) == 30
        assert fitted == [30]
        taught(model, space, 1)
        assert len(model.as_dict()["observations"]) == 31
        assert model.held_out() is not None
        assert fitted == [30, 31]

    def test_networks_alone_suffice_once_there_are_many(self, space: ConvNetSpace) -> None:
        few, many = (off(taught(BlockwisePredictor(space), space, nets), space).mean() for nets in (12, 60))
        assert many < 0.03
        assert many < few


class TestFeatures:
    def test_are_what_any_other_space_is_predicted_from(self, whole_space: WholeSpace) -> None:
        model = predictor_for(whole_space)
        assert isinstance(model, FeaturePredictor)
        taught(model, whole_space, MINIMUM - 1)
        assert model.predict(whole_space.at(0), counted_of(whole_space, whole_space.at(0))) is None
        taught(model, whole_space, 60, seed=1)
        assert model.description == f"features: {MINIMUM + 59} whole networks"
        assert off(model, whole_space).mean() < 0.1

    def test_only_the_counted_costs_among_what_is_handed_in_matter(self, whole_space: WholeSpace) -> None:
        model = taught(FeaturePredictor(whole_space), whole_space, 20)
        architecture = whole_space.at(7)
        counted = counted_of(whole_space, architecture)
        more = {**counted, "accuracy": 0.5, "latency_ms": 9.0}
        assert model.predict(architecture, counted) == model.predict(architecture, more)

    def test_networks_to_measure_are_distinct_and_extend_each_other(self, whole_space: WholeSpace) -> None:
        model, pool = FeaturePredictor(whole_space), drawn(whole_space, 300)
        chosen = model.representative_subset(pool, 20, seed=3)
        assert all(architecture in pool for architecture in chosen)
        assert len({architecture_id(architecture) for architecture in chosen}) == 20
        assert model.representative_subset(pool, 8, seed=3) == chosen[:8]
        assert model.representative_subset(pool, 0, seed=3) == []


def test_the_noise_is_that_of_a_95_percent_interval() -> None:
    assert relative_noise(0.98, 1.0, 1.02) == pytest.approx(0.02 / 1.96)
    assert relative_noise(98.0, 100.0, 102.0) == pytest.approx(0.02 / 1.96)


class Files:
    """A folder of cost models, saved and read for one space, device and environment."""

    def __init__(self, folder: Path, config: RunConfig, data: DataSet, environment: Environment) -> None:
        self.path = folder / "deep" / "model.json"
        self.scope = Scope(identity_of(config, data), Device(), environment)

    def save(self, model: LatencyPredictor) -> None:
        save(self.path, model, self.scope)

    def read(self, space: ConvNetSpace, **changes: Any) -> LatencyPredictor:
        return read(self.path, space, replace(self.scope, **changes))

    def refusal(self, space: ConvNetSpace, error: type[CostModelError] = CostModelError, **changes: Any) -> str:
        with pytest.raises(error) as refused:
            self.read(space, **changes)
        assert refused.value.exit_code == (3 if error is DamagedCostModelError else 2)
        assert str(self.path) in str(refused.value)
        return str(refused.value)

    def edit(self, *path: Any, to: Any) -> None:
        """Change one value of the document."""
        document = json.loads(self.path.read_text(encoding="utf-8"))
        inner = document
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = to
        self.path.write_text(json.dumps(document), encoding="utf-8")


@pytest.fixture
def files(tmp_path: Path, config: RunConfig, data: DataSet, environment: Environment) -> Files:
    return Files(tmp_path, config, data, environment)


@pytest.fixture
def saved(files: Files, space: ConvNetSpace) -> Files:
    files.save(taught(BlockwisePredictor(space), space, 14))
    return files


class TestFile:
    def test_of_pieces_reads_as_it_was_saved(self, files: Files, space: ConvNetSpace) -> None:
        model = BlockwisePredictor(space)
        model.observe_probes(probes_of(space, 30))
        taught(model, space, 3)
        files.save(model)
        again = files.read(space)
        assert again.description == model.description == "operators: 30 timed probes, 3 whole networks"
        for architecture in drawn(space, 10, seed=4):
            assert again.predict(architecture, {}) == model.predict(architecture, {})
        # … and learns on as it would have.
        for each in (model, again):
            taught(each, space, 3, seed=8)
        assert again.predict(space.at(3), {}) == model.predict(space.at(3), {})

    def test_of_features_reads_as_it_was_saved(self, files: Files, whole_space: WholeSpace) -> None:
        model = taught(FeaturePredictor(whole_space), whole_space, 15)
        files.save(model)
        again = files.read(whole_space)
        assert again.description == model.description
        architecture = whole_space.at(11)
        counted = counted_of(whole_space, architecture)
        assert again.predict(architecture, counted) == model.predict(architecture, counted)

    def test_says_where_it_holds(self, saved: Files) -> None:
        document = json.loads(saved.path.read_text(encoding="utf-8"))
        assert document["format"] == 1
        assert document["kind"] == "operators"
        assert document["identity"] == {
            "space": {**document["identity"]["space"], "name": "convnet", "width": 8},
            "input_shape": [1, 8, 8],
            "classes": 10,
        }
        assert document["device"] == Device().as_dict()
        assert document["environment"]["fingerprint"] == saved.scope.environment.fingerprint

    def test_the_load_of_the_machine_is_no_other_environment(self, saved: Files, space: ConvNetSpace) -> None:
        busy = replace(saved.scope.environment, load_at_start=17.0)
        assert saved.read(space, environment=busy).nets == 14

    def test_has_a_place_of_its_own_for_each_space_device_and_environment(
        self, files: Files, data: DataSet, config: RunConfig
    ) -> None:
        base = files.scope
        others = [
            replace(base, identity=identity_of(config_of(kernels=[3]), data)),
            replace(base, identity={**base.identity, "input_shape": [1, 16, 16]}),
            replace(base, device=replace(base.device, threads=2)),
            replace(base, device=replace(base.device, precision="int8")),
            replace(base, environment=replace(base.environment, onnxruntime="0.1")),
        ]
        paths = [each.file for each in (base, *others)]
        assert len(set(paths)) == len(paths)
        assert base.file == paths[0]
        assert paths[0].suffix == ".json"
        foreign = replace(base, identity={**base.identity, "space": {"name": "my.package:Space"}})
        assert ":" not in foreign.file.name


class TestRefusals:
    def test_none_there(self, files: Files, space: ConvNetSpace) -> None:
        assert "there is no cost model; make one with `hwnas calibrate`" in files.refusal(space)

    def test_a_folder(self, files: Files, space: ConvNetSpace) -> None:
        files.path.mkdir(parents=True)
        assert "no cost model (Is a directory)" in files.refusal(space)

    @pytest.mark.parametrize(
        "content",
        [b"", b"{", b"\xff\xfe", b"not json", b"[" * 100_000, b'{"a": 1, "a": 2}', b'{"a": NaN}', b'{"a": 1e999}',
         b'{"a": ' + b"1" * 5000 + b"}"],
        ids=lambda content: content[:12],
    )  # fmt: skip
    def test_no_json(self, saved: Files, space: ConvNetSpace, content: bytes) -> None:
        saved.path.write_bytes(content)
        assert "a damaged cost model: " in saved.refusal(space, error=DamagedCostModelError)

    def test_a_pipe_is_not_waited_for(self, files: Files, space: ConvNetSpace) -> None:
        files.path.parent.mkdir(parents=True)
        os.mkfifo(files.path)
        assert "is a pipe" in files.refusal(space)

    def test_a_truncated_one(self, saved: Files, space: ConvNetSpace) -> None:
        saved.path.write_bytes(saved.path.read_bytes()[:-20])
        assert "damaged" in saved.refusal(space, error=DamagedCostModelError)

    @pytest.mark.parametrize("content", ["[]", "null", "1", "{}", '{"format": 0}'])
    def test_another_format(self, saved: Files, space: ConvNetSpace, content: str) -> None:
        saved.path.write_text(content, encoding="utf-8")
        assert "no cost model of format 1" in saved.refusal(space)

    def test_another_space(self, saved: Files, space: ConvNetSpace, data: DataSet) -> None:
        other = identity_of(config_of(kernels=[3]), data)
        message = saved.refusal(space, identity=other)
        assert "another space or input" in message
        assert "[3, 5]" in message

    def test_another_input(self, saved: Files, space: ConvNetSpace) -> None:
        message = saved.refusal(space, identity={**saved.scope.identity, "input_shape": [1, 16, 16]})
        assert "input_shape [1, 8, 8] there, [1, 16, 16] here" in message
        assert "classes" not in message

    def test_another_device(self, saved: Files, space: ConvNetSpace) -> None:
        message = saved.refusal(space, device=replace(saved.scope.device, threads=2, precision="int8"))
        assert "it is of another device: threads 1 there, 2 here; precision 'fp32' there, 'int8' here" in message

    def test_another_environment(self, saved: Files, space: ConvNetSpace) -> None:
        message = saved.refusal(
            space, environment=replace(saved.scope.environment, onnxruntime="0.1", load_at_start=9.0)
        )
        assert "another environment" in message
        assert "'0.1' here" in message
        assert "load" not in message

    def test_another_kind(self, saved: Files, whole_space: WholeSpace) -> None:
        assert "kind: 'operators'" in saved.refusal(whole_space, error=DamagedCostModelError)

    @pytest.mark.parametrize(
        ("path", "value", "said"),
        [
            (("identity",), None, "identity: input should be a valid dictionary, found None"),
            (("device",), [], "device: input should be a valid dictionary, found []"),
            (("environment",), None, "environment: input should be"),
            (("kind",), None, "kind: input should be a valid string, found None"),
            (("kind",), "features", "kind: 'features', where this space has 'operators'"),
            (("model",), None, "model: input should be"),
            (("model",), {}, "hyper: is missing; operators: is missing; observations: is missing"),
            (("model", "hyper"), [], "hyper: input should be"),
            (("model", "hyper", "misfit"), "1", "hyper.misfit: input should be a valid number, found '1'"),
            (("model", "operators", 0), None, "operators.0: input should be a valid tuple, found None"),
            (("model", "operators", 1, 1), [8.0, 8.0, 8.0, 8.0, 8.0], "of the kind"),
            (("model", "observations"), [], "observations: list should have at least 2 items"),
            (("model", "observations", 0, "ms"), -1.0, "observations.0.ms: input should be greater than 0, found -1.0"),
            (("model", "observations", 0, "ms"), 1e300, "observations.0.ms: input should be less than or equal to"),
            (("model", "observations", 0, "operators"), [-1], "observations.0.operators.0: input should be greater"),
            (("model", "observations", 0, "operators"), [999], "observation 0 has an operator that isn't listed"),
        ],
        ids=str,
    )
    def test_a_damaged_part(
        self, saved: Files, space: ConvNetSpace, path: tuple[Any, ...], value: Any, said: str
    ) -> None:
        saved.edit(*path, to=value)
        message = saved.refusal(space, error=DamagedCostModelError)
        assert f"{saved.path}: a damaged cost model: " in message
        assert said in message

    def test_an_environment_that_says_nothing(self, saved: Files, space: ConvNetSpace) -> None:
        saved.edit("environment", to={})
        assert "another environment (cpu_model None there" in saved.refusal(space)

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (("model", "features"), None),
            (("model", "features", 0), [1.0]),
            (("model", "features", 0), "wide"),
            (("model", "features"), []),
            (("model", "latency_ms"), [0.1]),
            (("model", "latency_ms", 3), 0.0),
            (("model", "latency_ms", 3), float("nan")),
            (("model", "features", 3, 0), float("inf")),
        ],
        ids=str,
    )
    def test_a_damaged_part_of_features(
        self, files: Files, whole_space: WholeSpace, path: tuple[Any, ...], value: Any
    ) -> None:
        files.save(taught(FeaturePredictor(whole_space), whole_space, 12))
        files.edit(*path, to=value)
        assert "a damaged cost model" in files.refusal(whole_space, error=DamagedCostModelError)
