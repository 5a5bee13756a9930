"""The plan to try next once divergences can be predicted: what it is expected to gain for the time it takes decides.

The knapsack (knapsack.py) gives the plans with most gain for bounds on the divergence. Around the incumbent its plans
are refinements: one more layer in INT8, or one for another. To these come those with a single layer in float, and in
small networks with two, whatever the bounds; and plans in which a layer has other settings than the best: those of a
near miss are worth a try, as which of few samples fall to another class is chance, as far as anybody can tell.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, compress

import numpy as np

from autoquant.tuning.sampling.coding import SAME, Codes, Layers
from autoquant.tuning.sampling.infeasible import Cuts
from autoquant.tuning.sampling.plans import Plans
from autoquant.tuning.sampling.predictions import number_of
from autoquant.tuning.sampling.problem import Switch, int8_of
from autoquant.tuning.sensitivity.request import Prediction
from autoquant.tuning.study.space import Choice, Suggestion, bits_of

CHANCES = (0.97, 0.9, 0.8, 0.65, 0.5, 0.35, 0.2, 0.1, 0.03)
"""The knapsack's bounds are where plans are within with these chances."""
HOPELESS = 0.01
"""What is within with less than this chance is not tried."""
CHEAP = 0.08
"""The share of the samples that shows that a plan is out."""
NEAR = 3
"""A plan that differs in no more layers from the incumbent refines it."""
MISSES = 3
"""So many near misses have other settings tried."""
MIXED, ALIKE = 2, 1.5
"""So many mixtures of settings of each, whose predicted divergence is at most so many times that of the best."""
SMALL = 12
"""In networks of so many layers all pairs of layers in float are judged, before any other settings are tried."""
SINGLES = 12
"""Of larger networks so many plans with a single layer in float, those that are worth most."""


@dataclass(frozen=True, slots=True, eq=False)
class Move:
    """A plan: what it gains more than the incumbent, its predicted divergence, the chance that it is within.

    `changed` says in words which settings are not the best, or not those of trial `missed`, where it is one of these.
    """

    codes: Codes
    gain: float
    divergence: float
    chance: float
    changed: str = ""
    missed: int | None = None

    @property
    def worth(self) -> float:
        """The expected gain for the expected share of the samples; larger is better."""
        return worth_of(self.gain, self.chance)


def worth_of(gain: float, chance: float) -> float:
    """The same of a gain and the chance of it."""
    return gain * chance / (chance + (1.0 - chance) * CHEAP)


def next_move(plans: Plans) -> Suggestion | None:
    """The move that is worth most, where any is left that is not hopeless."""
    choices = [*knapsacks(plans), *float_choices(plans)]
    if not is_small(plans):
        return _best(plans, [*choices, *alternatives(plans), *variants(plans), *mixtures(plans)])
    return _best(plans, choices) or _best(plans, [*alternatives(plans), *variants(plans), *mixtures(plans)])


def next_float_choice(plans: Plans) -> Suggestion | None:
    """The same of a small network without other settings than the best; None for a larger one."""
    return _best(plans, [*knapsacks(plans), *float_choices(plans)]) if is_small(plans) else None


def is_small(plans: Plans) -> bool:
    """Whether all pairs of layers in float are judged."""
    return len({switch.layer for switch in plans.history.coding.switches.values()}) <= SMALL


def _best(plans: Plans, moves: Iterable[Move]) -> Suggestion | None:
    hopeful = [move for move in moves if move.chance >= HOPELESS]
    best = max(hopeful, key=lambda move: (move.worth, -move.divergence), default=None)
    return None if best is None else _suggestion(plans, best)


def remaining_gain(plans: Plans) -> float:
    """What can still be gained at most: by the best plan that no trial excludes."""
    cuts = plans.infeasible.proven_infeasible(plans.base_codes)
    most = plans.most_gain(bound=math.inf, cuts=cuts)
    return -math.inf if most is None else plans.history.gain_over_incumbent(most)


