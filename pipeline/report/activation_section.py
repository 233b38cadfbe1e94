"""The report's section on activations: what each bought in accuracy, cost in time, and does at its site."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from pipeline.activations.effects import effects_of
from pipeline.activations.facts import EVERYWHERE, ActivationFacts, ActivationFileError, read
from pipeline.report.activation_plots import MOST_PANELS, effects_plot, sites_plot
from pipeline.spaces.base import activations_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pipeline.activations.facts import ActivationSite, Effect, Effects, LearnedParameter, PlaceCost
    from pipeline.run import RunDirectory
    from pipeline.trials.journal import TrialRecord

_NOT_TOLD = "not told from none"


def activation_section(
    run: RunDirectory, records: Sequence[TrialRecord], manifest: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """Values for the template; None where activations were neither searched nor examined."""
    facts, missing = _facts(run, manifest)
    chosen = any(activations_of(record.architecture) for record in records)
    if not chosen and (facts is None or not facts.sites.sites):
        return None
    effects = facts.effects if facts else effects_of(records)
    return {
        "missing": missing,
        "chosen": chosen,
        "winner": _winner(facts, effects) if facts and chosen else None,
        "effects": _effects(effects) if chosen else None,
        "sites": _sites(facts.sites.images, facts.sites.sites, facts.sites.missing) if facts else None,
    }


def _facts(run: RunDirectory, manifest: Mapping[str, Any] | None) -> tuple[ActivationFacts | None, str]:
    if manifest is None:
        return None, "there is no bundle"
    try:
        return read(run.path, manifest["architecture_id"], run.digest()), ""
    except ActivationFileError as error:
        return None, str(error)


def _winner(facts: ActivationFacts, effects: Effects) -> dict[str, Any]:
    costs = facts.costs
    of_place = {(effect.place, effect.activation): effect for effect in effects.accuracy}
    rows = [_place(cost, of_place.get((cost.place, cost.activation)), effects) for cost in costs.places]
    timed = f" As it is, the network took {costs.latency_ms:.4g} ms." if costs.latency_ms is not None else ""
    return {"rows": rows, "missing": costs.missing, "timed": timed, "warnings": costs.warnings}


def _place(cost: PlaceCost, effect: Effect | None, effects: Effects) -> dict[str, str]:
    if cost.place == EVERYWHERE:
        accuracy = ""
    elif effect is not None:
        accuracy = f"{_points(effect)}, {_trials(effect.trials)}{'' if effect.is_significant else f': {_NOT_TOLD}'}"
    elif cost.activation == effects.baseline:
        accuracy = f"{effects.baseline} itself"
    else:
        accuracy = effects.accuracy_missing
    return {
        "place": cost.place,
        "activation": cost.activation,
        "cost": _cost(cost),
        "share": _share(cost),
        "accuracy": accuracy,
    }


def _cost(cost: PlaceCost) -> str:
    if cost.cost_ms is None or cost.cost_low_ms is None or cost.cost_high_ms is None:
        return cost.missing
    text = f"{cost.cost_ms:+.3g} ms ({cost.cost_low_ms:+.2g} to {cost.cost_high_ms:+.2g})"
    return text if cost.is_significant else f"{text}: {_NOT_TOLD}"


def _share(cost: PlaceCost) -> str:
    return "" if cost.ratio is None else f"{1.0 - cost.ratio:+.1%}"


def _effects(effects: Effects) -> dict[str, Any]:
    places = list(dict.fromkeys(effect.place for effect in (*effects.accuracy, *effects.latency)))
    pooled = EVERYWHERE if EVERYWHERE in places else next(iter(places), "")
    accuracy = [effect for effect in effects.accuracy if effect.place == pooled]
    latency = [effect for effect in effects.latency if effect.place == pooled]
    significant = sum(effect.is_significant for effect in accuracy)
    return {
        "lead": _lead(effects),
        "missing": [
            f"{what}: {why}"
            for what, why in (("Accuracy", effects.accuracy_missing), ("Latency", effects.latency_missing))
            if why
        ],
        "plot": effects_plot(accuracy, latency) if accuracy or latency else "",
        "rows": _rows(accuracy, latency),
        "verdict": _verdict(significant, len(accuracy)),
        "places": [
            {"place": place, **row}
            for place in places
            if place != pooled
            for row in _rows(*([e for e in kind if e.place == place] for kind in (effects.accuracy, effects.latency)))
        ],
    }


def _lead(effects: Effects) -> str:
    against = effects.baseline or "the mean of all activations that were tried"
    predicted = f", {effects.predicted} of them predicted ones" if effects.predicted else ""
    return (
        f"Against {against}, in networks alike in everything else. From {effects.trained} trained candidates,"
        f" and from the latencies of {effects.timed}{predicted}. The intervals hold 90 %."
    )


def _verdict(significant: int, of: int) -> str:
    if of == 0:
        return ""
    if significant == 0:
        return "No activation's accuracy can be told from the others' by these trials: every interval holds 0."
    return f"The accuracy of {significant} of {of} can be told from no difference; the other intervals hold 0."


def _rows(accuracy: Sequence[Effect], latency: Sequence[Effect]) -> list[dict[str, Any]]:
    bought, cost = ({effect.activation: effect for effect in kind} for kind in (accuracy, latency))
    rows = []
    for name in dict.fromkeys([*bought, *cost]):
        known = [kind[name] for kind in (bought, cost) if name in kind]
        rows.append(
            {
                "activation": name,
                "trained": bought[name].trials if name in bought else 0,
                "timed": cost[name].trials if name in cost else 0,
                "accuracy": _points(bought[name]) if name in bought else "",
                "latency": _change(cost[name]) if name in cost else "",
                "told": any(effect.is_significant for effect in known),
            }
        )
    return rows


def _points(effect: Effect) -> str:
    value, low, high = (100.0 * each for each in (effect.value, effect.low, effect.high))
    return f"{value:+.2f} points ({low:+.2f} to {high:+.2f})"


def _change(effect: Effect) -> str:
    return f"{effect.value:+.1%} ({effect.low:+.1%} to {effect.high:+.1%})"


def _trials(count: int) -> str:
    return f"{count} trial{'' if count == 1 else 's'}"


def _sites(images: int, sites: Sequence[ActivationSite], missing: str) -> dict[str, Any]:
    groups = grouped(sites)
    left_out = max(0, len(groups) - MOST_PANELS)
    dead = [site for site in sites if site.dead]
    units = sum(site.dead or 0 for site in dead)
    found = f"{units} dead unit{'' if units == 1 else 's'} at {len(dead)} of {len(sites)} sites"
    return {
        "missing": missing,
        "lead": f"On {images} validation images: {found if dead else 'no dead units'}." if sites else "",
        "left_out": f"{left_out} more sites are in the table alone." if left_out else "",
        "plot": sites_plot(groups[:MOST_PANELS]) if groups else "",
        "rows": [_site(site) for site in sites],
        "learnt": [
            {"path": site.path, "activation": site.activation, "learnt": _learnt(site.learnt)}
            for site in sites
            if site.learnt
        ],
    }


def grouped(sites: Sequence[ActivationSite]) -> list[list[ActivationSite]]:
    """Group sites that share one function, in order; a site with parameters of its own stands alone."""
    groups: dict[str, list[ActivationSite]] = {}
    for site in sites:
        groups.setdefault(f"{site.path}: {site.kind}" if site.learnt else site.kind, []).append(site)
    return list(groups.values())


def _site(site: ActivationSite) -> dict[str, Any]:
    return {
        "path": site.path,
        "place": site.place or "fixed",
        "activation": site.activation,
        "inputs": f"{site.mean:.2f} ± {site.std:.2f}",
        "range": f"{site.percentile_1:.2g} to {site.percentile_99:.2g}",
        "saturated": site.missing if site.saturated is None else f"{site.saturated:.1%}",
        "dead": "" if site.dead is None else f"{site.dead} of {site.units}",
        "is_dead": bool(site.dead),
        "gradient": f"{site.gradient:.1e}",
        "gain": "" if site.gain is None else f"{site.gain:.2f}",
    }


def _learnt(parameters: Sequence[LearnedParameter]) -> list[str]:
    """Lines of text, one a parameter."""
    lines = []
    for name, group in groupby(parameters, key=lambda each: each.name.partition("[")[0]):
        each = list(group)
        before, after = (", ".join(f"{value:.3g}" for value in values) for values in _both(each))
        spread = f" (mean of {each[0].count}, {each[0].low:.3g} to {each[0].high:.3g})" if each[0].count > 1 else ""
        lines.append(f"{name} {before} → {after}{spread}")
    return lines


def _both(parameters: Sequence[LearnedParameter]) -> tuple[list[float], list[float]]:
    return [each.start for each in parameters], [each.learnt for each in parameters]
