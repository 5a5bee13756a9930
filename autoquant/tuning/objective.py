"""The objectives of a search: what it minimizes, a number for each plan, 1.0 for the model all in float.

Latency is estimated from measured times of every operator in float and in INT8, and of conversions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

import numpy as np

from autoquant import __version__
from autoquant.cache import digest_of
from autoquant.calibration.plan import Plan, layer_at_fault
from autoquant.errors import PlanError, TrialError
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.latency.models import one_batch
from autoquant.evaluation.latency.operator_times import OperatorTimes, cached_times, measured_times
from autoquant.formats.config_json import config_text
from autoquant.model.litert.graph import LiteGraph
from autoquant.targets.litert_assignment import (
    FLOAT,
    INPUTS,
    INT8,
    OUTPUTS,
    conversion_edges,
    conversions,
    integer_operators,
    minimum_cut,
)
from autoquant.targets.litert_operators import INT8_ENDS, quantizable
from autoquant.tuning.builder import Builder
from autoquant.tuning.study.choices import BYTES, LATENCY, MACS
from autoquant.tuning.study.run_folder import TEMPORARY
from autoquant.tuning.study.space import SearchSpace
from autoquant.tuning.study.workload import Bytes, Macs, Objective

TICKS = 10**8
"""The float model's time in whole numbers, which is what the minimum cut is computed in."""


@dataclass(frozen=True, eq=False)
class EstimatedLatency:
    """The time of a plan relative to that of the float model, one batch on one thread.

    `always_float` are layers that no plan quantizes; `completed` chooses what a plan leaves open. Whether a plan can
    have `lowest` is not known, only that none has less, but for some millionths: it is the fastest choice of operators,
    layers or not, with the conversions it needs.
    """

    lite: LiteGraph
    io: str
    times: OperatorTimes
    always_float: frozenset[str]
    completed: Callable[[Plan], Plan] = field(default=lambda plan: plan)
    name: str = LATENCY

    def __call__(self, plan: Plan) -> float:
        """Of a plan."""
        operators = integer_operators(self.lite, self.completed(plan), self.io)
        return self.times.total(operators, conversions(self.lite, operators, self.io)) / self.all_float

    @cached_property
    def lowest(self) -> float:
        """The value of a minimum cut whose source is INT8, and its sink float."""
        ticks = {edge: round(seconds * TICKS / self.all_float) for edge, seconds in _edges(self)}
        return (minimum_cut(ticks).value + len(ticks)) / TICKS  # what was rounded away was less than one each

    @property
    def all_float(self) -> float:
        """Seconds of the float model, the sum over its operators."""
        return float(np.nansum(self.times.in_float))


def _edges(latency: EstimatedLatency) -> Iterator[tuple[tuple[int, int], float]]:
    """Edges of the cut with the seconds that each costs: of an operator, a conversion, or endless.

    An operator on the side of the source is in integers, of whatever bits are faster, and cuts its edge to the sink.
    """
    lite, times, endless = latency.lite, latency.times, 10.0 * latency.all_float
    banned = {index for name, index in lite.layers.items() if name in latency.always_float}
    free = quantizable(lite) - banned
    end = INT8 if latency.io == INT8_ENDS else FLOAT
    node = {INPUTS: end, OUTPUTS: end} | {index: index + 2 for index in range(len(times.in_float))}
    in_float = np.nan_to_num(times.in_float)
    in_int8 = np.nan_to_num(times.fastest_integers)
    for index in range(len(in_float)):
        yield (node[index], FLOAT), float(in_int8[index]) if index in free else endless
        yield (INT8, node[index]), float(in_float[index])

    def costs(name: str) -> tuple[float, float]:
        return times.least_conversion(name, to_float=True), times.least_conversion(name, to_float=False)

    yield from conversion_edges(lite, node, costs, endless=endless, first=2 + len(in_float))


def open_latency(builder: Builder, space: SearchSpace, evaluation: Dataset, io: str, cache: Path) -> EstimatedLatency:
    """Measure what the estimate needs, or take it from the file of an earlier measurement of this very model.

    INT8 operators are those of the file that is made of the fullest plan, INT16 ones those of the same with 16 bits
    wherever there is that choice. Raises PlanError or TrialError where that
    cannot be made even without the layers that are at fault.
    """
    lite = builder.model.program
    assert isinstance(lite, LiteGraph)
    key = digest_of(
        __version__,
        version("ai-edge-litert"),
        builder.model.digest,
        io,
        config_text(space.fullest),
        config_text(space.widest),
    )

    def measured() -> OperatorTimes:
        plan = replace(space.fullest, training=False)  # which runs as fast trained or not
        plans = {8: plan} if space.widest == space.fullest else {8: plan, 16: replace(space.widest, training=False)}
        with tempfile.TemporaryDirectory(dir=cache.parent, prefix=TEMPORARY) as folder:
            models = {bits: _made(builder, own, Path(folder) / f"{bits}.tflite") for bits, own in plans.items()}
        return measured_times(lite, models, one_batch(builder.model, evaluation))

    return EstimatedLatency(lite, io, cached_times(cache, key, measured), space.always_float, builder.completed)


def _made(builder: Builder, plan: Plan, path: Path) -> bytes:
    """The file of a plan, or of what is left of it when layers that cannot be quantized are left in float."""
    while True:
        try:
            builder.make(plan, path)
            return path.read_bytes()
        except (PlanError, TrialError) as error:
            at_fault = layer_at_fault(error, plan)
            if not at_fault or len(plan.int8) == 1:
                raise
            plan = replace(plan, layers={**plan.layers, at_fault: None})


OBJECTIVES: Mapping[str, Callable[[Builder, SearchSpace, Dataset, str, Path], Objective]] = MappingProxyType(
    {
        MACS: lambda builder, space, *_: Macs(builder.workload, space.fullest),
        BYTES: lambda builder, space, *_: Bytes(builder.workload.layers, space.fullest),
        LATENCY: open_latency,
    }
)
"""Name -> how to make it; for latency it is measured first, which takes seconds, unless the file, a cache, has it.

Raises UsageError where it says nothing of this model, PlanError or TrialError where nothing can be measured.
"""
