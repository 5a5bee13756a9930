"""The best model of a search against the profile of its device, read from the saved file alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from autoquant.errors import listed
from autoquant.formats.codec import encode
from autoquant.targets.profiles.table import open_profile
from autoquant.tuning.events import Warned

if TYPE_CHECKING:
    from autoquant.targets.profiles.check import Violation
    from autoquant.tuning.result import SearchResult
    from autoquant.tuning.session import SearchSession


@dataclass(frozen=True, slots=True)
class DeviceCheck:
    """A profile that a saved file was compared with: its name and device, how that was checked, and what breaks it."""

    profile: str
    device: str
    checked: str
    violations: tuple[Violation, ...]

    @property
    def verdict(self) -> str:
        """Whether the file keeps to the profile, in a few words."""
        if not self.violations:
            return f"the file keeps to profile {self.profile}"
        broken = listed([f"{one.where or 'file'}: {one.what}" for one in self.violations])
        return f"the file breaks profile {self.profile}: {broken}"

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return dict(encode(self))


def check_device(content: bytes, name: str) -> DeviceCheck:
    """Compare a saved .tflite with a profile. Raises UsageError for one that there is not."""
    from autoquant.targets.profiles.check import violations

    profile = open_profile(name)
    return DeviceCheck(profile.name, profile.device, profile.checked, violations(content, profile))


def add_device_check(session: SearchSession, result: SearchResult) -> SearchResult:
    """The result with the comparison of its best model, where the search was for a device; warns of what breaks it."""
    if result.model is None or not session.request.profile:
        return result
    found = check_device(result.model.read_bytes(), session.request.profile)
    if found.violations:
        session.listener(Warned(found.verdict))
    return replace(result, device=found)
