"""The request of a search: all of its options, and how run.toml keeps them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from autoquant.errors import RunError, UsageError
from autoquant.evaluation.data.array_cache import ON_DISK
from autoquant.evaluation.data.opening import check_spec
from autoquant.evaluation.statistics.tolerance import Tolerance
from autoquant.formats.space_toml import load_space
from autoquant.model.model import check_file
from autoquant.tuning.study.choices import (
    AUTO,
    FLOAT32,
    GUIDED,
    MACS,
    SAMPLERS,
    TENSORFLOW,
    check_known,
    check_min_speedup,
    check_scoring,
    check_target,
    default_space,
)
from autoquant.tuning.study.model_request import plain
from autoquant.tuning.study.places import IN_MEMORY, NOTHING, absolute
from autoquant.tuning.study.score_request import ScoreOptions, ScoreRequest, check_probability

TRUST_MODEL = "trust_model"
"""The field that no run.toml says: a run of a stranger must not vouch for its model."""
UNSET = ("storage", "study", "artifacts", "profile")
"""Fields that are empty where they are not given."""
CHANGEABLE = frozenset(
    {
        "max_trials",
        "timeout",
        "trial_timeout",
        "isolate",
        "stop_on_target",
        "keep_all_models",
        "keep_models",
        "min_baseline",
        "min_speedup",
        "junit",
        "certify",
        "cache",
        "samples",
        "jobs",
        TRUST_MODEL,
    }
)
"""What may change when a run is resumed: its trials stay comparable."""
MOVABLE = frozenset({"model", "data", "calibration", "metric"})
"""What may be elsewhere when a run is resumed: it must be the same, by its digest."""
STORAGE = "storage"
"""What may be elsewhere too: it must have the study of the run."""
ACCEPTABLE = ("metric", "calibration")
"""What may be another one, where that is accepted: all trials are scored again."""


class SearchOptions(ScoreOptions, total=False):
    """The fields of a SearchRequest that have a default, but the tolerances."""

    calibration: Any
    target: str
    engine: str
    io: str
    profile: str
    integer_only: bool
    objective: str
    space: str | Path
    max_trials: int
    timeout: float | str
    trial_timeout: float | str
    isolate: bool
    seed: int
    cache: int | str
    stop_on_target: bool
    keep_all_models: bool
    sampler: str
    error_rate: float
    certify: Any
    allow_overlap: bool
    samples: int
    keep_models: int
    min_speedup: float | None
    jobs: int
    storage: str
    study: str
    artifacts: str


@dataclass(frozen=True, kw_only=True)
class SearchRequest(ScoreRequest):
    """All of a search but the folder it runs in.

    `space` is a preset's name or a file, without which it is `choices.default_space`. The search ends after
    `max_trials` trials, `timeout` seconds, or, with `stop_on_target`, the first trial within tolerance. `keep_models`
    is how many models stay on disk: of the best trial, and of others that no trial beats in both drop and INT8 share;
    `keep_all_models` keeps all. A trial that takes longer than `trial_timeout` seconds has failed; with `isolate`
    trials run in a process of their own, and one that it dies of, out of memory or in a kernel, has failed too. At most
    `cache` bytes of samples that a function makes, or images decoded, are cached on the disk of the run, never more
    than half of what is free there; 0 for no cache.

    `target` is what the INT8 model is for, `engine` what scores it, `io` the type of its inputs and outputs where the
    target leaves a choice, `profile` the device of target litert that it must suit (`autoquant guide profiles`),
    `objective` what the search minimizes.

    `sampler` chooses the plans (tuning/sampling/samplers.py). A trial is stopped early once it is decided; any of these
    decisions is wrong with probability `error_rate` at most. `certify` is the holdout, which the search does not see
    and the best is scored on once; without it half of `data` is, and with 'none' there is none. Each unit is in one
    part of the data. `allow_overlap` lets samples be in two kinds of data, which then do not certify. Of images that
    INT8 gets wrong and FP32 right, `samples` at most are kept, small, for report.html.

    Trials are carried out by `jobs` processes of this machine, 1 being this one; with a `storage`, the URL of a
    database, by workers of other machines too, which know the search as its `study`; 0 leaves all trials to those.
    These leave the files of what may be the best in `artifacts`, a directory or 's3://bucket/prefix', where there is
    one: it is built again otherwise.

    Unless the best model is `min_speedup` times as fast here as the float model, that is shipped, for target litert.
    """

    model: str | Path
    target: str = TENSORFLOW
    engine: str = AUTO
    io: str = FLOAT32
    profile: str = ""
    integer_only: bool = False
    objective: str = MACS
    tolerance: Tolerance = field(default_factory=lambda: Tolerance(0.01, relative=True))
    space: str | Path = ""
    max_trials: int = 100
    timeout: float = math.inf
    trial_timeout: float = math.inf
    isolate: bool = False
    seed: int = 0
    cache: int = ON_DISK
    stop_on_target: bool = False
    keep_all_models: bool = False
    sampler: str = GUIDED
    error_rate: float = 0.05
    certify: Any = None
    allow_overlap: bool = False
    samples: int = 24
    keep_models: int = 1
    min_speedup: float | None = None
    jobs: int = 1
    storage: str = ""
    study: str = ""
    artifacts: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers = ("max_trials", "timeout", "trial_timeout", "seed", "cache", "samples", "error_rate")
        for name in (*numbers, "keep_models", "min_speedup", "jobs"):
            object.__setattr__(self, name, plain(getattr(self, name)))
        if self.max_trials < 1:
            raise UsageError("--max-trials", f"must be at least 1, got {self.max_trials}", hint="for example 50")
        for option, value in (("--timeout", self.timeout), ("--trial-timeout", self.trial_timeout)):
            if not value > 0:
                raise UsageError(option, f"must be above 0, got {value:g} s", hint="for example 30m or 2h")
        self._check_processes()
        if self.seed < 0:
            raise UsageError("--seed", f"must be at least 0, got {self.seed}", hint="for example 0")
        if self.cache < 0:
            raise UsageError("--cache", f"must be at least 0 bytes, got {self.cache}", hint="for example 8GB, or off")
        if self.samples < 0:
            raise UsageError(
                "--samples", f"must be at least 0, got {self.samples}", hint="for example 24, or 0 for none"
            )
        check_probability("--error-rate", self.error_rate, example=0.05)
        if self.guard and self.certify == NOTHING:
            what = "guards groups on the holdout, and --certify none leaves no holdout"
            raise UsageError(f"--guard {self.guard}", what, hint="leave one of them out")
        check_known("--sampler", self.sampler, SAMPLERS)
        check_target(self.model, target=self.target, io=self.io, profile=self.profile, integer_only=self.integer_only)
        check_scoring(target=self.target, engine=self.engine, objective=self.objective)
        if self.keep_models < 1:
            what = f"must be at least 1, got {self.keep_models}"
            raise UsageError("--keep-models", what, hint="for example 5; or best, or all")
        check_min_speedup(self.min_speedup, target=self.target)
        if not self.space:
            object.__setattr__(self, "space", default_space(self.target))

    def _check_processes(self) -> None:
        """Raise UsageError where trials cannot be carried out by other processes as is asked."""
        if self.jobs < 0:
            raise UsageError("--jobs", f"must be at least 0, got {self.jobs}", hint="for example 4")
        if self.study and not self.storage:
            raise UsageError("--study", "is the name of a search in a --storage", hint="give that too")
        if self.storage:
            from autoquant.tuning.study.databases import check_url

            check_url(self.storage)
        if self.artifacts:
            from autoquant.tuning.study.artifacts import check_place

            check_place(self.artifacts)
            if not self.storage:
                what = "is for workers that meet the search in a --storage: others have the folder of the run"
                raise UsageError("--artifacts", what, hint="give that too, or leave it out")
        asked = {"--storage": self.storage, "--jobs": self.jobs != 1, "--isolate": self.isolate}
        option = next((name for name, is_asked in asked.items() if is_asked), "")
        if option and (given := [name for name, value in self.as_table().items() if value == IN_MEMORY]):
            others = "another process" if option == "--isolate" else "other processes"
            what = f"carries trials out in {others}, which cannot be given {given[0]} from memory"
            raise UsageError(option, what, hint="give a file, or 'module:function'")

    def check_named(self) -> None:
        """Raise InputError for names of what is not there, of model, space and metric too."""
        check_file(self.model)
        load_space(self.space)
        super().check_named()
        check_spec(None if self.certify == NOTHING else self.certify)

    def as_table(self) -> dict[str, Any]:
        """The table of run.toml: paths made absolute, unset values left out."""
        table: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name == "junit" or (entry.name == "artifacts" and "://" not in value):
                value = str(Path(value).absolute()) if value else None  # which is yet to be written
            elif isinstance(value, str | Path):
                value = absolute(entry.name, str(value))
            elif isinstance(value, Tolerance):
                value = str(value)
            elif callable(value) or (value is not None and entry.name in ("data", "calibration", "certify")):
                value = IN_MEMORY
            unset = value is None or value == math.inf or value == () or (entry.name in UNSET and value == "")
            if not unset and entry.name != TRUST_MODEL:
                table[entry.name] = list(value) if isinstance(value, tuple) else value
        return table

    @classmethod
    def from_table(cls, table: Mapping[str, Any], where: str, *, call: str = "resume", **changed: Any) -> SearchRequest:
        """The request of a table by `as_table`, with some values changed; `call` is the function to name in an error.

        What was moved is yet to be compared with the digests of the run. Raises UsageError for what may not change,
        RunError for what was in memory and is not among the changed values, or for a table of another kind.
        """
        known = {entry.name for entry in fields(cls)}
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in table.items()}
        values.pop(TRUST_MODEL, None)
        for key in changed:
            if key not in CHANGEABLE | MOVABLE | {STORAGE} and values.get(key) != IN_MEMORY:
                hint = f"start a new run; what may change is {', '.join(sorted(CHANGEABLE))}"
                raise UsageError(
                    key, "cannot change when a run is resumed: its trials would not be comparable", hint=hint
                )
        values.update(changed)
        for key, value in values.items():
            if key not in known:
                raise RunError(where, f"unknown key '{key}'", hint="was it written by another version of autoquant?")
            if isinstance(value, str) and value == IN_MEMORY:
                hint = f"give it again in Python: autoquant.{call}(run, {key}=...)"
                raise RunError(where, f"{key} was in memory when this run was started", hint=hint)
        try:
            return cls(**{**values, "tolerance": values["tolerance"]})  # which must be there
        except (KeyError, TypeError) as error:
            raise RunError(where, f"is incomplete ({error})", hint="was it edited?") from None
        except UsageError as error:
            if changed.keys() & {error.where.lstrip("-").partition(" ")[0].replace("-", "_")}:
                raise
            raise RunError(where, f"{error.where}: {error.what}", hint="was it edited?") from None
