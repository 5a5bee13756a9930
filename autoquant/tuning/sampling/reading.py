"""Optuna's trials as the plain values that the guided sampler works with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from autoquant.tuning.sampling.history import Past
from autoquant.tuning.study.space import Parameters

PENDING = {TrialState.RUNNING: "running", TrialState.WAITING: "waiting"}
OUTCOME = "outcome"
"""The attribute that holds what came of a trial: written in one piece, as each write waits for the disk."""
ENDED = ("done", "stopped", "failed")
FACTS = ("samples", "loss", "loss_samples", "losses", "drop", "low", "high", "within", "objective", "at_fault")
"""Attributes of a trial that have the names they have in `Past`."""


def attributes_of(trial: FrozenTrial) -> Mapping[str, Any]:
    """What is known of a trial: what was asked of it, and what came out, which is one attribute of Optuna's."""
    known = {**trial.user_attrs, **trial.user_attrs.get(OUTCOME, {})}
    if "outcome" in known:
        known["losses"] = known.get("divergences", ())
        known["loss"] = known["losses"][-1] if known["losses"] else None
        known["loss_samples"] = known.get("divergence_samples", 0)
        known["limit"] = known.get("max_samples")
    return known


def parameters_of(trial: FrozenTrial) -> Parameters:
    """What a trial's parameters are or, as long as it waits, will be."""
    return {**trial.system_attrs.get("fixed_params", {}), **trial.params}


def read(trials: Sequence[FrozenTrial], dimensions: Mapping[str, Any]) -> list[Past]:
    """All trials that count: those pending, and those that ended with a `state`.

    One that repeats another's plan has become what the other has. Trials that were cut off, that were not carried out,
    or that have not all of their parameters yet, do not count.
    """
    by_number = {trial.number: trial for trial in trials}
    found = []
    for trial in trials:
        parameters = parameters_of(trial)
        told = by_number.get(trial.user_attrs.get("repeats", trial.number), trial)
        known = attributes_of(told)
        state = str(PENDING.get(trial.state) or known.get("state"))
        if (state in ENDED or trial.state in PENDING) and parameters.keys() == dimensions.keys():
            facts = {name: known[name] for name in FACTS if known.get(name) is not None}
            asked = {"phase": trial.user_attrs.get("phase", ""), "limit": known.get("limit")}
            pending = trial.state in PENDING
            found.append(Past(trial.number, parameters, state=state, **asked, **({} if pending else facts)))
    return found


def ended(trial: FrozenTrial) -> bool:
    """Whether something became of a trial, or of the one whose plan it repeats."""
    return attributes_of(trial).get("state") in ENDED or "repeats" in trial.user_attrs
