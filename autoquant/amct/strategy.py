"""Which layers go back to float next, decided from the ranking and from what became of earlier configurations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from autoquant.amct.arguments import by_name_or_own, not_overridden
from autoquant.tuning.sampling.rank_and_bisect import bisect


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
