"""The result of a search, why it ended, and result.json: one object about the whole search."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoquant.errors import RunError, UsageError
from autoquant.evaluation.latency.latency import Latency
from autoquant.evaluation.scoring.changes import LostSample
from autoquant.formats.codec import encode, file_facts, json_text
from autoquant.tuning.certification.certificate import Certificate, Verdict
from autoquant.tuning.study.run_folder import RunFolder
from autoquant.tuning.study.trial import Trial

if TYPE_CHECKING:  # which loads LiteRT
    from autoquant.targets.profiles.check import DeviceCheck
    from autoquant.tuning.int8_model import Int8Model
    from autoquant.tuning.verification import Verification


COLUMNS = (
    *("number", "state", "why", "phase", "score", "drop", "low", "high", "within", "int8_layers", "int16_layers"),
    *(
        "layers",
        "int8_share",
        "int16_share",
        "objective",
        "qdq_ops",
        "divergence",
        "samples",
        "seconds",
        "failure",
        "at_fault",
    ),
)
"""What `trials_dataframe` tells of each trial; `seconds` are those of all its parts."""
FLOAT, INT8 = "float", "int8"
"""What can be shipped."""


class Ended(StrEnum):
    """Why a search ended."""

    NOTHING_BETTER = "tolerance met with all quantizable layers in INT8; search complete"
    FASTEST = "tolerance met, and no plan can be faster by the times of its operators; search complete"
    TARGET = "stopped at the first trial within tolerance"
    TRIALS = "trial budget used"
    TIMEOUT = "time budget used"
    NOTHING_NEW = "no new plan is left to propose"
    FAILURES = "ten trials failed in a row"
    INTERRUPTED = "interrupted"
    STOPPED = "stopped by its listener"


@dataclass(frozen=True, slots=True)
class Shipped:
    """Which model is to be shipped, by --min-speedup: 'float' or 'int8', its file with the SHA-256, and why."""

    what: str
    model: Path
    digest: str
    why: str

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"what": self.what, "model": str(self.model), "digest": self.digest, "why": self.why}


@dataclass(frozen=True, slots=True)
class CostlyLayers:
    """Layers and the mean divergence from FP32 (evaluation/metrics/divergence.py) when that layer alone is INT8.

    The largest first; infinite where the layer alone cannot be built or run. `how` says how they were found.
    """

    layers: tuple[tuple[str, float], ...] = ()
    how: str = ""

    @classmethod
    def of(cls, found: Mapping[str, float], how: str) -> CostlyLayers:
        """In their order."""
        return cls(tuple(sorted(found.items(), key=lambda item: -item[1])), how if found else "")


@dataclass(frozen=True)
class SearchResult:
    """The outcome of a search.

    Scores, `drop`, `max_drop` (the largest within tolerance) and `worst_score` (with that) are in units of the metric.
    `unit` is what shares are shares of: multiply-adds, or parameters where those are not known; `objective` is the name
    of what was minimized, `space` of a preset or the file that was searched in. `model` is the best INT8 model on disk,
    None when no trial succeeded, `front` the graph of TensorFlow that computes inputs of it where it does not take the
    data itself; `costly` are the layers of a best plan that missed; `latency` is that of the float model and the best,
    None where the target's files do not run here; `score_tensorflow` is the best model's score there, where another
    engine scored the trials of a graph of TensorFlow; `verification` compares the best .tflite with itself on other
    kernels; `certificate` is what may be claimed of the best on samples that the search has not seen,
    `uncertified` says why there is none, `declined` that none was wanted; the search had `search_samples`. `warnings`
    are what a person should know of the result, `plugins` what of it is of another package ('huber of acme 1.2').
    `pareto` are the trials that no other beats in both drop and INT8 share, the models of `keep_models` of which are
    kept; `lost` are samples that FP32 had right and the best has wrong, at most 200; `shipped` is what to ship where
    that depends on the speed; the FP32 score is `min_baseline` at least, where that was asked for; `device` compares
    the best with the profile of a device, where one was named.
    """

    verdict: Verdict
    metric: str
    baseline: float
    max_drop: float
    worst_score: float
    best: Trial | None
    trials: tuple[Trial, ...]
    layers: int
    seconds: float
    model: Path | None
    run: Path
    ended: Ended
    front: Path | None = None
    unit: str = "multiply-adds"
    objective: str = "macs"
    space: str = ""
    costly: CostlyLayers = field(default_factory=CostlyLayers)
    latency: Latency | None = None
    score_tensorflow: float | None = None
    verification: Verification | None = None
    certificate: Certificate | None = None
    uncertified: str = ""
    declined: bool = False
    search_samples: int = 0
    warnings: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    pareto: tuple[Trial, ...] = ()
    keep_models: float = 1
    lost: tuple[LostSample, ...] = ()
    shipped: Shipped | None = None
    min_baseline: float | None = None
    device: DeviceCheck | None = None

    def __repr__(self) -> str:
        best = self.best
        found = f"no trial of {len(self.trials)} finished"
        if best is not None:
            score = "not fully scored" if best.score is None else f"{self.metric} {best.score:.4g}"
            found = f"{score} (FP32 {self.baseline:.4g}), {best.int8_layers} of {self.layers} layers in INT8"
            found += f", {best.int16_layers} with INT16 activations" if best.int16_layers else ""
        ended = f"{len(self.trials)} trial{'s' if len(self.trials) != 1 else ''}, {self.ended}"
        return f"<SearchResult {self.verdict}: {found}\n {ended}\n {self.model or self.run}>"

    def __fspath__(self) -> str:
        """The folder of its run: functions that take a run take its result."""
        return str(self.run)

    def load(self) -> Int8Model:
        """The best INT8 model, ready to call: `result.load()(x)`, where x is what the float model takes.

        Raises RunError where there is none, ModelError where its file is gone.
        """
        from autoquant.tuning.int8_model import load_int8_model

        if self.model is None:
            raise RunError(str(self.run), "has no INT8 model: no trial finished", hint="`autoquant resume` goes on")
        return load_int8_model(self.model)

    def trials_dataframe(self) -> Any:
        """The trials as a pandas frame, a row each, their numbers as index. Raises UsageError without pandas."""
        try:
            import pandas
        except ImportError:
            hint = "pip install pandas, or read result.trials"
            raise UsageError("trials_dataframe()", "needs pandas, which is not installed", hint=hint) from None
        rows = [{name: _cell(getattr(trial, name)) for name in COLUMNS} for trial in self.trials]
        return pandas.DataFrame(rows, columns=list(COLUMNS)).set_index("number")

    @property
    def score(self) -> float | None:
        """Score of the best trial."""
        return self.best.score if self.best else None

    @property
    def drop(self) -> float | None:
        """How much worse than the baseline the best trial is."""
        return self.best.drop if self.best else None

    def model_of(self, trial: Trial) -> Path | None:
        """The model of a trial, where it is kept."""
        path = None if self.model is None else RunFolder(self.run).trial(trial.number) / self.model.name
        return path if path is not None and path.is_file() else None

    @property
    def evaluated_samples(self) -> int:
        """Samples evaluated by trials, the baseline and the certification not counted."""
        return sum(trial.samples for trial in self.trials)


def _cell(value: Any) -> Any:
    if isinstance(value, Mapping):
        return sum(value.values())
    return str(value) if isinstance(value, StrEnum) else value


def result_facts(result: SearchResult) -> dict[str, Any]:
    """What `--json` prints.

    Scores, `drop` and `max_drop` are in units of the metric; `int8_share` and `int16_share` are shares of `share_of`;
    `objective` is what was minimized, 1.0 for the model all in float; `qdq_ops` counts Q/DQ operators between that and
    INT8.
    """
    best = result.best
    same = ["metric", "baseline", "score", "score_tensorflow", "drop", "max_drop", "layers", "uncertified"]
    same += ["search_samples", "evaluated_samples", "seconds"]
    return {
        **{name: getattr(result, name) for name in same},
        "version": 1,
        "verdict": result.verdict.value,
        "int8_layers": best.int8_layers if best else 0,
        "int8_share": best.int8_share if best else 0.0,
        "int16_layers": best.int16_layers if best else 0,
        "int16_share": best.int16_share if best else 0.0,
        "objective": {"name": result.objective, "value": best.objective if best else None},
        "qdq_ops": best.qdq_ops if best else None,
        "latency": result.latency.facts() if result.latency else None,
        "verification": encode(result.verification),
        "certificate": file_facts(result.certificate) if result.certificate else None,
        "trials": len(result.trials),
        "best_trial": best.number if best else None,
        "ended": result.ended.value,
        "share_of": result.unit,
        "warnings": list(result.warnings),
        "model": str(result.model) if result.model else None,
        "front": str(result.front) if result.front else None,
        "run": str(result.run),
        "pareto": [_pareto_facts(result, trial) for trial in result.pareto],
        "shipped": None if result.shipped is None else result.shipped.facts(),
        "min_baseline": result.min_baseline,
        "device": None if result.device is None else result.device.facts(),
    }


def _pareto_facts(result: SearchResult, trial: Trial) -> dict[str, Any]:
    """Of one trial of the front; `model` is null where it is not kept."""
    model = result.model_of(trial)
    same = {name: getattr(trial, name) for name in ("score", "drop", "int8_layers", "int8_share")}
    return {
        "trial": trial.number,
        **same,
        "within": trial.meets(result.max_drop),
        "model": str(model) if model else None,
    }


def result_text(result: SearchResult) -> str:
    """The text of result.json: the object, with every trial and the samples that the best has lost."""
    facts = {**result_facts(result), "all_trials": [trial.facts() for trial in result.trials]}
    facts["costly_layers"] = [
        {"layer": name, "divergence": value if math.isfinite(value) else None} for name, value in result.costly.layers
    ]
    facts["plugins"] = list(result.plugins)
    facts["costly_layers_are"] = result.costly.how
    facts["lost_samples"] = [encode(one) for one in result.lost]
    return json_text(facts)
