"""What a run's folder tells of its trials: read without the model, the study or TensorFlow, while a search goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from autoquant.errors import InputError, RunError
from autoquant.formats.config_json import load_config
from autoquant.formats.strict import Fields, read_text
from autoquant.tuning.certification.certificate import Certificate
from autoquant.tuning.certification.certificate_json import load_certificate
from autoquant.tuning.study.run_folder import CERTIFICATE, RunFolder
from autoquant.tuning.study.trial import State, Trial, best

WAY_OUT = "put the file back, or remove the folder of that trial to have the others explained"
PARTS = ("quantize", "calibrate", "save", "load", "score")
"""What a trial takes time for, in order."""
NEEDED: Mapping[str, type] = MappingProxyType(
    {"why": str, "reason": str, "int8_layers": int, "int8_share": float, "samples": int}
)
"""Fields of a trial that every score.json has, by kind."""
OPTIONAL: Mapping[str, type] = MappingProxyType(
    {
        "score": float,
        "drop": float,
        "low": float,
        "high": float,
        "within": bool,
        "loss": float,
        "loss_samples": int,
        "boundaries": int,
        "phase": str,
        "limit": int,
        "at_fault": str,
    }
)
"""Fields of a trial that may be null or not there: what is not known, or was not written yet by earlier versions."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What the trials of a run share: `baseline` and `tolerance` (absolute) are in units of the metric."""

    metric: str
    baseline: float
    tolerance: float
    target: str
    engine: str
    objective: str


@dataclass(frozen=True)
class RunTrials:
    """The trials of a run that ended, by number; there is at least one.

    `best` is the one that the run keeps, None where none came to its end. `unended` counts those that were begun and
    have no score: they go on, or were cut off.
    """

    run: Path
    terms: Terms
    trials: tuple[Trial, ...]
    best: Trial | None
    unended: int = 0
    certificate: Certificate | None = None

    @property
    def samples(self) -> int:
        """Samples that all trials evaluated, the baseline not counted."""
        return sum(trial.samples for trial in self.trials)

    @property
    def seconds(self) -> Mapping[str, float]:
        """What all trials took, by part, in the order of PARTS, others behind."""
        names = dict.fromkeys([*PARTS, *(part for trial in self.trials for part in trial.seconds)])
        total = {part: sum(trial.seconds.get(part, 0.0) for trial in self.trials) for part in names}
        return MappingProxyType({part: spent for part, spent in total.items() if spent})


def read_trials(run: Path) -> RunTrials:
    """Read a run. Raises RunError where there is none, no trial of it has ended, or a file of one is damaged."""
    folder = RunFolder(run)
    folder.require_run()
    folders = sorted((run / "trials").glob("[0-9]*"))
    ended = [path for path in folders if (path / "score.json").is_file()]
    if not ended:
        raise RunError(str(run), "no trial of it has ended yet", hint=f"wait, or go on with `autoquant resume {run}`")
    read = sorted((_read(path) for path in ended), key=lambda one: one.trial.number)
    kept = _kept(folder, [one.trial for one in read], read[0].terms.tolerance)
    return RunTrials(
        run,
        next(one.terms for one in read if kept is None or one.trial is kept),
        tuple(one.trial for one in read),
        kept,
        len(folders) - len(ended),
        _certificate(folder.trial(kept.number)) if kept else None,
    )


def _kept(folder: RunFolder, trials: list[Trial], allowed: float) -> Trial | None:
    """The trial that `best` points to; where that is no link, as in a copy, or not there yet, the one it would be."""
    pointed = folder.best.resolve().name
    linked = next((trial for trial in trials if folder.trial(trial.number).name == pointed), None)
    return linked or best(trials, allowed)


@dataclass(frozen=True, slots=True)
class _Read:
    trial: Trial
    terms: Terms


def _read(folder: Path) -> _Read:
    try:
        plan = load_config(folder / "config.json")
        facts = _object(folder / "score.json")
        version = facts.needed("version", int)
        facts.require(version == 1, "version", f"must be 1, got {version}", hint="use the autoquant that wrote it")
        objective = facts.sub("objective")
        values: dict[str, Any] = {name: facts.needed(name, kind) for name, kind in NEEDED.items()}
        values |= {name: facts.optional(name, kind) for name, kind in OPTIONAL.items() if name in facts}
        values["losses"] = _losses(facts)
        values |= {"number": facts.needed("trial", int), "objective": objective.needed("value", float)}
        values |= {"state": State(facts.only("state", [str(state) for state in State], "")), "plan": plan}
        values["seconds"] = _seconds(facts)
        trial = facts.build(lambda: Trial(**values))
        terms = Terms(
            metric=facts.needed("metric", str),
            baseline=facts.needed("baseline", float),
            tolerance=facts.needed("tolerance", float),
            target=facts.needed("target", str),
            engine=facts.needed("engine", str),
            objective=objective.needed("name", str),
        )
    except InputError as error:
        raise RunError(error.where, error.what, hint=WAY_OUT) from None
    return _Read(trial, terms)


def _losses(facts: Fields) -> tuple[float, ...]:
    given = facts.optional("losses", list) or []
    if not all(type(loss) in (int, float) for loss in given):
        raise facts.error("losses", f"expected numbers, got {given!r}", hint=WAY_OUT)
    return tuple(map(float, given))


def _seconds(facts: Fields) -> dict[str, float]:
    given = facts.raw("seconds")
    fields = facts.nested(given, "seconds")
    return {part: fields.needed(part, float) for part in given}


def _certificate(trial: Path) -> Certificate | None:
    """What is claimed of a trial, None where nothing is. Raises RunError."""
    path = trial / CERTIFICATE
    return load_certificate(path) if path.is_file() else None


def _object(path: Path) -> Fields:
    """The object in a JSON file, without what is null. Raises RunError; NaN and infinity are none of JSON."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no number")

    try:
        found = json.loads(read_text(path, hint=WAY_OUT), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise RunError(str(path), f"is no JSON ({error})", hint=WAY_OUT) from None
    if isinstance(found, dict):
        found = {key: value for key, value in found.items() if value is not None}
    return Fields(found, f"{path}:$", RunError)
