"""A trial, which is one plan through the whole cycle; the best of several; score.json, beside config and record."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from autoquant.calibration.plan import Plan
from autoquant.errors import InputError, RunError
from autoquant.evaluation.statistics.tolerance import within
from autoquant.files import write_text
from autoquant.formats.codec import ELSEWHERE, decode, encode, json_text, without_nulls
from autoquant.formats.config_json import load_config
from autoquant.formats.strict import Fields, load_object
from autoquant.model.operators import is_tensor
from autoquant.tuning.study.space import Parameters

SCORE = "score.json"
WAY_OUT = "`autoquant resume` goes on with the run, and writes it again where it can"


class State(StrEnum):
    """How a trial ended, or that it has not."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Trial:
    """One plan through the whole cycle: what the study, score.json, result.json and samplers know of it.

    `plan` is what `parameters`, a point of the search space, mean. `why` it was proposed, in which `phase` of the
    search, and on how many samples at most it is scored: `max_samples`, None until it is decided. `note` is what a
    sampler of Optuna noted of it.

    `score` and `drop` are in units of the metric. A trial that was stopped early has no score, and its drop is an
    estimate, between `low` and `high` at its share of the error rate, or None where it was only to be compared with
    others. `within` says whether the drop is within tolerance, None where that is not known. `divergences` are means of
    the divergence of outputs from FP32 over more and more samples of the probe set (stopping.PROBE_SIZES), the
    last of them over `divergence_samples`; empty where one is not finite. `probe_drops` are the mean drops there, of a
    metric whose values have no bounds. A trial that failed has none of these, but
    says why in `failure`, and `at_fault` is the layer that did it, where there is one that the search may leave in
    float.

    `int8_share` is the share of the model's multiply-adds in INT8, `int16_share` that with activations of 16 bits; the
    `float_only` operators that cannot be INT8 do some of the others. `objective` is what the search minimizes, 1.0 for
    the model all in float (tuning/objective.py); `qdq_ops` counts the Q/DQ operators, where the target puts any between
    layers; `samples` were evaluated; `seconds` by part (quantize, calibrate, save, load, score); `digests` are the
    SHA-256 of its files when it was scored, in hex, by name. `host` is the machine of the worker that carried it out,
    where it was not the process of the search itself.
    """

    number: int
    state: State
    plan: Plan = field(metadata=ELSEWHERE)
    why: str
    _: KW_ONLY
    parameters: Parameters = field(default_factory=dict, metadata=ELSEWHERE)
    note: Mapping[str, Any] = field(default_factory=dict, metadata=ELSEWHERE)
    phase: str = ""
    max_samples: int | None = None
    int8_share: float = 0.0
    int16_share: float = 0.0
    float_only: int = 0
    objective: float = math.inf
    score: float | None = None
    drop: float | None = None
    low: float | None = None
    high: float | None = None
    within: bool | None = None
    divergences: tuple[float, ...] = ()
    divergence_samples: int = 0
    probe_drops: tuple[float, ...] = ()
    qdq_ops: int | None = None
    samples: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    failure: str = ""
    at_fault: str = ""
    host: str | None = None

    def __post_init__(self) -> None:
        if self.state is State.DONE and (self.drop is None or self.drop != self.drop):
            raise ValueError("a trial that is done has a drop, which is a number")

    def __repr__(self) -> str:
        known = "" if self.drop is None else f", drop {self.drop:.4g}"
        known = f", {self.failure}" if self.failure else known
        return f"<Trial {self.number} {self.state}: {self.int8_layers} of {self.layers} layers in INT8{known}>"

    @property
    def layers(self) -> int:
        """All layers, INT8 and float, and those that cannot be INT8."""
        return count_layers(self.plan.layers) + self.float_only

    @property
    def int8_layers(self) -> int:
        """The layers of the plan in INT8."""
        return count_layers(self.plan.int8) - self.int16_layers

    @property
    def int16_layers(self) -> int:
        """Those with activations of 16 bits."""
        return sum(settings.activation_bits == 16 for settings in self.plan.int8.values())

    @property
    def divergence(self) -> float | None:
        """The mean divergence of outputs from FP32 over the most samples that it is known of."""
        return self.divergences[-1] if self.divergences else None

    @property
    def undecided(self) -> bool:
        """Whether it was screened out: few samples lost more than all may, which proves nothing (sample_scorer.py)."""
        return self.state is State.STOPPED and self.max_samples is None and self.within is None

    @property
    def final(self) -> bool:
        """Whether it has ended, and another trial of its plan without a limit on samples would end alike."""
        return self.state in (State.DONE, State.FAILED) or self.within is not None or self.undecided

    def reaches(self, max_samples: int | None) -> bool:
        """Whether it was, or is, to be scored on as many samples; None are those until it is decided."""
        return self.max_samples is None or (max_samples is not None and self.max_samples >= max_samples)

    def meets(self, max_drop: float) -> bool:
        """Whether its drop is within tolerance, on everything; never if it failed or was stopped."""
        return self.state is State.DONE and self.drop is not None and within(self.drop, max_drop)

    def facts(self) -> dict[str, Any]:
        """All that JSON files say of it; what is not known is null, but for the host, which then is not there."""
        derived = ("layers", "int8_layers", "int16_layers", "divergence", "undecided")
        facts = {**encode(self), **{name: getattr(self, name) for name in derived}}
        return {name: value for name, value in facts.items() if name != "host" or value is not None}


