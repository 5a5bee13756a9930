"""The layers of a plan that missed, by how far each of them alone, in INT8, takes the outputs from FP32's."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from autoquant.errors import AutoquantError, TrialError, UserFunctionError
from autoquant.evaluation.metrics.metric import reachable
from autoquant.evaluation.scoring.stopping import FIRST_PROBES, StoppingRules
from autoquant.model.operators import is_tensor
from autoquant.tuning.events import Warned
from autoquant.tuning.result import CostlyLayers
from autoquant.tuning.session import SearchSession
from autoquant.tuning.study.run_folder import TEMPORARY
from autoquant.tuning.study.trial import Trial

PREDICTED = "predicted on calibration samples"
TRIALS = 2
"""Measuring takes as long as so many trials at most."""


def costly_layers(session: SearchSession, trial: Trial) -> CostlyLayers:
    """What the search predicted of the layers, or else what can be measured in the time of two trials.

    The result is known already: nothing that happens here may lose it.
    """
    layers = [name for name in trial.plan.int8 if not is_tensor(name)]
    if session.has_no_time("the costliest layers were not looked for"):
        return CostlyLayers()
    try:
        known = session.known_divergences(trial.parameters)
        if known:
            return CostlyLayers.of({name: known[name] for name in layers if name in known}, PREDICTED)
        with tempfile.TemporaryDirectory(dir=session.folder.path, prefix=TEMPORARY) as folder:
            return _measured(session, trial, layers, Path(folder))
    except UserFunctionError:
        raise
    except (AutoquantError, OSError, MemoryError) as error:
        session.listener(Warned(f"the costliest layers could not be measured: {error}"))
        return CostlyLayers()


def _measured(session: SearchSession, trial: Trial, layers: Sequence[str], folder: Path) -> CostlyLayers:
    """Build and run a model of each layer alone, as many as there is time for."""
    longest_trial = max(sum(one.seconds.values()) for one in session.study.trials())
    clock, longest = session.limit.clock, 0.0
    begin = clock()
    end = begin + min(TRIALS * longest_trial, session.limit.left())
    found: dict[str, float] = {}
    on_progress = session.on_progress("costly layers")
    for name in layers:
        now = clock()
        if now + longest >= end:
            break
        found[name] = _alone(session, trial, name, folder)
        longest, now = max(longest, clock() - now), clock()
        left = end - now if now + longest < end else 0.0
        on_progress(len(found), reachable(len(found), len(layers), spent=now - begin, left=left))
    samples = min(FIRST_PROBES, len(session.scorer.subset))
    few = "" if len(found) == len(layers) else f", {len(found)} of {len(layers)} layers, as time allowed"
    return CostlyLayers.of(found, f"measured on {samples} samples{few}")


def _alone(session: SearchSession, trial: Trial, name: str, folder: Path) -> float:
    """The divergence of the model in which one layer is INT8; not trained, which takes longer than all the rest."""
    alone = replace(trial.plan, layers={name: trial.plan.int8[name]}, training=False)
    rules = StoppingRules(max_drop=session.max_drop, alpha=session.budget.error_rate, max_samples=FIRST_PROBES)
    try:
        return session.scorer.score(session.builder.build(alone, folder).path, rules).divergences[-1]
    except TrialError:
        return math.inf
