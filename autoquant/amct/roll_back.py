"""Rolling layers back to float, as points of a study: the space of what may be, and a strategy that chooses in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from autoquant.amct.evaluator import Judgement
from autoquant.calibration.plan import Plan
from autoquant.errors import UsageError, did_you_mean
from autoquant.tuning.study.space import Choice, Parameters, Suggestion, switch_of
from autoquant.tuning.study.trial import Trial

RollBack = Mapping[str, bool]
"""Layers that may be rolled back -> whether they are in INT8."""
INITIALIZED = "name the layers that initialize() received"


class RollBackSpace:
    """Every layer that a plan puts into INT8 is there as it says, or in float; the others stay in float.

    A trial is one sample: it satisfies, which is a drop of 0, or does not.
    """

    max_drop = 0.0
    total = 1

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.layers = tuple(plan.int8)
        self.dimensions: Mapping[str, tuple[Choice, ...]] = {switch_of(name): (True, False) for name in plan.int8}

    def starts(self) -> Iterator[Suggestion]:
        """The plan itself."""
        yield Suggestion(dict.fromkeys(self.dimensions, True), "all INT8")

    def plan(self, parameters: Parameters) -> Plan:
        """The plan with its layers in float where a parameter says so."""
        layers = {
            name: settings if parameters.get(switch_of(name), True) else None
            for name, settings in self._plan.layers.items()
        }
        return replace(self._plan, layers=layers)

    def may_be_float(self, name: str) -> bool:
        """Never: which layers go back is for the strategy alone to say."""
        return False

    def roll_back(self, plan: Plan) -> RollBack:
        """Which layers of the space one of its plans has in INT8."""
        return {name: name in plan.int8 for name in self.layers}


class StrategySampler:
    """Suggests what an object of AutoCalibrationStrategyBase says.

    `final` is the configuration that it ended with: None as long as it goes on, and where it ended in all float.
    """

    def __init__(
        self, strategy: Any, ranking: Mapping[str, float], space: RollBackSpace, judged: Callable[[Trial], Judgement]
    ) -> None:
        """`judged` gives what the evaluator said of a trial that ended."""
        self.final: RollBack | None = None
        self._strategy = strategy
        self._ranking = ranking
        self._space = space
        self._judged = judged
        self._trials: Sequence[Trial] = ()
        self._suggestions = self._play()

    def __call__(self, trials: Sequence[Trial]) -> Suggestion | None:
        """The next configuration; None after the final one, and where nothing is left in INT8.

        The strategy learns what became of the one before. Raises UsageError where it does not say what it must.
        """
        self._trials = trials
        return next(self._suggestions, None)

    def _play(self) -> Iterator[Suggestion]:
        self._strategy.initialize(dict(self._ranking))
        stop, config = False, dict.fromkeys(self._ranking, True)
        while not stop:
            trial = next(trial for trial in self._trials if self._space.roll_back(trial.plan) == config)
            judgement = self._judged(trial)
            stop, config = self._read(self._strategy.update_quant_config((judgement.satisfied, judgement.loss)))
            if not any(config.values()):
                return
            if stop:
                self.final = config
            point = {switch_of(name): int8 for name, int8 in config.items()}
            yield Suggestion(point, type(self._strategy).__name__)

    def _read(self, step: Any) -> tuple[bool, dict[str, bool]]:
        """Whether a step is the last, and its configuration; layers that it does not name are in INT8."""
        who = type(self._strategy).__name__
        try:
            stop, config = bool(step["stop_flag"]), dict(step["roll_back_config"])
        except (TypeError, KeyError, ValueError):
            hint = "it must return {'stop_flag': bool, 'roll_back_config': {layer: bool}}"
            raise UsageError(who, f"update_quant_config() returned {step!r}", hint=hint) from None
        for layer in config:
            if layer not in self._ranking:
                what = f"update_quant_config() names '{layer}', which is not in the ranking"
                raise UsageError(who, what, hint=did_you_mean(layer, self._ranking, otherwise=INITIALIZED))
        return stop, {layer: bool(config.get(layer, True)) for layer in self._ranking}
