"""The stages before the knapsack (start, winner of the race, best settings of every layer), and those after it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from autoquant.model.names import is_tensor
from autoquant.tuning.sampling.history import History, Past, Step
from autoquant.tuning.sampling.plans import Plans, predicted, with_best
from autoquant.tuning.sampling.problem import Candidates, globals_of, int8_of, meaning, start_of, unit_of
from autoquant.tuning.sampling.race import FEW
from autoquant.tuning.study.space import Parameters, setting_words, switch_of

MATERIAL = 0.9
"""Better settings are tried where the predicted loss falls below this share of what it was."""


def reference_of(history: History) -> Parameters:
    """The start, with those layers in float for whose sake it failed."""
    point = start_of(history.problem)
    while True:
        faults = {trial.at_fault for trial in history.of(point) if trial.state == "failed"}
        faults &= int8_of(point, history.problem)
        if not faults:
            return point
        point = {**point, **{switch_of(layer): False for layer in faults}}


def start(history: History, reference: Parameters) -> Step | None:
    """Everything in INT8."""
    if history.settled(reference):
        return None
    words = ", ".join(setting_words(*item) for item in globals_of(reference).items())
    return Step(reference, "start", f"all INT8: {words}" if words else "all INT8")


def winner(history: History, ranked: Sequence[Parameters], reference: Parameters) -> Step | None:
    """The race's winner, until its fate is decided; after each near miss the next best.

    A near miss was set aside, or took all samples to be found not within tolerance: one that is as good may be within.
    """
    for place, point in enumerate(ranked):
        if not history.settled(point):
            why = "winner of the race" if place == 0 else "as good in the race as what just missed"
            return Step(point, "winner", f"{why}: {_changed(point, reference)}")
        ended = [trial for trial in history.of(point) if trial.limit is None and not trial.pending]
        if any(trial.within for trial in ended) or not any(trial.state == "done" or trial.set_aside for trial in ended):
            return None
    return None


def settings(history: History, point: Parameters, candidates: Candidates) -> Step | None:
    """The race's winner with the best settings of every layer, where these promise much."""
    better = with_best(point, candidates)
    before, after = predicted(point, candidates), predicted(better, candidates)
    if history.settled(better) or not after < MATERIAL * before:
        return None
    return Step(better, "settings", f"best settings of every layer: predicted loss {after:.3g} instead of {before:.3g}")


def near(history: History, points: Sequence[Parameters]) -> Step | None:
    """What raced near the winner, where that just missed: as it is, then with the best settings of every layer.

    Which of few samples fall to another class is chance, so one of several as good plans may be within.
    """
    problem, first = history.problem, points[0]
    if not any(map(history.near_miss, history.of(first))) or not history.gains(first):
        return None
    for point in points:
        if not history.settled(point):
            return Step(point, "winner", f"near in the race to what just missed: {_changed(point, first)}")
    for point in points[:FEW]:
        better = with_best(point, problem.sensitivities(point))
        if not history.settled(better):
            return Step(
                better, "settings", f"best settings of every layer, near what just missed: {_changed(point, first)}"
            )
    return None


def _changed(point: Parameters, other: Parameters) -> str:
    words = [setting_words(*item) for item in globals_of(point).items() if other[item[0]] != item[1]]
    return ", ".join(words) or "as it was"


def base_of(history: History, point: Parameters, candidates: Candidates) -> Parameters:
    """The settings to go on with: the best by prediction, unless these were tried and are worse than the winner's."""
    better = with_best(point, candidates)
    if meaning(better, history.problem) == meaning(point, history.problem):
        return point
    tried = history.of(better)
    material = predicted(better, candidates) < MATERIAL * predicted(point, candidates)
    before, after = history.compared([point, better])
    if not material or (any(not trial.pending for trial in tried) and after > before):
        return point
    return better


def retreat(plans: Plans) -> Step | None:
    """Half of the layers in float, then three quarters, down to one in INT8: those of least predicted loss.

    Down to none where other layers are in INT8 in every plan.
    """
    problem = plans.history.problem
    order = sorted(
        (layer for layer, loss in plans.losses.items() if math.isfinite(loss) and problem.gains[layer] > 0.0),
        key=lambda layer: (plans.losses[layer], -problem.gains[layer]),
    )
    always = any(unit not in problem.layers and not is_tensor(unit) for unit in plans.candidates)
    sizes = [len(order) >> halvings for halvings in range(1, len(order).bit_length() + always)]
    for count in sizes:
        point = plans.plan(frozenset(order[:count]))
        if not plans.history.settled(point) and not plans.outs.exclude(point):
            return Step(point, "retreat", f"nothing was within: the {count} of least predicted loss in INT8")
    return None


def second_look(plans: Plans) -> Step | None:
    """What was set aside without a proof, on all samples, once there is nothing better to try."""
    trial = plans.outs.doubted()
    if trial is None:
        return None
    why = f"second look: trial {trial.number}, which was set aside, on all samples"
    return Step(trial.parameters, "second look", why, plans.history.problem.total)


def around(incumbent: Past, history: History) -> Step:
    """For a sampler, which may change settings of layers, and which of them are in INT8."""
    free = tuple(name for name in history.problem.dimensions if unit_of(name))
    return Step(incumbent.parameters, "tpe", f"TPE around trial {incumbent.number}", free=free)
