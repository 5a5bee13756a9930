"""Which layers go back to float next, decided from the ranking and from what became of earlier configurations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from autoquant.amct.arguments import by_name_or_own, not_overridden


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
        self._left, self._right = 0, len(self._layers) - 1
        self._probed: int | None = None
        self._satisfying = self._right  # all in float is float

    def update_quant_config(self, metric_eval: tuple[bool, Any]) -> dict[str, Any]:
        """The layers up to the middle of what is left in float; at the end, the shortest that satisfied."""
        satisfied, _ = metric_eval
        if self._probed is not None and satisfied:
            self._satisfying, self._right = self._probed, self._probed - 1
        elif self._probed is not None:
            self._left = self._probed + 1
        if self._left > self._right:
            return {"stop_flag": True, "roll_back_config": self._in_float_up_to(self._satisfying)}
        self._probed = (self._left + self._right) // 2
        return {"stop_flag": False, "roll_back_config": self._in_float_up_to(self._probed)}

    def _in_float_up_to(self, last: int) -> dict[str, bool]:
        return {name: place > last for place, name in enumerate(self._layers)}


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
