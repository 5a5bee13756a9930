"""The targets there are. A new one is a file beside this one, and a row here, or an entry point of a package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autoquant.errors import UsageError
from autoquant.extensions import Table
from autoquant.targets.base import Target
from autoquant.targets.profiles.table import chosen_profile


@dataclass(frozen=True, slots=True)
class TargetInfo:
    """Facts of a target that are known before its library is imported, which may take seconds.

    `make` takes what `open_target` does. `engines` are the names of those that can run what it saves, its own runtime
    first. `io_types` are what inputs and outputs can be, the default first. `takes_lite` says whether a float .tflite
    is a model for it, `cuts_front` whether what LiteRT cannot run is cut off in front of the layers, `runs_here`
    whether what it saves is made for a machine like this one, so that its latency can be measured. `packages` are those
    that make its files, beside NumPy. `takes_profile` says whether its files can be for a device, or without float.
    """

    make: Callable[[str, bool], Target]
    engines: tuple[str, ...]
    io_types: tuple[str, ...]
    takes_lite: bool
    cuts_front: bool
    runs_here: bool
    packages: tuple[str, ...]
    takes_profile: bool = False

    @property
    def runtime(self) -> str:
        """The engine that its files are made for."""
        return self.engines[0]


def _litert(io: str, simulation: bool) -> Target:
    from autoquant.targets.litert import LiteRTTarget

    return LiteRTTarget(io=io)


def _tensorflow(io: str, simulation: bool) -> Target:
    from autoquant.targets.tensorflow import TensorFlowTarget

    return TensorFlowTarget(simulation=simulation)


def _checked(name: str, distribution: str, found: Any) -> TargetInfo:
    """A row of another distribution. Raises TypeError, ValueError."""
    if not isinstance(found, TargetInfo):
        raise TypeError(f"must be a TargetInfo, got {type(found).__name__}")
    known = {engine for row in TARGETS.builtin.values() for engine in row.engines}
    if not found.engines or not set(found.engines) <= known:
        raise ValueError(f"engines must be some of {', '.join(sorted(known))}, got {found.engines}")
    if not found.io_types:
        raise ValueError("io_types must name at least one type")
    return found


TARGETS: Table[TargetInfo] = Table(
    "autoquant.targets",
    "target",
    {
        "litert": TargetInfo(
            _litert,
            engines=("litert",),
            io_types=("float32", "int8"),
            takes_lite=True,
            cuts_front=True,
            runs_here=True,
            packages=("litert-quantizer",),
            takes_profile=True,
        ),
        "tensorflow": TargetInfo(
            _tensorflow,
            engines=("tensorflow", "litert"),
            io_types=("float32",),
            takes_lite=False,
            cuts_front=False,
            runs_here=False,
            packages=("tensorflow",),
        ),
    },
    _checked,
)
"""Name -> its facts."""


def open_target(
    name: str, *, io: str = "float32", simulation: bool = True, profile: str = "", integer_only: bool = False
) -> Target:
    """A target by name. `io` is one of its `io_types`; for `simulation` see TensorFlowTarget.

    `profile` names the profile of a device (targets/profiles/table.py), and `integer_only` asks for a file without
    float operators, of a target that `takes_profile`.
    """
    chosen = chosen_profile(profile, integer_only=integer_only)
    if chosen is not None:
        from autoquant.targets.litert import LiteRTTarget

        return LiteRTTarget(io=io, profile=chosen)
    target = TARGETS[name].make(io, simulation)
    if target.name != name:
        what = f"is called '{target.name}' by itself"
        raise UsageError(f"target '{name}' of {TARGETS.origin(name)}", what, hint="its `name` must be that of the row")
    return target
