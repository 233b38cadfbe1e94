"""A check of shared weights: do they rank networks as trained ones are ranked?

Some networks are trained alone, side by side; their accuracies are compared with the inherited ones, and with what
tells as much without any weights: parameters, multiply-accumulates, synflow.
"""

from __future__ import annotations

import json
import queue
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from latency_models.timer import usable_cores
from pipeline.config.evaluator import SupernetOptions, TrainEvaluatorOptions
from pipeline.engines.fork_client import ForkServer
from pipeline.engines.processes import share_of_memory
from pipeline.engines.worker_client import WorkerClient
from pipeline.errors import HwnasError
from pipeline.evaluators.supernet.evaluator import SupernetEvaluator
from pipeline.evaluators.supernet.ranking import Agreement, advantage, agreement
from pipeline.evaluators.supernet.sampling import CostSampling
from pipeline.evaluators.zero_cost.scores import minibatch, score_of
from pipeline.files import open_to_append
from pipeline.spaces.base import architecture_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pipeline.config.run import RunConfig
    from pipeline.data import DataSet
    from pipeline.run import RunDirectory
    from pipeline.spaces.base import Architecture, SearchSpace
    from pipeline.trials.reporter import Reporter

BASELINES = ("params", "macs", "synflow")
_SCORED_IMAGES = 32
_BEST_SHARE = 0.1
_TRIAL_S = 3600.0
_CHECK_SEED = 1_000_003
"""Added to the run's, so that the networks aren't those that the weights were trained with."""


def check_supernet(
    run: RunDirectory, data: DataSet, space: SearchSpace, reporter: Reporter, *, networks: int, epochs: int
) -> dict[str, Any]:
    """Compare inherited with trained accuracies.

    What was trained for an earlier check of the same epochs is kept in the run, and not trained again.

    Args:
        run: whose weights are trained, locked by the caller.
        data: of the run's config.
        space: of the run's config.
        reporter: hears each network.
        networks: to train alone.
        epochs: of each of these trainings, by the run's recipe.

    Returns:
        `rows`, a network each, and the correlations of `inherited`, `not_recalibrated` and the baselines with the
        trained accuracies, over `all` and within the `best` tenth.

    Raises:
        HwnasError: the run has no shared weights, or a network can't be trained.
    """
    options = run.config.evaluator
    if not isinstance(options, SupernetOptions):
        raise HwnasError(f"{run.path}: its evaluator is {options.name}; only one of `supernet` has weights to check")
    chosen = _distinct(space, data, run.config.seed, networks)
    trained = _trained(run, epochs, chosen, reporter)
    reporter.stage("Looking up the inherited accuracies")
    evaluators = {
        "inherited": SupernetEvaluator(options, data, run.config.train),
        "not_recalibrated": SupernetEvaluator(options.model_copy(update={"recalibrate": 0}), data, run.config.train),
    }
    images, labels = minibatch(data, _SCORED_IMAGES)
    rows = []
    for number, architecture in enumerate(chosen):
        identity = architecture_id(architecture)
        row: dict[str, Any] = {"id": identity, "architecture": architecture, "trained": trained[identity]}
        row |= {name: evaluator.evaluate(space.build(architecture)) for name, evaluator in evaluators.items()}
        fresh = space.build(architecture)
        rows.append(row | {name: score_of(name, fresh, images, labels) for name in BASELINES})
        reporter.progress("inherited accuracies", (number + 1) / len(chosen))
    return {"epochs": epochs, "rows": rows, **compared(rows, run.config.seed)}


