"""What may be claimed of a search's winner, from one evaluation on a holdout; certificate.json beside its model.

The data of the search chose the winner, so its drop there looks better than it is. On data that had no part in that,
the upper bound of the drop holds with the stated confidence for whatever model was chosen, and however. In the file
what is not known is left out, such as discordant pairs of a metric that has none, and so is a bound that is infinite.

A certificate is beside a model, and the next one takes its place. To holdout_log.json evaluations are only ever added,
so that none is forgotten when another one follows.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from autoquant.errors import RunError
from autoquant.evaluation.statistics.paired import GroupBound
from autoquant.formats.codec import load, save
from autoquant.tuning.study.run_folder import CERTIFICATE, RunFolder

AGAIN = "it records which holdout samples were used: restore the file as the search wrote it, or start a new run"


class Verdict(StrEnum):
    """What is claimed.

    CERTIFIED: the upper bound is within tolerance, and that of every group. MISSED: the drop itself is not, or that of
    a group is proven not to be. MET: anything between.
    """

    CERTIFIED = "certified"
    MET = "met, not certified"
    MISSED = "missed"


@dataclass(frozen=True, slots=True)
class Origin:
    """What was measured, on what: engine and kernels as a person calls them; SHA-256 (hex) of models and data.

    `model` is the FP32 model, `int8_model` the file that is certified, `data` the holdout.
    """

    engine: str
    kernels: str
    model: str
    int8_model: str
    data: str

    def __post_init__(self) -> None:
        require_digests(self.model, self.int8_model, self.data)


def require_digests(*digests: str) -> None:
    """Raise ValueError for what is not a SHA-256 in hex."""
    for digest in digests:
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError(f"a digest has 64 hexadecimal digits, got {digest!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The claim. Scores, drops and `upper_bound` are in units of the metric.

    With probability `confidence` the true drop is at most `upper_bound`, which `method` says how it was found; it is
    infinite where these samples bound nothing, and so are the bounds of groups. `losses` and `gains` count discordant
    pairs, None where the metric has none. `guard` has groups, the worst first, each within tolerance up to
    `guard_max_drop`, and `unseen` those of the evaluation data without a sample here, so that nothing is known of them.
    `needed_samples` are about how many would certify at the rates seen, where that is what is missing. `left_out`
    counts samples that were to certify and did not, as search or calibration have them too. `suspicious`: INT8 is
    better than FP32 by more than chance, so the baseline may not be what it should be. Where samples come in units that
    were named, `units` is their number, and `needed_units` stands in place of `needed_samples`; `assumes` says what is
    taken to be independent.
    """

    verdict: Verdict
    metric: str
    baseline: float
    score: float
    drop: float
    upper_bound: float = math.inf
    max_drop: float
    confidence: float
    samples: int
    method: str
    origin: Origin
    suspicious: bool
    losses: int | None = None
    gains: int | None = None
    needed_samples: int | None = None
    guard: tuple[GroupBound, ...] = ()
    guard_max_drop: float | None = None
    left_out: int = 0
    unseen: tuple[str, ...] = ()
    units: int | None = None
    needed_units: int | None = None
    assumes: str = ""

    def __repr__(self) -> str:
        bound = f"at most {self.upper_bound:.4g} with {self.confidence:.4g} confidence"
        drop = f"{self.metric} drops by {self.drop:.4g}, {bound}"
        return f"<Certificate {self.verdict}: {drop}; {self.max_drop:.4g} is allowed, {self.samples} samples>"

    def __post_init__(self) -> None:
        numbers = [self.baseline, self.score, self.drop, self.max_drop, self.guard_max_drop or 0.0]
        numbers += [group.drop for group in self.guard]
        if not all(map(math.isfinite, numbers)):
            raise ValueError("the numbers of a certificate are finite")
        ends = [self.upper_bound, *(end for group in self.guard for end in (group.upper, -group.lower))]
        if not all(end > -math.inf for end in ends):  # NaN fails too
            raise ValueError("a bound is finite, or there is none")
        if self.verdict is Verdict.CERTIFIED and (math.isinf(self.upper_bound) or self.unseen):
            raise ValueError("what is certified has a bound, and so has every group")
        if not 0.0 < self.confidence < 1.0 or self.samples < 1:
            raise ValueError(f"confidence is in (0, 1), samples are some, got {self.confidence}, {self.samples}")
        if self.guard and self.guard_max_drop is None:
            raise ValueError("groups are guarded, so there is a largest drop of each")


def load_certificate(path: Path) -> Certificate:
    """Read a certificate.json. Raises RunError that names the key."""
    return load(Certificate, path, RunError, hint="take the file as the search wrote it")


@dataclass(frozen=True, slots=True)
class HoldoutEvaluation:
    """A trial was scored on the holdout: SHA-256 (hex) of that data and of its model file, and the verdict."""

    data: str
    trial: int
    model: str
    verdict: Verdict

    def __post_init__(self) -> None:
        require_digests(self.data, self.model)
        if self.trial < 0:
            raise ValueError(f"trials count from 0, got {self.trial}")


@dataclass(frozen=True, slots=True)
class HoldoutLog:
    """The evaluations of a run, in order."""

    evaluations: tuple[HoldoutEvaluation, ...]


def readable_certificate(path: Path) -> Certificate | None:
    """The certificate in a file; None where it is not there or damaged: then it can be computed again."""
    try:
        return load_certificate(path)
    except RunError:
        return None


def read_holdout_log(folder: RunFolder) -> tuple[HoldoutEvaluation, ...]:
    """The evaluations of a run, in order, also those of which only the certificate is left. Raises RunError."""
    found: list[HoldoutEvaluation] = []
    if folder.holdout_log.exists():
        found += load(HoldoutLog, folder.holdout_log, RunError, hint=AGAIN).evaluations
    for number, path in folder.trials().items():
        certificate = readable_certificate(path / CERTIFICATE)
        if certificate is not None:
            origin = certificate.origin
            found.append(HoldoutEvaluation(origin.data, number, origin.int8_model, certificate.verdict))
    return tuple(dict.fromkeys(found))


def add_to_holdout_log(evaluation: HoldoutEvaluation, folder: RunFolder) -> None:
    """Add an evaluation to those of the run, once. Raises RunError."""
    evaluations = tuple(dict.fromkeys([*read_holdout_log(folder), evaluation]))
    save(HoldoutLog(evaluations), folder.holdout_log)
