"""Choose Fisher or measured sensitivity."""

from __future__ import annotations

from autoquant.errors import ModelError, TrialError
from autoquant.model.litert.graph import LiteGraph
from autoquant.tuning.sensitivity.divergence import divergence
from autoquant.tuning.sensitivity.request import Sensitivities, SensitivityRequest


def measure_sensitivity(request: SensitivityRequest) -> Sensitivities:
    """Sensitivity of every candidate by the way that is open, and why by that one.

    Raises ModelError, with both reasons, where none is, and PlanError where a layer cannot have the settings or the
    statistics lack what they want.
    """
    if isinstance(request.model.program, LiteGraph):
        reason = "a .tflite has no gradients"
    else:
        from autoquant.tuning.sensitivity.fisher import fisher

        try:
            return fisher(request)
        except (ModelError, TrialError) as error:
            reason = f"{error.where}: {error.what}"
    try:
        return divergence(request, reason=reason)
    except (ModelError, TrialError) as error:
        what = f"its sensitivity cannot be found: {reason}; on LiteRT, {error.where}: {error.what}"
        raise ModelError(request.model.name, what, hint=error.hint) from error