def compared(rows: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """The correlations of each score with the trained accuracies, over all rows and within the best tenth.

    Args:
        rows: a network each: `trained`, `inherited`, `not_recalibrated` and the baselines.
        seed: of the resampling.
    """
    columns = {
        name: np.array([row[name] for row in rows], dtype=float)
        for name in ("trained", "inherited", "not_recalibrated", *BASELINES)
    }
    accuracies = columns.pop("trained")
    best = np.argsort(-accuracies, kind="stable")[: max(1, round(_BEST_SHARE * len(rows)))]
    whole, tenth = (
        {name: _as_dict(agreement(values[part], accuracies[part], seed)) for name, values in columns.items()}
        for part in (np.arange(len(rows)), best)
    )
    others = {
        name: None if found is None else asdict(found)
        for name in (*BASELINES, "not_recalibrated")
        for found in [advantage(columns["inherited"], columns[name], accuracies, seed)]
    }
    return {"all": whole, "best": {"networks": len(best), **tenth}, "advantage_of_inherited": others}


def _as_dict(found: Agreement | None) -> dict[str, Any] | None:
    return None if found is None else asdict(found)


def _distinct(space: SearchSpace, data: DataSet, seed: int, count: int) -> list[Architecture]:
    sampling = CostSampling(space, data.input_shape, seed + _CHECK_SEED)
    found: dict[str, Architecture] = {}
    for number in range(50 * count):
        if len(found) == count:
            break
        architecture = sampling.draw(number)
        found[architecture_id(architecture)] = architecture
    return list(found.values())


def _trained(run: RunDirectory, epochs: int, chosen: list[Architecture], reporter: Reporter) -> dict[str, float]:
    """The accuracy of each network, trained alone, by its id."""
    known = _kept(run.supernet_check, epochs)
    missing = [each for each in chosen if architecture_id(each) not in known]
    if not missing:
        return known
    reporter.stage(f"Training {len(missing)} networks alone, {epochs} epochs each")
    config = _alone(run.config, epochs)
    server = ForkServer(json.loads(config.model_dump_json()), run.log)
    server.start()
    free: queue.SimpleQueue[WorkerClient] = queue.SimpleQueue()
    workers = min(usable_cores(), len(missing))
    clients = [
        WorkerClient(server, limit_s=_TRIAL_S, memory_bytes=share_of_memory(None, workers), threads=1)
        for _ in range(workers)
    ]
    for client in clients:
        free.put(client)

    def judged(architecture: Architecture) -> tuple[str, float]:
        client = free.get()
        try:
            result = client.judge(architecture, lambda _: None)
        finally:
            free.put(client)
        if result.status != "ok":
            raise HwnasError(f"network {architecture_id(architecture)} can't be trained: {result.error}")
        return architecture_id(architecture), result.objectives["accuracy"]

    try:
        with ThreadPoolExecutor(workers) as pool, open_to_append(run.supernet_check) as kept:
            jobs = [pool.submit(judged, each) for each in missing]
            for number, job in enumerate(as_completed(jobs)):
                identity, accuracy = job.result()
                known[identity] = accuracy
                kept.write((json.dumps({"id": identity, "epochs": epochs, "accuracy": accuracy}) + "\n").encode())
                kept.flush()
                reporter.progress(f"trained {number + 1} of {len(missing)}", (number + 1) / len(missing))
    finally:
        for client in clients:
            client.kill()
        server.stop()
    return known


def _alone(config: RunConfig, epochs: int) -> RunConfig:
    """The config by which a network is trained alone: no limits, no latency to measure at length."""
    return config.model_copy(
        update={
            "evaluator": TrainEvaluatorOptions(name="train", epochs=epochs),
            "objectives": ["accuracy", "macs"],
            "constraints": {},
        }
    )


def _kept(path: Path, epochs: int) -> dict[str, float]:
    """Accuracies that an earlier check has kept; lines that are none are passed over."""
    found: dict[str, float] = {}
    for line in _lines(path):
        try:
            row = cast("Mapping[str, Any]", json.loads(line))
            identity, accuracy = row["id"], row["accuracy"]
            if row["epochs"] == epochs and isinstance(identity, str) and 0 <= float(accuracy) <= 1:
                found[identity] = float(accuracy)
        except (ValueError, KeyError, TypeError):
            continue  # the last line of a killed check
    return found


def _lines(path: Path) -> Iterable[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ()
