"""The best model of a search against the profile of its device, read from the saved file alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from autoquant.targets.profiles.table import chosen_profile
from autoquant.tuning.events import Warned

if TYPE_CHECKING:
    from autoquant.tuning.result import SearchResult
    from autoquant.tuning.session import SearchSession


def add_device_check(session: SearchSession, result: SearchResult) -> SearchResult:
    """The result with the comparison of its best model, where the search was for a device; warns of what breaks it."""
    profile = chosen_profile(session.request.profile, integer_only=session.request.integer_only)
    if result.model is None or profile is None:
        return result
    from autoquant.targets.profiles.check import check_device

    found = check_device(result.model.read_bytes(), profile)
    if found.violations:
        session.listener(Warned(found.verdict))
    return replace(result, device=found)
