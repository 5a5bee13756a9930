"""Which layer is to blame: for an error, or most of all for what a plan loses."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from autoquant.calibration.plan import Plan
from autoquant.errors import AutoquantError, TrialError
from autoquant.evaluation.data.batch import Outputs
from autoquant.evaluation.engines.engine import run_batch
from autoquant.evaluation.scoring.evaluator import Progress, no_progress
from autoquant.model.names import is_tensor
from autoquant.tuning.builder import Workbench


def costly_layers(
    bench: Workbench, plan: Plan, folder: Path, on_progress: Progress = no_progress
) -> tuple[tuple[str, float], ...]:
    """Layers and the relative error of the first output when only that layer is INT8, largest first.

    The error is |y - y_fp32| / |y_fp32|, Euclidean norms over a batch of evaluation samples; infinite where the layer
    alone does not work out. `folder` is for the models that this takes.
    """
    batch = next(bench.part.data.batches(bench.batch_size))
    with closing(bench.engine.open_graph(bench.builder.model.program)) as plain:
        reference = run_batch(plain, batch)
    found: dict[str, float] = {}
    layers = {name: settings for name, settings in plan.int8.items() if not is_tensor(name)}
    for done, (name, settings) in enumerate(layers.items(), start=1):
        alone = replace(plan, layers={name: settings})
        try:
            path = bench.builder.build(alone, folder).path
            with closing(bench.engine.open_file(path, bench.builder.model.program)) as runner:
                found[name] = relative_error(run_batch(runner, batch), reference)
        except TrialError:
            found[name] = np.inf
        on_progress(done, len(layers))
    return tuple(sorted(found.items(), key=lambda item: -item[1]))


def layer_at_fault(error: AutoquantError, plan: Plan) -> str:
    """The INT8 layer of a plan that an error names, by itself or by its second activation; empty without one."""
    return next((name for name in (error.where, error.where.rpartition(":")[0]) if name in plan.int8), "")


def relative_error(outputs: Outputs, reference: Mapping[str, np.ndarray]) -> float:
    """|y - r| / |r| of the first output, Euclidean norms, float64."""
    name = next(iter(reference))
    expected = reference[name].astype(np.float64)
    error = np.linalg.norm(outputs[name].astype(np.float64) - expected)
    return float(error / max(float(np.linalg.norm(expected)), np.finfo(np.float64).tiny))
