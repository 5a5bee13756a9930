"""The guided sampler: its stages, from the start over the race and the knapsack to the last recheck."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import compress

import numpy as np

from autoquant.model.operators import is_tensor
from autoquant.tuning.sampling.assumptions import assumptions
from autoquant.tuning.sampling.history import THRESHOLD, History
from autoquant.tuning.sampling.moves import next_float_choice, next_move, remaining_gain
from autoquant.tuning.sampling.plans import Plans, with_best
from autoquant.tuning.sampling.predictions import PredictionTable
from autoquant.tuning.sampling.problem import COSTLY, Switch, globals_of, int8_of, start_of
from autoquant.tuning.sampling.race import FEW, changed_words, race
from autoquant.tuning.study.space import Parameters, Suggestion, all_int8_words, bits_of, switch_of
from autoquant.tuning.study.trial import State, Trial

Around = Callable[[History, Trial], Suggestion | None]
"""Chooses a point around the incumbent once all else is used up, if any is worth trying."""
MATERIAL = 0.9
"""Better settings are tried where the predicted divergence falls below this share of what it was."""


def propose(history: History, *, around: Around = lambda history, incumbent: None) -> Suggestion | None:
    """The next point: start, race, winner, best settings, knapsack, refinement, a recheck, or one around the incumbent.

    None is the end: nothing that no trial excludes gains more than THRESHOLD of all that there is to be gained, or
    nothing was within tolerance. With running trials it is what would follow if they ended in the most probable way,
    or else in another; a point around the incumbent comes last. None then means that nothing can be tried before one of
    them has ended.
    """
    for assumed in assumptions(history):
        found = _next(assumed)
        if found is not None:
            return _assuming(found, assumed, history)
    return _next(history, around)


def _assuming(found: Suggestion, assumed: History, history: History) -> Suggestion:
    """The same, with words for what was assumed."""
    incumbent = assumed.incumbent
    if incumbent is None or incumbent is history.incumbent:
        return found
    return replace(found, why=f"{found.why}, assuming that trial {incumbent.number} is within tolerance")


def _next(history: History, around: Around = lambda history, incumbent: None) -> Suggestion | None:
    """The same for one history, in which trials that still run are treated as failures."""
    if history.finished:
        return None
    reference = _reference(history)
    first = _start(history, reference)
    if first is not None:
        return first
    if any(trial.within for trial in history.trials_of(reference)):
        return _predicted(history, reference, [reference], around)
    raced = race(history, reference)
    winner = raced.ranked[0]
    found = raced.next or _race_winner(history, raced.ranked, reference) or _costly(history, winner)
    found = found or _predicted(history, _with_costly(history, winner), list(raced.near), around)
    return found or race(history, reference, share=1.0).next  # where trials were too few for all of it


def _predicted(history: History, winner: Parameters, near: Sequence[Parameters], around: Around) -> Suggestion | None:
    """What follows once the settings of the whole model are chosen; now divergences are predicted.

    Only once something is within tolerance are others tried that came `near` the winner: their chance is small.
    """
    table = history.predictions(winner)
    plans = Plans(history, _base(history, winner, table), table)
    if history.incumbent is None:
        found = _best_settings(history, winner, table)
    else:
        found = next_float_choice(plans) or _retry_close_race_losers(history, near)
    if found is not None:
        return found
    found = next_move(plans)
    if found is not None:
        return found
    if remaining_gain(plans) <= THRESHOLD * history.total_gain:
        return _rescore_undecided(plans)  # of plans with other settings, where there are any
    if history.incumbent is None:
        return _halve(plans) or _rescore_undecided(plans)
    return _rescore_undecided(plans) or around(history, history.incumbent)


def _reference(history: History) -> Parameters:
    """The all-INT8 start, but for layers that caused it to fail: with 16 bits, where there is that choice, or float."""
    point = start_of(history.problem)
    while True:
        faults = {trial.at_fault for trial in history.trials_of(point) if trial.state is State.FAILED}
        faults &= int8_of(point, history.problem)
        if not faults:
            return point
        wide = {layer for layer in faults if point.get(bits_of(layer)) == 8}
        point = {
            **point,
            **{bits_of(layer): 16 for layer in wide},
            **{switch_of(layer): False for layer in faults - wide},
        }


def _start(history: History, reference: Parameters) -> Suggestion | None:
    """Everything in INT8."""
    if history.already_known(reference):
        return None
    return Suggestion(reference, all_int8_words(globals_of(reference)), "start")


def _race_winner(history: History, ranked: Sequence[Parameters], reference: Parameters) -> Suggestion | None:
    """The race's winner, until it is decided; after each near miss the next best.

    A near miss was undecided, or took all samples to be found not within tolerance: one that is as good may be within,
    where chance decides.
    """
    for place, point in enumerate(ranked):
        if not history.already_known(point):
            why = "winner of the race" if place == 0 else "race runner-up of a near miss"
            return Suggestion(point, f"{why}: {changed_words(point, reference)}", "winner")
        ended = [
            trial
            for trial in history.trials_of(point)
            if trial.max_samples is None and trial.state is not State.RUNNING
        ]
        missed = any(trial.state is State.DONE or trial.undecided for trial in ended)
        if any(trial.within for trial in ended) or not missed or not history.chance_decides:
            return None
    return None


def _costly(history: History, winner: Parameters) -> Suggestion | None:
    """The race's winner, once it has missed, with a setting that takes long, such as training."""
    tried = history.trials_of(winner)
    if not any(trial.within is False or (trial.undecided and trial.max_samples is None) for trial in tried):
        return None
    for point in _costly_points(history, winner):
        if not history.already_known(point):
            return Suggestion(point, f"cheaper settings missed: {changed_words(point, winner)}", "winner")
    return None


