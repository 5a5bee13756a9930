"""The names of targets, engines, types, samplers and objectives, and which of them go together."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType

from autoquant.errors import UsageError, did_you_mean
from autoquant.evaluation.engines.table import ENGINES
from autoquant.extensions import Table
from autoquant.formats.space_toml import DEFAULT, presets
from autoquant.model.model import LITE, is_lite
from autoquant.targets.profiles.table import open_profile
from autoquant.targets.table import TARGETS, TargetInfo

TENSORFLOW, LITERT, FLOAT32, AUTO = "tensorflow", "litert", "float32", "auto"
MACS, BYTES, LATENCY = "macs", "bytes", "latency"
ENGINE_NAMES = (AUTO, *ENGINES)
"""Engines; `auto` is LiteRT, where it computes what TensorFlow does."""
IO_TYPES = tuple(sorted({io for row in TARGETS.builtin.values() for io in row.io_types}))
"""What the inputs and outputs of an INT8 model can be, for one target of ours or another."""
GUIDED, TPE, AMCT = "guided", "tpe", "amct"
SAMPLERS: Table[None] = Table("autoquant.samplers", "sampler", dict.fromkeys((GUIDED, TPE, "random", "nsgaii", AMCT)))
"""Samplers: our own (tuning/sampling/guided.py), the default; those of Optuna; AMCT's ranking and bisection; those of
packages. Only the names: tuning/sampling/samplers.py has what makes them."""
OBJECTIVES = (MACS, BYTES, LATENCY)
MINIMIZED: Mapping[str, str] = MappingProxyType(
    {
        MACS: "share of multiply-adds in float",
        BYTES: "bytes of weights, relative to float",
        LATENCY: "latency, relative to float",
    }
)
"""Objective -> what Optuna calls its values."""
"""What a search minimizes: multiply-adds in float, bytes of weights, or time."""


def likely_target(model: str | Path) -> str:
    """The target that a model is for where none is named: where it is from."""
    return LITERT if is_lite(model) else TENSORFLOW


def check_target(
    model: str | Path,
    *,
    target: str = TENSORFLOW,
    io: str = FLOAT32,
    simulation: bool = True,
    profile: str = "",
    integer_only: bool = False,
) -> None:
    """Raise UsageError for a target, type or profile that there is not, and where they or the model do not fit."""
    check_known("--target", target, TARGETS)
    check_known("--io", io, dict.fromkeys((*IO_TYPES, *TARGETS[target].io_types)))
    if io not in TARGETS[target].io_types:
        what = f"is not offered for --target {target}"
        raise UsageError(f"--io {io}", what, hint=f"leave it out, or give {_others(lambda row: io in row.io_types)}")
    if not simulation and target != TENSORFLOW:
        what = f"is for graphs of TensorFlow, not for what --target {target} saves"
        raise UsageError("--without-simulation", what, hint=f"leave it out, or give --target {TENSORFLOW}")
    if is_lite(model) and not TARGETS[target].takes_lite:
        what = f"is a {LITE}, of which --target {target} can make nothing"
        others = _others(lambda row: row.takes_lite)
        raise UsageError(str(model), what, hint=f"give {others}, or the TensorFlow model it was converted from")
    if profile:
        _check_profile(profile, target, io)
    if integer_only and not TARGETS[target].takes_profile:
        what = f"is for a {LITE}, of which --target {target} makes none"
        raise UsageError("--integer-only", what, hint=f"give {_others(lambda row: row.takes_profile)}")


def _check_profile(profile: str, target: str, io: str) -> None:
    found = open_profile(profile)
    if not TARGETS[target].takes_profile:
        what = f"says what a device takes of a {LITE}, of which --target {target} makes none"
        raise UsageError(f"--profile {profile}", what, hint=f"give {_others(lambda row: row.takes_profile)}")
    if io not in found.io:
        what = f"is not what the device takes: its inputs and outputs are {' or '.join(found.io)}"
        raise UsageError(f"--io {io} with --profile {profile}", what, hint=f"give --io {found.io[0]}")


def check_scoring(*, target: str, engine: str, objective: str) -> None:
    """Raise UsageError for an engine or objective that there is not, or not for this target."""
    check_known("--engine", engine, ENGINE_NAMES)
    check_known("--objective", objective, OBJECTIVES)
    if engine not in (AUTO, *TARGETS[target].engines):
        what = f"cannot run what --target {target} saves"
        others = _others(lambda row: engine in row.engines)
        raise UsageError(f"--engine {engine}", what, hint=f"leave it out, or give {others}")
    if objective == LATENCY and not TARGETS[target].runs_here:
        what = f"is measured on this machine, for which --target {target} saves nothing"
        others = _others(lambda row: row.runs_here)
        raise UsageError(f"--objective {objective}", what, hint=f"give macs or bytes, or {others}")


def check_min_speedup(value: float | None, *, target: str) -> None:
    """Raise UsageError for what is no number, and where the speed cannot be measured."""
    if value is None:
        return
    if not 0.0 < value < math.inf:  # NaN fails too
        raise UsageError("--min-speedup", f"must be above 0, got {value:g}", hint="for example 1.2")
    if not TARGETS[target].runs_here:
        what = f"is measured on this machine, for which --target {target} saves nothing"
        hint = f"leave it out, or give {_others(lambda row: row.runs_here)}"
        raise UsageError(f"--min-speedup {value:g}", what, hint=hint)


def check_min_baseline(value: float | None) -> None:
    """Raise UsageError for what is no number."""
    if value is not None and not math.isfinite(value):
        raise UsageError("--min-baseline", f"must be a number, got {value:g}", hint="for example 0.9")


def default_space(target: str) -> str:
    """The preset for a search without a space: the one called like the target, where there is one."""
    return target if target in presets() else DEFAULT


def check_known(option: str, value: str, known: Collection[str]) -> None:
    """Raise UsageError for a value that there is not."""
    if value not in known:
        hint = did_you_mean(value, known, otherwise=f"it can be {', '.join(known)}")
        raise UsageError(option, f"unknown '{value}'", hint=hint)


def _others(can: Callable[[TargetInfo], bool]) -> str:
    """The options of our targets that can do something."""
    return " or ".join(f"--target {name}" for name, row in TARGETS.builtin.items() if can(row))
