"""The shared weights of a run, trained before its first trial, or on from where they are."""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING, cast

import torch

from pipeline.evaluators.device_data import DeviceData
from pipeline.evaluators.supernet.checkpoint import load_into, save
from pipeline.evaluators.supernet.shared_weights import SharedWeights
from pipeline.evaluators.supernet.training import ROLES, SupernetState, SupernetTrainer
from pipeline.trials.reporter import duration

if TYPE_CHECKING:
    from pipeline.config.evaluator import SupernetOptions
    from pipeline.config.run import RunConfig
    from pipeline.data import DataSet
    from pipeline.run import RunDirectory
    from pipeline.spaces.base import SearchSpace
    from pipeline.trials.reporter import Reporter


def train_supernet(run: RunDirectory, data: DataSet, space: SearchSpace, reporter: Reporter) -> None:
    """Train a run's shared weights to the end; after each epoch they are saved, and a resumed run goes on from there.

    Args:
        run: whose evaluator is `supernet`, locked by the caller.
        data: of the run's config.
        space: of the run's config.
        reporter: hears each epoch.

    Raises:
        SupernetFileError: the run's file is damaged.
        OtherSupernetError: it is of another config.
        DivergedError: a loss became infinite or no number.
    """
    config, options = run.config, cast("SupernetOptions", run.config.evaluator)
    if options.epochs == 0:
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        images, recipe = DeviceData(data), recipe_digest(config)
        shared = SharedWeights.of(space).to(images.device)
        state = load_into(run.supernet, shared, recipe) if run.supernet.exists() else SupernetState()
        if state.epoch >= options.epochs:
            return
        size = sum(parameter.numel() for parameter in shared.parameters.values())
        reporter.stage(f"Training the weights that all networks share ({size:,} numbers, {options.epochs} epochs)")
        began, first = time.monotonic(), state.epoch

        def after_epoch(now: SupernetState) -> None:
            run.check_present()
            save(run.supernet, shared, now, recipe)
            left = (time.monotonic() - began) / (now.epoch - first) * (options.epochs - now.epoch)
            losses = ", ".join(f"{role} {loss:.3f}" for role, loss in zip(ROLES, now.losses[-1], strict=True))
            text = f"epoch {now.epoch}/{options.epochs}: losses {losses}; time left about {duration(left)}"
            reporter.progress(text, now.epoch / options.epochs)

        SupernetTrainer(space, shared, images, config.train, options, config.seed).run(state, after_epoch)


def recipe_digest(config: RunConfig) -> str:
    """A hash of all that decides the shared weights."""
    values = json.loads(config.model_dump_json(include={"data", "space", "train", "evaluator", "seed"}))
    values["data"].pop("root", None)  # a data set may be moved
    for key in ("weights", "recalibrate"):
        values["evaluator"].pop(key)
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
