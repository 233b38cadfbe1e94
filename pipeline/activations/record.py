"""The record of a finished run's activations: effects, costs and behaviour, written to `activations.json`."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import torch

from pipeline.activations.costs import activation_costs
from pipeline.activations.effects import effects_of
from pipeline.activations.facts import FORMAT, ActivationFacts, Costs, Effects, Sites, write
from pipeline.activations.places import places_of
from pipeline.activations.sites import images_for, sites_facts
from pipeline.spaces.base import activations_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from torch import nn

    from pipeline.costs.target import Target
    from pipeline.data import DataSet
    from pipeline.run import RunDirectory
    from pipeline.spaces.base import SearchSpace
    from pipeline.trials.journal import TrialRecord
    from pipeline.trials.reporter import Reporter

    Part = TypeVar("Part")


def record_activations(
    run: RunDirectory,
    data: DataSet,
    space: SearchSpace,
    winner: TrialRecord,
    network: nn.Module,
    records: Sequence[TrialRecord],
    target: Target,
    reporter: Reporter,
) -> None:
    """Write the run's `activations.json`; a part that fails becomes a note, since the bundle is whole without it.

    Args:
        run: held by the caller.
        data: of the run's config.
        space: of the run's config.
        winner: the trial that became the bundle.
        network: the winner's, trained; left on the CPU, in eval mode.
        records: all trials of the run.
        target: of the run.
        reporter: hears what failed.
    """
    reporter.stage("Looking at the activations: what each costs, and what it does on validation images")
    network.cpu().eval()
    images = data.validation.images[(chosen := images_for(len(data.validation), *data.input_shape[1:]))]

    def costs_at(places: dict[str, str]) -> Costs:
        return activation_costs(network, data.input_shape, activations_of(winner.architecture), places, target)

    def sites_at(places: dict[str, str]) -> Sites:
        with torch.random.fork_rng(devices=[]):
            start = space.build(winner.architecture)
        inputs = torch.from_numpy(data.preprocessing.apply(images))
        return sites_facts(network, start, places, inputs, torch.from_numpy(data.validation.labels[chosen]))

    def part(what: str, make: Callable[[], Part], without: Callable[[str], Part]) -> Part:
        try:
            return make()
        # Spaces, activations and devices of third parties may raise anything.
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            reporter.note(f"activations: no {what}: {reason}")
            return without(reason)

    places = part("places", lambda: places_of(space, winner.architecture), lambda _: {})
    facts = ActivationFacts(
        format=FORMAT,
        hwnas=version("hwnas"),
        architecture_id=winner.id,
        config_sha256=run.digest(),
        effects=part("effects", lambda: effects_of(records), lambda why: Effects("", 0, 0, 0, (), (), why, why)),
        costs=part("costs", lambda: costs_at(places), lambda why: Costs(None, (), missing=why)),
        sites=part("sites", lambda: sites_at(places), lambda why: Sites(0, (), why)),
    )
    try:
        write(run.path, facts)
    except (OSError, ValueError) as error:
        reporter.note(f"activations: they can't be written: {error}")
