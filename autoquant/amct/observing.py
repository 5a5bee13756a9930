"""What the INT8 layers of a plan read while the user's evaluator calibrates a live graph: once, for every trial."""

from __future__ import annotations

from functools import partial

from autoquant.amct.calibration import shown
from autoquant.amct.collecting import Collectors
from autoquant.amct.judging import Guard, Judge
from autoquant.amct.opened import LiveModel, live_activations
from autoquant.amct.probes import attach
from autoquant.calibration.plan import Plan
from autoquant.calibration.statistics import Statistics
from autoquant.errors import DataError
from autoquant.model.shapes import imported
from autoquant.quantization.affine import Array


class Observer:
    """Takes in the first `batch_num` passes of each layer; later ones are not looked at."""

    def __init__(self, model: LiveModel, plan: Plan) -> None:
        self._layers = {name: model.survey.by_name[name] for name in plan.int8}
        self._batch_num = plan.batch_num
        self._collectors = Collectors(plan, self._layers)
        self._passes = dict.fromkeys(self._layers, 0)

    def see(self, name: str, *activations: Array) -> None:
        """Take in what a layer reads in one pass. Raises TrialError where it is too large to keep all values."""
        if self._passes[name] < self._batch_num:
            self._passes[name] += 1
            self._collectors.add(name, activations)

    def statistics(self) -> Statistics:
        """What has been seen. Raises DataError where a layer has not had all passes."""
        waiting = [name for name, passes in self._passes.items() if passes < self._batch_num]
        if waiting:
            fewest = min(self._passes.values())
            what = f"ran {shown(waiting)} in {fewest} of {self._batch_num} batches: the calibration is not finished"
            hint = "run the outputs at least batch_num times, or lower batch_num in the config"
            raise DataError("evaluator.calibration()", what, hint=hint)
        return self._collectors.statistics()


def observe(model: LiveModel, plan: Plan, judge: Judge) -> Statistics:
    """Let the evaluator calibrate the model, with probes before all INT8 layers of the plan.

    Raises DataError where it runs fewer than `batch_num` batches, TrialError where values are too many for memory, and
    whatever the evaluator raises. What is wrong with the values of a layer is told when its scales are computed.
    """
    graph, guard, observer = imported(model.graph), Guard(), Observer(model, plan)
    for name in plan.int8:
        layer = model.survey.by_name[name]
        see = guard.watch(partial(observer.see, name))
        attach(graph, layer.node, live_activations(graph, layer), see, name=f"{name.replace(':', '_')}/observed")
    judge.calibrate(graph, guard)
    return observer.statistics()