def knapsacks(plans: Plans) -> Iterator[Move]:
    """The plans with most gain for each bound, that are better than the incumbent."""
    bounds = [plans.curve.divergence_at(chance) - plans.floor for chance in CHANCES]
    found: list[Layers] = []
    for bound in sorted((bound for bound in bounds if bound > 0.0), reverse=True):
        # What has most gain for a larger bound, and keeps this one, has most gain for it too.
        if found and plans.cost_of(found[-1]) <= bound:
            continue
        int8 = plans.most_gain(bound=bound, cuts=plans.cuts)
        if int8 is not None:
            found.append(int8)
    for int8 in reversed(found):
        yield from _moves(plans, plans.plan(int8))


def float_choices(plans: Plans) -> Iterator[Move]:
    """The plans with a single layer in float, or with 16 bits that make a difference; in small networks with two."""
    most = np.isfinite(plans.divergences) & (plans.gains > 0.0)
    switches = np.flatnonzero(most).tolist()
    ways = [*combinations(switches, 1), *(combinations(switches, 2) if is_small(plans) else ())]
    found = [_without(plans, most, off) for off in ways]
    useful = [int8 for int8 in found if not plans.in_vain(int8)]

    def rank(int8: Layers) -> float:
        chance = plans.curve.chance(plans.floor + plans.cost_of(int8))
        return -worth_of(float(plans.gains[int8].sum()), chance)

    for int8 in useful if is_small(plans) else sorted(useful, key=rank)[:SINGLES]:
        yield from _moves(plans, plans.plan(int8))


def _without(plans: Plans, int8: Layers, off: Collection[int]) -> Layers:
    """The same without these switches, and without what means nothing then."""
    fewer = int8.copy()
    fewer[list(off)] = False
    return plans.history.coding.meaningful(fewer)


def alternatives(plans: Plans) -> Iterator[Move]:
    """The incumbent with one more layer in INT8, where that was tried, but with other settings than the best.

    Other settings of the layer itself, or of the one whose divergence is the largest.
    """
    history, coding = plans.history, plans.history.coding
    incumbent = None if history.incumbent is None else coding.encode(history.incumbent.parameters)
    if incumbent is None or (incumbent != plans.base_codes)[coding.whole].any():
        return
    int8, switches = coding.int8(incumbent), list(coding.switches.values())
    in_int8 = sorted(compress(range(int8.size), int8), key=list(coding.switches).__getitem__)
    worst = [max(in_int8, key=plans.divergences.__getitem__)] if in_int8 else []
    for layer in np.flatnonzero(_completing(plans.cuts, int8)).tolist():
        more = int8.copy()
        more[layer] = True
        for tunable in dict.fromkeys(switches[place].layer for place in (layer, *worst)):
            for prediction in _different(plans, tunable, more):
                if math.isfinite(prediction.divergence):
                    words = ", ".join(f"{name} {value}" for name, value in prediction.parameters.items())
                    yield from _moves(plans, coding.changed(plans.plan(more), prediction.parameters), changed=words)


def _different(plans: Plans, tunable: str, int8: Layers) -> Iterator[Prediction]:
    """The settings of a tunable; with activations of 16 bits those that make a difference then, as ranges do not."""
    predictions, switches = plans.table.predictions.get(tunable, ()), list(plans.history.coding.switches)
    if bits_of(tunable) not in switches or int8[switches.index(bits_of(tunable))]:
        yield from predictions
        return
    seen = {_wide_words(one) for one in predictions if one.parameters.items() <= plans.base.items()}
    for one in predictions:
        if _wide_words(one) not in seen:
            seen.add(_wide_words(one))
            yield one


def _wide_words(prediction: Prediction) -> str:
    """The divergence with 16 bits, to two digits."""
    return "" if prediction.wide is None else f"{prediction.wide:.1e}"


def _completing(cuts: Cuts, int8: Layers) -> Layers:
    """The layers in float each of which would, in INT8, make a plan contain a cut."""
    missing = cuts & ~int8
    counts = np.count_nonzero(missing, axis=1)
    return np.asarray(~int8 & ((counts == 0).any() | missing[counts == 1].any(axis=0)))


