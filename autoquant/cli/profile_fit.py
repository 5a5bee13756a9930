"""What a device could not take of a model, on the screen and for scripts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from autoquant.cli.interface import OPEN
from autoquant.cli.output import Block, Table
from autoquant.formats.codec import encode
from autoquant.messages import UNKNOWN
from autoquant.reports.words import counted, percent
from autoquant.targets.profiles.profile import Profile

if TYPE_CHECKING:
    from autoquant.tuning.profile_fit import ProfileFit

MOST = 20
"""Operators that are shown; --json has all."""


def fit_blocks(fit: ProfileFit | None, total: int | None) -> Iterator[Block]:
    """The operators that the device will not run, the heaviest first, what is narrowed, and the sources.

    `total` are the multiply-adds of the model.
    """
    if fit is None:
        return
    yield _operators(fit, total)
    yield list(_summary(fit, total))
    yield [f"not known: {text}" for text in fit.profile.not_known]
    yield [f"source: {one.title} ({one.version}), {one.url}" for one in fit.profile.sources]


def fit_facts(fit: ProfileFit | None, total: int | None) -> dict[str, Any]:
    """The same for scripts."""
    if fit is None:
        return {}
    operators = [
        {
            "name": one.name,
            "kind": one.kind,
            "index": one.index,
            "reason": one.reason,
            "macs": fit.macs[one.index],
            "share": _share(fit.macs[one.index], total),
        }
        for one in fit.cannot_run
    ]
    found = {
        "name": fit.profile.name,
        "device": fit.profile.device,
        "checked": fit.profile.checked,
        "operators": operators,
        "narrowed": list(fit.narrowed),
        "impossible": fit.impossible,
        "rules": list(fit.profile.rules()),
        "not_known": list(fit.profile.not_known),
        "sources": encode(fit.profile.sources),
    }
    return {"profile": found}


def _operators(fit: ProfileFit, total: int | None) -> Block:
    if not fit.cannot_run:
        return []
    ordered = sorted(fit.cannot_run, key=lambda one: -(fit.macs[one.index] or 0))
    rows = []
    for one in ordered[:MOST]:
        macs = fit.macs[one.index]
        share = _share(macs, total)
        cost = OPEN if macs is None else f"{macs:,}" if macs else UNKNOWN
        rows.append((one.name, f"{one.kind} {one.index}", one.reason, cost, percent(share) if share else UNKNOWN))
    left = len(ordered) - len(rows)
    more = [f"... and {left} more, which --json lists"] if left > 0 else []
    return [Table((f"not on {fit.profile.name}", "operator", "reason", "multiply-adds", "share"), rows, words=3), *more]


def _summary(fit: ProfileFit, total: int | None) -> Iterator[str]:
    profile = fit.profile
    yield f"profile {profile.name}: {profile.device}"
    if fit.cannot_run:
        share = _share(sum(fit.macs[one.index] or 0 for one in fit.cannot_run), total)
        cost = f", with {percent(share)} of the multiply-adds" if share is not None else ""
        elsewhere = "" if fit.impossible else _elsewhere(profile)
        yield f"{counted(len(fit.cannot_run), 'operator')} cannot run on the device{cost}{elsewhere}"
    else:
        yield "by all that is known, every operator can run on the device"
    if fit.impossible:
        yield f"refused by a search: {fit.impossible}"
    yield from fit.narrowed
    if profile.io == ("int8",):
        yield "inputs and outputs must be int8: --io int8"
    if not profile.takes_tflite:
        yield "the device takes no .tflite: its own tools make another file"
    yield f"checked {profile.checked}"


def _elsewhere(profile: Profile) -> str:
    """Where such operators run."""
    if not profile.has_cpu:
        return "; nothing else runs them"
    return "; the CPU runs them in INT8" if profile.all_int8 else "; they stay in float, on the CPU"


def _share(macs: int | None, total: int | None) -> float | None:
    return macs / total if total and macs is not None else None