def _with_costly(history: History, winner: Parameters) -> Parameters:
    """The race's winner to go on with: with a setting that takes long where that has brought much."""
    tried = [point for point in _costly_points(history, winner) if history.divergences(point)]
    if not tried:
        return winner
    best = history.best(tried)
    after, before = history.compared([best, winner])
    return best if after < MATERIAL * before else winner


def _costly_points(history: History, winner: Parameters) -> Iterator[Parameters]:
    dimensions = history.problem.dimensions
    for name in sorted(COSTLY & dimensions.keys()):
        yield from ({**winner, name: choice} for choice in dimensions[name] if choice != winner[name])


def _best_settings(history: History, point: Parameters, table: PredictionTable) -> Suggestion | None:
    """The race's winner with the best settings of every layer, where these promise much."""
    better = with_best(point, table.predictions)
    before, after = (table.total(history.coding.encode(one)) for one in (point, better))
    if history.already_known(better) or not after < MATERIAL * before:
        return None
    change = f"predicted divergence {after:.3g} instead of {before:.3g}"
    return Suggestion(better, f"best settings of every layer: {change}", "settings")


def _retry_close_race_losers(history: History, points: Sequence[Parameters]) -> Suggestion | None:
    """What raced near the winner, where that just missed: as it is, then with the best settings of every layer.

    Which of few samples fall to another class is chance, so one of several as good plans may be within tolerance.
    """
    first = points[0]
    if not history.near_misses[history.places_of(first)].any() or not history.improves(history.int8_of(first)):
        return None
    for point in points if history.chance_decides else ():
        if not history.already_known(point):
            why = f"race runner-up near a near miss: {changed_words(point, first)}"
            return Suggestion(point, why, "winner")
    for point in points[:FEW]:
        better = with_best(point, history.predictions(point).predictions)
        if not history.already_known(better):
            why = f"best settings of every layer, near a near miss: {changed_words(point, first)}"
            return Suggestion(better, why, "settings")
    return None


def _base(history: History, point: Parameters, table: PredictionTable) -> Parameters:
    """The settings to go on with: the best by prediction, unless these were tried and are worse than the winner's."""
    better = with_best(point, table.predictions)
    if history.coding.key(better) == history.coding.key(point):
        return point
    tried = history.trials_of(better)
    before, after = (table.total(history.coding.encode(one)) for one in (point, better))
    measured_before, measured_after = history.compared([point, better])
    worse = any(trial.state is not State.RUNNING for trial in tried) and measured_after > measured_before
    return point if worse or not after < MATERIAL * before else better


def _halve(plans: Plans) -> Suggestion | None:
    """Half of the layers in float, then three quarters, down to one in INT8: those of least predicted divergence.

    Down to none where other layers are in INT8 in every plan.
    """
    known = np.flatnonzero(np.isfinite(plans.divergences) & (plans.gains > 0.0)).tolist()
    order = sorted(known, key=lambda layer: (plans.divergences[layer], -plans.gains[layer]))
    in_every_plan = set(plans.table.tunables) - set(plans.problem.layers)
    always = any(not is_tensor(tunable) for tunable in in_every_plan)
    sizes = [len(order) >> halvings for halvings in range(1, len(order).bit_length() + always)]
    for count in sizes:
        chosen = np.isin(np.arange(plans.gains.size), order[:count])
        codes = plans.plan(chosen)
        point = plans.history.coding.decode(codes)
        if not plans.history.already_known(point) and not plans.infeasible.excludes(codes):
            what = _least_words(list(compress(plans.history.coding.switches.values(), plans.history.int8_of(point))))
            return Suggestion(point, f"nothing within tolerance yet: {what}", "halving")
    return None


def _least_words(on: Sequence[Switch]) -> str:
    """What is in INT8, in words."""
    layers = sum(switch.on is True for switch in on)
    words = [f"{layers} layers" if layers else "", f"activations of {len(on) - layers}" if len(on) > layers else ""]
    kept = " and ".join(filter(None, words))
    return f"the {kept} of least predicted divergence in INT8" if kept else "nothing in INT8 that need not be"


def _rescore_undecided(plans: Plans) -> Suggestion | None:
    """What was undecided, on all samples, once there is nothing better to try."""
    trial = plans.infeasible.next_recheck()
    if trial is None:
        return None
    why = f"rescore: trial {trial.number}, which was undecided, on all samples"
    return Suggestion(trial.parameters, why, "rescore", plans.problem.total)