def sent_facts(trial: Trial) -> dict[str, Any]:
    """All of a trial that another process is told: its plan is what its parameters mean."""
    return {**without_nulls(encode(trial)), "parameters": dict(trial.parameters), "note": dict(trial.note)}


def sent_trial(facts: object, plan_of: Callable[[Parameters], Plan]) -> Trial:
    """A trial that another process was told of, of a space that says what parameters mean. Raises RunError."""
    found = Fields(facts, "trial", RunError)
    parameters, note = (found.raw(name) for name in ("parameters", "note"))
    return decode(Trial, found, plan=plan_of(parameters), parameters=parameters, note=note)


def as_told(facts: object, trial: Trial, where: str) -> Trial:
    """A trial as facts tell of it that were written `where`, at the point that it is known to have. Raises RunError."""
    found = Fields(facts, where, RunError)
    return decode(Trial, found, plan=trial.plan, parameters=trial.parameters, note=trial.note)


def count_layers(names: Iterable[str]) -> int:
    """How many of the names in a plan are layers; inputs of operators are none."""
    return sum(not is_tensor(name) for name in names)


def best(trials: Iterable[Trial], max_drop: float) -> Trial | None:
    """The trial to keep: the lowest objective within tolerance; ties go to the smaller drop, the earlier.

    When none is within, the one that comes closest, by the estimate where it was stopped; ties go to the lower
    objective, the earlier. One that was stopped and may be within is none to keep, as that is not known.
    """
    done = [trial for trial in trials if trial.drop is not None and (trial.state is State.DONE or not trial.within)]

    def rank(trial: Trial) -> tuple[bool, float, float, int]:
        assert trial.drop is not None
        if trial.meets(max_drop):
            return True, -trial.objective, -trial.drop, -trial.number
        return False, -trial.drop, -trial.objective, -trial.number

    return max(done, key=rank, default=None)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the trials of a run share: `baseline` and `max_drop` are in units of the metric.

    `max_drop` is the largest drop within tolerance, `objective_name` what the search minimizes, `early_stopping` by
    what trials are stopped early (stopping.EARLY_STOPPING).
    """

    metric: str
    baseline: float
    max_drop: float
    target: str
    engine: str
    objective_name: str
    early_stopping: str = "none"


def write_score(folder: Path, trial: Trial, terms: Terms) -> None:
    """Write the score.json of a trial into its folder, with all that a study knows of it. Raises RunError."""
    point = {"parameters": dict(trial.parameters), "note": dict(trial.note)}
    write_text(folder / SCORE, json_text({"version": 1, **encode(terms), **trial.facts(), **point}))


def add_to_score(model: Path, name: str, value: Any) -> None:
    """Write one more fact, found after the search, into the score.json beside a model. Raises RunError."""
    path = model.with_name(SCORE)
    write_text(path, json_text({**load_object(path, RunError, hint=WAY_OUT).rest(), name: value}))


def load_trial(folder: Path) -> tuple[Trial, Terms]:
    """A trial as its folder has it, in config.json and score.json. Raises RunError."""
    try:
        plan = load_config(folder / "config.json")
        found = load_object(folder / SCORE, RunError, hint=WAY_OUT)
        found.only("version", [1], 0)
        point = {name: found.sub(name).rest() for name in ("parameters", "note")}
        trial, terms = decode(Trial, found, plan=plan, **point), decode(Terms, found)
        of_another = trial.int8_layers != found.raw("int8_layers")
        found.require(not of_another, "int8_layers", "is not what config.json has", hint=WAY_OUT)
        return trial, terms
    except InputError as error:
        raise RunError(error.where, error.what, hint=WAY_OUT) from None
