"""Searches without a model: losses and drops by formula, evaluated as a stream is, with an optimum that is known."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from autoquant.calibration.plan import Plan
from autoquant.tuning.sampling.problem import gain_of, globals_of, int8_of, with_int8
from autoquant.tuning.sensitivity.request import Prediction
from autoquant.tuning.study.space import Choice, Parameters, Suggestion, switch_of
from autoquant.tuning.study.study import Sampler
from autoquant.tuning.study.trial import State, Trial


def trial_of(suggestion: Suggestion, number: int, state: State = State.RUNNING, **facts: Any) -> Trial:
    """A trial of a suggestion, of whose plan nothing is known but its parameters."""
    suggested = {name: getattr(suggestion, name) for name in ("parameters", "phase", "max_samples", "note")}
    return Trial(number, state, Plan({}), suggestion.why, **suggested, **facts)


@dataclass
class Synthetic:
    """Layers whose divergences add up, more or less; `harm` of globals multiplies them, `ranges` those of one layer.

    `true` and `predicted` are per layer and range; `pairs` is what two layers cost together on top.
    """

    gains: Mapping[str, float]
    true: Mapping[str, Mapping[str, float]]
    predicted: Mapping[str, Mapping[str, float]]
    harm: Mapping[str, Mapping[Choice, float]] = field(default_factory=dict)
    pairs: Mapping[tuple[str, str], float] = field(default_factory=dict)
    flips: Mapping[str, float] = field(default_factory=dict)
    noise: float = 0.0
    slope: float = 1.0
    max_drop: float = 0.01
    total: int = 2000
    max_trials: float = math.inf
    seed: int = 0
    asked: int = 0

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(self.gains)

    @property
    def dimensions(self) -> Mapping[str, tuple[Choice, ...]]:
        ranges = {f"{layer}:act_algo": tuple(own) for layer, own in self.true.items() if len(own) > 1}
        switches = {switch_of(layer): (True, False) for layer in self.layers}
        return {**{name: tuple(own) for name, own in self.harm.items()}, **switches, **ranges}

    @property
    def makers(self) -> Mapping[str, tuple[str, ...]]:
        return {}

    @property
    def lowest(self) -> float:
        return 1.0 - sum(gain for gain in self.gains.values() if gain > 0.0)

    def objective(self, parameters: Parameters) -> float:
        return 1.0 - gain_of(int8_of(parameters, self), self)

    def sensitivities(self, parameters: Parameters) -> Mapping[str, tuple[Prediction, ...]]:
        self.asked += 1
        factor = self._harm(globals_of(parameters))
        return {
            layer: tuple(
                Prediction({f"{layer}:act_algo": name} if len(own) > 1 else {}, divergence * factor)
                for name, divergence in own.items()
            )
            for layer, own in self.predicted.items()
        }

    def divergence(self, parameters: Parameters) -> float:
        """Nats, as they are."""
        int8 = int8_of(parameters, self)
        single = sum(self.true[layer][_range(self, layer, parameters)] for layer in sorted(int8))
        both = sum(own for pair, own in sorted(self.pairs.items()) if int8.issuperset(pair))
        return (single + both) * self._harm(globals_of(parameters))

    def drop(self, parameters: Parameters) -> float:
        """On all samples: a divergence of 0.05 nats is just within, but for the noise, which repeats itself."""
        int8 = int8_of(parameters, self)
        noise = self.noise * self._normal("|".join(sorted(int8))) + sum(
            self.flips.get(layer, 0.0) for layer in sorted(int8)
        )
        return float(min(self.max_drop * ((self.divergence(parameters) / 0.05) ** self.slope + noise), 0.9))

    def evaluate(self, suggestion: Suggestion, number: int) -> Trial:
        """Sample after sample, in steps that double, until decided or at the limit."""
        parameters = suggestion.parameters
        drop, divergence = self.drop(parameters), self.divergence(parameters)
        last = suggestion.max_samples or self.total
        samples, half, estimate = 32, math.inf, drop
        while True:
            samples = min(samples, last, self.total)
            error = math.sqrt((abs(drop) + 0.01) / samples * (1.0 - samples / self.total))
            half, estimate = 3.0 * error, drop + error * float(np.clip(self._normal(f"{number} {samples}"), -3, 3))
            low, high = estimate - half, estimate + half
            within = drop <= self.max_drop if samples == self.total else _proven(low, high, self.max_drop)
            if within is not None or samples >= last:
                break
            samples *= 2
        seen = min(samples, 256)
        return trial_of(
            suggestion,
            number,
            State.DONE if samples == self.total else State.STOPPED,
            samples=samples,
            divergences=(divergence * math.exp(0.3 / math.sqrt(seen) * self._normal(f"{number} loss")),),
            divergence_samples=seen,
            drop=estimate,
            low=low,
            high=high,
            within=within,
            objective=self.objective(parameters),
        )

    def optimum(self) -> float:
        """The largest gain of any plan that is within, by trying all of them with the best settings that there are."""
        best: dict[str, Choice] = {
            f"{layer}:act_algo": min(own, key=own.__getitem__) for layer, own in self.true.items()
        }
        best |= {name: min(own, key=own.__getitem__) for name, own in self.harm.items()}
        settings = {name: best.get(name, choices[0]) for name, choices in self.dimensions.items()}
        sizes = range(len(self.layers) + 1)
        every = [some for size in sizes for some in itertools.combinations(self.layers, size)]
        for gain, int8 in sorted(((gain_of(int8, self), int8) for int8 in every), reverse=True):
            if self.drop(with_int8(settings, self, int8)) <= self.max_drop:
                return max(gain, 0.0)
        return 0.0

    def _harm(self, chosen: Parameters) -> float:
        return math.prod(self.harm[name][value] for name, value in chosen.items())

    def _normal(self, words: str) -> float:
        return float(np.random.default_rng([self.seed, zlib.crc32(words.encode())]).normal())


@dataclass
class Played:
    """The trials of a search, and whether it came to an end by itself."""

    trials: list[Trial]
    ended: bool
    total: int

    def cost(self, trials: int | None = None) -> float:
        """Full-evaluation equivalents of the first so many trials."""
        return sum(trial.samples for trial in self.trials[:trials]) / self.total

    def cost_until(self, problem: Synthetic, gain: float) -> float:
        """Full-evaluation equivalents until a plan with so much gain was found; infinite where none was."""
        for count, trial in enumerate(self.trials, 1):
            if trial.within and gain_of(int8_of(trial.parameters, problem), problem) >= gain:
                return self.cost(count)
        return math.inf


def play(
    problem: Synthetic,
    sampler: Sampler,
    *,
    budget: float = 10.0,
    most: int = 200,
    before: Sequence[Trial] = (),
) -> Played:
    """One trial after the other, behind those `before`, until the sampler ends it or the budget is spent.

    The budget is in full evaluations, and in the number of trials.
    """
    trials = list(before)
    while sum(trial.samples for trial in trials) < budget * problem.total and len(trials) < most:
        suggestion = sampler(trials)
        if suggestion is None:
            return Played(trials, True, problem.total)
        trials.append(problem.evaluate(suggestion, len(trials)))
    return Played(trials, False, problem.total)


def random_problem(
    seed: int, *, layers: int = 10, bad: int = 2, wrong: float = 0.3, pairs: float = 0.0, ranges: int = 1
) -> Synthetic:
    """Layers of which some are bad, all of them together out; `wrong` is the error of predictions, in logarithms."""
    random = np.random.default_rng(seed)
    names = [f"l{number:02d}" for number in range(layers)]
    share = random.dirichlet(np.full(layers, 2.0))
    base = 0.05 * random.uniform(0.3, 0.9) * random.dirichlet(np.full(layers, 1.0))
    base[random.choice(layers, bad, replace=False)] = 0.05 * random.lognormal(1.0, 1.0, size=bad)
    kinds = [f"r{number}" for number in range(ranges)]
    factor = random.lognormal(0.0, 0.5, (layers, ranges)) if ranges > 1 else np.ones((layers, 1))
    true = {name: dict(zip(kinds, (base[i] * factor[i]).tolist(), strict=True)) for i, name in enumerate(names)}
    error = random.lognormal(random.normal(0.0, 0.5), wrong, (layers, ranges))
    predicted = {
        name: {kind: true[name][kind] * float(error[i, j]) for j, kind in enumerate(kinds)}
        for i, name in enumerate(names)
    }
    chosen = itertools.combinations(names, 2) if pairs else ()
    both = {
        (a, b): float(random.normal(0.0, pairs)) * math.sqrt(true[a]["r0"] * true[b]["r0"])
        for a, b in chosen
        if random.random() < 0.3
    }
    flips = dict(zip(names, random.normal(0.0, 0.05, layers).tolist(), strict=True))
    slope = float(random.uniform(0.6, 1.2))
    gains = dict(zip(names, share.tolist(), strict=True))
    return Synthetic(gains, true, predicted, pairs=both, flips=flips, noise=0.1, slope=slope, seed=seed)


def _proven(low: float, high: float, max_drop: float) -> bool | None:
    if low > max_drop:
        return False
    return True if high <= max_drop else None


def _range(problem: Synthetic, layer: str, parameters: Parameters) -> str:
    return str(parameters.get(f"{layer}:act_algo", next(iter(problem.true[layer]))))
