"""How much each INT8 layer of a plan changes the output by itself."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from autoquant.calibration.plan import Plan
from autoquant.errors import TrialError
from autoquant.evaluation.data.batch import Outputs
from autoquant.evaluation.engines.engine import run_batch
from autoquant.evaluation.scoring.sample_scorer import SampleScorer
from autoquant.evaluation.scoring.score import OnProgress
from autoquant.model.names import is_tensor
from autoquant.quiet import no_progress
from autoquant.tuning.builder import Builder


def layer_output_errors(
    builder: Builder, scorer: SampleScorer, plan: Plan, folder: Path, on_progress: OnProgress = no_progress
) -> tuple[tuple[str, float], ...]:
    """Layers and the relative error of the first output when only that layer is INT8, largest first.

    The error is |y - y_fp32| / |y_fp32|, Euclidean norms over a batch of evaluation samples; infinite where the layer
    alone cannot be built or run. `folder` is for the models that this takes.
    """
    batch = next(scorer.subset.data.batches(scorer.batch_size))
    with closing(scorer.open_float()) as plain:
        reference = run_batch(plain, batch)
    found: dict[str, float] = {}
    layers = {name: settings for name, settings in plan.int8.items() if not is_tensor(name)}
    for done, (name, settings) in enumerate(layers.items(), start=1):
        alone = replace(plan, layers={name: settings})
        try:
            path = builder.build(alone, folder).path
            with closing(scorer.engine.open_file(path, builder.program)) as runner:
                found[name] = relative_error(run_batch(runner, batch), reference)
        except TrialError:
            found[name] = np.inf
        on_progress(done, len(layers))
    return tuple(sorted(found.items(), key=lambda item: -item[1]))


def relative_error(outputs: Outputs, reference: Mapping[str, np.ndarray]) -> float:
    """|y - r| / |r| of the first output, Euclidean norms, float64."""
    name = next(iter(reference))
    expected = reference[name].astype(np.float64)
    error = np.linalg.norm(outputs[name].astype(np.float64) - expected)
    return float(error / max(float(np.linalg.norm(expected)), np.finfo(np.float64).tiny))