def variants(plans: Plans) -> Iterator[Move]:
    """The near misses of most gain, each with other settings of all layers at once.

    Those of a single layer hardly change which samples fall to another class.
    """
    history = plans.history
    for place in plans.near_misses[:MISSES].tolist():
        for changed, words in history.coding.everywhere:
            codes = np.where(changed == SAME, history.codes[place], changed)
            yield from _moves(plans, codes, changed=f"{words} in all layers", missed=history.trials[place].number)


def mixtures(plans: Plans) -> Iterator[Move]:
    """The same with settings of their own for all layers, drawn among those that are predicted to be nearly as good.

    Where chance decides which of equally good plans is within, another one of as much gain is found within for fewer
    samples than one of less gain that is scored on all. Drawn anew after each trial, always the same.
    """
    history, coding = plans.history, plans.history.coding
    if not history.chance_decides:
        return
    layers = [switch.layer if switch.on is True else "" for switch in coding.switches.values()]
    nearly = [_nearly_best(plans.table.predictions.get(layer, ())) for layer in layers]
    for place in plans.near_misses[:MISSES].tolist():
        draw, number = np.random.default_rng([len(history.trials), place]), history.trials[place].number
        for _ in range(MIXED):
            settings: dict[str, Choice] = {}
            for near in filter(None, compress(nearly, history.int8[place])):
                settings |= near[int(draw.integers(len(near)))].parameters
            codes = coding.changed(history.codes[place], settings)
            yield from _moves(plans, codes, changed="settings of its own for each layer", missed=number)


def _nearly_best(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The settings of a layer that are predicted to be at most ALIKE times as bad as the best."""
    least = min((number_of(one.divergence) for one in predictions), default=0.0)
    return [one for one in predictions if number_of(one.divergence) <= ALIKE * least]


def _moves(plans: Plans, codes: Codes, *, changed: str = "", missed: int | None = None) -> Iterator[Move]:
    """A plan as a move, where it is worth one."""
    if plans.infeasible.is_open(codes):
        gain = plans.history.gain_over_incumbent(plans.history.coding.int8(codes))
        yield Move(codes, gain, *plans.outlook(codes), changed, missed)


def _suggestion(plans: Plans, move: Move) -> Suggestion:
    incumbent, problem = plans.history.incumbent, plans.problem
    parameters = plans.history.coding.decode(move.codes)
    int8 = int8_of(parameters, problem)
    before = frozenset[str]() if incumbent is None else int8_of(incumbent.parameters, problem)
    odds = f"predicted divergence of {move.divergence:.3g}, {move.chance:.0%} likely to be within tolerance"
    if move.missed is not None:
        words = f"refine: trial {move.missed}, a near miss, with {move.changed} ({odds})"
        return Suggestion(parameters, words, "refine")
    if incumbent is not None and len(int8 ^ before) <= NEAR:
        words = _changed_words(plans.history.coding.switches, int8 - before, before - int8)
        words += f" with {move.changed}" if move.changed else ""
        return Suggestion(parameters, f"refine: {words} ({odds})", "refine")
    low, high = plans.bracket
    proven = f"bracket {low:.3g}..{high:.3g}" if math.isfinite(high) else f"over {low:.3g}"
    return Suggestion(parameters, f"knapsack: most gain for a {odds} ({proven})", "knapsack")


def _changed_words(switches: Mapping[str, Switch], more: Collection[str], fewer: Collection[str]) -> str:
    """Switches that are turned on, and off, in words."""
    in_float = [name for name in sorted(fewer) if switches[name].on is True]
    wide = [name for name in sorted(fewer) if switches[name].on is not True and switches[name].layer not in fewer]
    words = f"{', '.join(switches[name].words for name in sorted(more))} in INT8 again" if more else ""
    off = ((in_float, "float"), (wide, "INT16"))
    for_these = [f"{', '.join(switches[name].words for name in own)} in {what}" for own, what in off if own]
    return " for ".join(part for part in (words, " and ".join(for_these)) if part)
