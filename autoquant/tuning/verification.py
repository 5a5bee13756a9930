"""Verify a score on LiteRT: the kernels that ran, the machine, and how far the reference kernels differ.

Integer kernels round differently, each within its rules; through many layers one-step differences grow. So a score
belongs to the kernels it was measured on, and the reference kernels, which define what an operator computes, tell how
much of it that is.
"""

from __future__ import annotations

import math
import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from autoquant.array import Array
from autoquant.evaluation.data.batch import Batch, Outputs
from autoquant.evaluation.engines.engine import Runner, bounded_batch
from autoquant.evaluation.engines.litert import LiteRTEngine
from autoquant.evaluation.metrics.metric import Metric, OnProgress, reachable, score_of
from autoquant.evaluation.scoring.subset import EvaluationSubset
from autoquant.model.model import Program
from autoquant.quiet import no_progress

SAMPLES, PART = 200, 10
"""Samples that are compared at most, and how many are run between two looks at the clock."""
SECONDS = 10.0
"""The reference kernels are slow: no part begins after so many seconds."""
FEATURES = ("avx", "avx2", "f16c", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm")
"""What of a processor decides about the kernels that XNNPACK chooses, in the words of Linux."""


@dataclass(frozen=True, slots=True)
class Verification:
    """One INT8 file on XNNPACK and on LiteRT's reference kernels, both on the same `samples`.

    `kernels` counts, for XNNPACK and for LiteRT's own kernels, the operators by name that each ran.
    `relative_difference` is |y - r| / |r| of the first output that is scored, Euclidean norms, `largest_difference` its
    largest single one in units of the output; `agreement` the share of samples of the same top-1 class, None where
    outputs are no classes. `score` and `reference_score` are of the metric.
    """

    litert: str
    processor: str
    features: tuple[str, ...]
    threads: int
    kernels: Mapping[str, Mapping[str, int]]
    samples: int
    relative_difference: float
    largest_difference: float
    agreement: float | None
    score: float
    reference_score: float


def verify(
    path: Path,
    program: Program,
    subset: EvaluationSubset,
    *,
    clock: Callable[[], float],
    seconds: float = SECONDS,
    on_progress: OnProgress = no_progress,
) -> Verification:
    """Run some samples from all over the data on both kinds of kernels, `seconds` long at most, or SECONDS.

    Raises TrialError where one does not run.
    """
    begin, allowed = clock(), min(seconds, SECONDS)
    fast, slow = LiteRTEngine(), LiteRTEngine(reference=True)
    with closing(fast.open_file(path, program)) as one, closing(slow.open_file(path, program)) as other:
        found = _measured((one, other), subset, lambda: clock() - begin, allowed, on_progress)
        kernels = {name: dict(Counter(operators)) for name, operators in one.kernels().items()}
    return Verification(
        litert=fast.version,
        processor=platform.machine(),
        features=cpu_features(),
        threads=fast.threads,
        kernels=kernels,
        samples=found.samples,
        relative_difference=math.sqrt(found.squares) / max(math.sqrt(found.size), np.finfo(np.float64).tiny),
        largest_difference=found.largest,
        agreement=None if found.agreed is None else found.agreed / found.samples,
        score=found.score(0),
        reference_score=found.score(1),
    )


class _Compared:
    """Both kinds of kernels on the samples so far: the metric's rows, and how the first outputs differ, in float64."""

    def __init__(self, metric: Metric) -> None:
        self.samples = 0
        self.squares, self.size, self.largest = 0.0, 0.0, 0.0
        self.agreed: int | None = 0
        self._metric = metric
        self._rows: tuple[list[Array], list[Array]] = ([], [])

    def add_rows(self, *rows: Array) -> None:
        """Add the rows of some samples, of XNNPACK and of the reference kernels."""
        for own, more in zip(self._rows, rows, strict=True):
            own.append(more)

    def add_outputs(self, ours: Array, theirs: Array) -> None:
        """Add their first output."""
        difference, expected = ours.astype(np.float64) - theirs, theirs.astype(np.float64)
        self.samples += len(ours)
        self.squares += float(np.square(difference).sum())
        self.size += float(np.square(expected).sum())
        self.largest = max(self.largest, float(np.abs(difference).max(initial=0.0)))
        if self.agreed is not None:
            classes = ours.ndim == 2 and ours.shape[1] > 1
            self.agreed = self.agreed + int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum()) if classes else None

    def score(self, which: int) -> float:
        """The metric's value."""
        return score_of(self._metric, np.concatenate(self._rows[which])).value


def _measured(
    runners: Sequence[Runner],
    subset: EvaluationSubset,
    elapsed: Callable[[], float],
    allowed: float,
    on_progress: OnProgress,
) -> _Compared:
    """Run the same samples on each, in parts, until the seconds that are allowed have elapsed."""
    chosen = np.unique(np.linspace(0, len(subset) - 1, SAMPLES).astype(np.int64))  # data is often sorted by class
    size = bounded_batch(PART, subset.baseline.sample_bytes, subset.data.inputs)
    found = _Compared(subset.metric)
    some = replace(subset, data=subset.data.subset(chosen).loaded(), positions=subset.positions[chosen])
    for places in np.split(np.arange(len(chosen)), range(size, len(chosen), size)):
        parts: tuple[list[Array], ...] = ([], [])
        rows = [
            some.measure(runner, places, batch_size=size, on_outputs=partial(_keep_first, own))
            for runner, own in zip(runners, parts, strict=True)
        ]
        found.add_rows(*rows)
        for ours, theirs in zip(*parts, strict=True):
            found.add_outputs(ours, theirs)
        spent = elapsed()
        left = allowed - spent
        on_progress(found.samples, reachable(found.samples, len(chosen), spent=spent, left=left, step=size))
        if left <= 0.0:
            break
    return found


def _keep_first(parts: list[Array], at: slice, batch: Batch, outputs: Outputs) -> None:
    parts.append(next(iter(outputs.values())))


def cpu_features(path: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Which of FEATURES the processor has; none where the system does not tell."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    told = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    words = set(told.partition(":")[2].split())
    return tuple(name for name in FEATURES if name in words)
