"""AMCT's ranking of layers: how alike a layer's outputs are in float and in INT8, from what it reads in float."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing

import numpy as np

from autoquant.calibration.plan import Plan, adapt_plan
from autoquant.calibration.record import Calibrator
from autoquant.errors import TrialError
from autoquant.evaluation.engines.tensorflow import TensorFlowEngine
from autoquant.evaluation.metrics.divergence import cosine_similarity
from autoquant.targets.tensorflow import quantize
from autoquant.tuning.sensitivity.request import SensitivityRequest

BATCH = 64


def cosines(request: SensitivityRequest) -> Mapping[str, float]:
    """The cosine of each layer's float and INT8 outputs with its first candidate, over all samples; a graph's layers.

    In [-1, 1]; 1 where both have the same direction or the float output is all 0. A layer that cannot be quantized has
    -infinity, so that it is the first to stay in float; settings that AMCT has not become those that it has. Raises
    TrialError where the model does not run.
    """
    graph, engine = request.model.graph, TensorFlowEngine()
    calibrator = Calibrator(graph, request.layers, request.statistics)
    results = {name: request.layers[name].bias or request.layers[name].node for name in request.candidates}
    with closing(engine.open_graph(graph, sorted(set(results.values())))) as runner:
        plain = [runner(batch.inputs) for batch in request.sample_subset.batches(BATCH)]
    found: dict[str, float] = {}
    for name, each in request.candidates.items():
        try:
            plan = adapt_plan(Plan({name: each[0]}, request.batches), request.layers).plan
            alone = quantize(graph, request.layers, calibrator.record(plan))
        except TrialError:
            found[name] = -np.inf
            continue
        with closing(engine.open_graph(alone, [results[name]])) as runner:
            outputs = [runner(batch.inputs)[results[name]] for batch in request.sample_subset.batches(BATCH)]
        found[name] = cosine_similarity([part[results[name]] for part in plain], outputs)
    return found
