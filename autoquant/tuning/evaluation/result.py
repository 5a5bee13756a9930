"""The scores of models on the same samples, and how they compare with the first."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autoquant.evaluation.scoring.changes import LostSample, SampleChanges
from autoquant.evaluation.statistics.paired import GroupBound
from autoquant.formats.codec import encode, file_facts
from autoquant.tuning.certification.certificate import Certificate, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelScore:
    """The score of one model, and how it compares with the first, the reference, which has none of what follows it.

    Scores, drops and bounds are in units of the metric; each bound is one-sided at the confidence of the evaluation,
    None where these samples bound nothing; `method` says how it was found. `losses` and `gains` count discordant pairs,
    None where the metric has none; `changes` says which samples changed, `lost` which became worse, at most 200 of
    them. `guard` has groups, the worst first. `verdict` is that of the tolerance, None without one; `certificate` what
    may be claimed, where that was asked for.
    """

    name: str
    path: str
    digest: str
    engine: str
    kernels: str
    score: float
    drop: float | None = None
    lower_bound: float | None = None
    upper_bound: float | None = None
    method: str = ""
    losses: int | None = None
    gains: int | None = None
    suspicious: bool = False
    guard: tuple[GroupBound, ...] = ()
    changes: SampleChanges | None = None
    lost: tuple[LostSample, ...] = ()
    verdict: Verdict | None = None
    certificate: Certificate | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<ModelScore {self}>"

    def __str__(self) -> str:
        bound = "" if self.upper_bound is None else f", at most {self.upper_bound:.4f}"
        drop = "" if self.drop is None else f", drop {self.drop:.4f}{bound}"
        return f"{self.name}: {self.score:.4f}{drop}{'' if self.verdict is None else f', {self.verdict}'}"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Models scored on the same samples, the first of them the reference.

    `max_drop` is the largest drop within tolerance, in units of the metric, None without one; `file` that of the
    certificate; `data` the SHA-256 (hex) of the samples.
    """

    metric: str
    samples: int
    data: str
    models: tuple[ModelScore, ...]
    confidence: float
    max_drop: float | None = None
    guard_max_drop: float | None = None
    units: int | None = None
    file: Path | None = None
    warnings: tuple[str, ...] = field(default=())

    def __repr__(self) -> str:
        most = "" if self.max_drop is None else f", max drop {self.max_drop:.4f}"
        return "\n ".join([f"<Evaluation: {self.metric} of {self.samples} samples{most}", *map(str, self.models)]) + ">"

    @property
    def verdict(self) -> Verdict | None:
        """The worst of the verdicts; None without a tolerance."""
        found = [one.verdict for one in self.models if one.verdict is not None]
        return next((verdict for verdict in reversed(Verdict) if verdict in found), None)

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "version": 1,
            "metric": self.metric,
            "samples": self.samples,
            "data": self.data,
            "confidence": self.confidence,
            "max_drop": self.max_drop,
            "guard_max_drop": self.guard_max_drop,
            "units": self.units,
            "verdict": None if self.verdict is None else self.verdict.value,
            "models": [_model_facts(one) for one in self.models],
            "certificate": None if self.file is None else str(self.file),
            "warnings": list(self.warnings),
        }


def _model_facts(one: ModelScore) -> dict[str, Any]:
    facts = encode(replace(one, certificate=None))
    return {**facts, "certificate": file_facts(one.certificate) if one.certificate else None}
