"""The one door to sensitivities: by gradients where there are any, else by measuring."""

from __future__ import annotations

from autoquant.errors import ModelError, TrialError
from autoquant.model.litert.graph import LiteGraph
from autoquant.tuning.sensitivity.divergence import divergence
from autoquant.tuning.sensitivity.result import Question, Sensitivities


def measure_sensitivity(question: Question) -> Sensitivities:
    """Sensitivity of every candidate by the way that is open, and why by that one.

    Raises ModelError, with both reasons, where none is, and PlanError where a layer cannot have the settings or the
    statistics lack what they want.
    """
    if isinstance(question.model.program, LiteGraph):
        reason = "a .tflite has no gradients"
    else:
        from autoquant.tuning.sensitivity.fisher import fisher

        try:
            return fisher(question)
        except (ModelError, TrialError) as error:
            reason = f"{error.where}: {error.what}"
    try:
        return divergence(question, reason=reason)
    except (ModelError, TrialError) as error:
        what = f"its sensitivity cannot be found: {reason}; on LiteRT, {error.where}: {error.what}"
        raise ModelError(question.model.name, what, hint=error.hint) from error
