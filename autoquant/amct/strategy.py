"""Which layers go back to float next, decided from the ranking and from what became of earlier configurations.

Rolling layers back is a study: a space of what may be, and a strategy that chooses the points in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from autoquant.amct.arguments import by_name_or_own, not_overridden
from autoquant.amct.evaluator import Judgement
from autoquant.calibration.plan import Plan
from autoquant.errors import UsageError, did_you_mean
from autoquant.tuning.sampling.rank_and_bisect import bisect
from autoquant.tuning.study.space import Choice, Parameters, Suggestion, switch_of
from autoquant.tuning.study.trial import Trial

RollBack = Mapping[str, bool]
"""Layers that may be rolled back -> whether they are in INT8."""
INITIALIZED = "name the layers that initialize() received"


class AutoCalibrationStrategyBase:
    """What a strategy of the user's own overrides.

    `initialize` is called once; `update_quant_config` first with what became of all layers in INT8, then each time with
    what became of the configuration that it gave last.
    """

    def initialize(self, ranking_info: dict[str, float]) -> None:
        """Take the layers that may be rolled back, with their scores: the larger, the less INT8 changes the layer."""
        raise not_overridden(self, "initialize(ranking_info)")

    def update_quant_config(self, metric_eval: tuple[bool, Any]) -> dict[str, Any]:
        """Say what is next, given whether the last configuration satisfied the requirement, and with which loss.

        Returns {'stop_flag': bool, 'roll_back_config': {layer: True in INT8, False in float}}. With the stop flag set
        the configuration is the final one. The loss of a configuration that could not be built is infinite.
        """
        raise not_overridden(self, "update_quant_config(metric_eval)")


class BinarySearchStrategy(AutoCalibrationStrategyBase):
    """Find, by bisection, the fewest layers from the worst on that must go back to float (AMCT's default).

    It takes for granted that accuracy does not fall when more of them go back.
    """

    def initialize(self, ranking_info: dict[str, float]) -> None:
        """Sort the layers, the worst first; equals stay in the order given."""
        self._layers = sorted(ranking_info, key=lambda name: ranking_info[name])
        self._satisfied: dict[int, bool] = {}
        self._in_float = 0

    def update_quant_config(self, metric_eval: tuple[bool, Any]) -> dict[str, Any]:
        """The layers up to the middle of what is left in float; at the end, the shortest that satisfied."""
        self._satisfied[self._in_float] = metric_eval[0]
        step = bisect(len(self._layers), self._satisfied.get)
        self._in_float = step.number
        roll_back = {name: place >= step.number for place, name in enumerate(self._layers)}
        return {"stop_flag": step.done, "roll_back_config": roll_back}


@dataclass(frozen=True, slots=True)
class TpeStrategy:
    """What `autoquant search` does: Optuna's TPE chooses layer by layer, for `trials` configurations at most.

    It does not follow the ranking, so it also finds layers that the ranking misjudges, but it takes more trials.
    """

    trials: int = 30
    seed: int = 0

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise ValueError(f"trials must be greater than zero, got {self.trials}")


STRATEGIES: Mapping[str, Callable[[], AutoCalibrationStrategyBase | TpeStrategy]] = MappingProxyType(
    {"BinarySearch": BinarySearchStrategy, "TPE": TpeStrategy}
)


def open_strategy(strategy: Any) -> Any:
    """A strategy by name, or the user's own object with the methods of the base. Raises UsageError."""
    if isinstance(strategy, TpeStrategy):
        return strategy
    methods = ("initialize", "update_quant_config")
    return by_name_or_own("strategy", strategy, STRATEGIES, methods, base="AutoCalibrationStrategyBase")


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
