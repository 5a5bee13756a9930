"""Verify a score on LiteRT: the kernels that ran, the machine, and how far the reference kernels differ.

Integer kernels round differently, each within its rules; through many layers one-step differences grow. So a score
belongs to the kernels it was measured on, and the reference kernels, which define what an operator computes, tell how
much of it that is.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoquant.array import Array
from autoquant.evaluation.data.batch import Outputs
from autoquant.evaluation.engines.engine import Runner
from autoquant.evaluation.engines.litert import LiteRTEngine
from autoquant.evaluation.metrics.metric import Metric, score_of, stack_rows
from autoquant.evaluation.scoring.subset import EvaluationSubset
from autoquant.model.model import Program

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


def verify(path: Path, program: Program, subset: EvaluationSubset, *, clock: Callable[[], float]) -> Verification:
    """Run some samples from all over the data on both kinds of kernels. Raises TrialError where one does not run."""
    fast, slow = LiteRTEngine(), LiteRTEngine(reference=True)
    with closing(fast.open_file(path, program)) as one, closing(slow.open_file(path, program)) as other:
        xnnpack, reference = _measured((one, other), subset, clock)
        kernels = {name: dict(Counter(operators)) for name, operators in one.kernels().items()}
    result, expected = (np.concatenate([part.reshape(-1) for part in run.outputs]) for run in (xnnpack, reference))
    scale = max(float(np.linalg.norm(expected)), np.finfo(np.float64).tiny)
    return Verification(
        litert=fast.version,
        processor=platform.machine(),
        features=cpu_features(),
        threads=fast.threads,
        kernels=kernels,
        samples=sum(map(len, xnnpack.outputs)),
        relative_difference=float(np.linalg.norm(result - expected)) / scale,
        largest_difference=float(np.abs(result - expected).max(initial=0.0)),
        agreement=_agreement(xnnpack.outputs, reference.outputs),
        score=xnnpack.score(subset.metric),
        reference_score=reference.score(subset.metric),
    )


class _Measured:
    """What one kind of kernels gives for each part of the samples: the first output, float64, and the metric's rows."""

    def __init__(self) -> None:
        self.outputs: list[Array] = []
        self.rows: list[Array] = []

    def record(self, places: slice, outputs: Outputs) -> None:
        """Add the first output of a batch."""
        self.outputs.append(next(iter(outputs.values())).astype(np.float64))

    def score(self, metric: Metric) -> float:
        """The metric's value."""
        return score_of(metric, stack_rows(metric, self.rows)).value


def _measured(runners: Sequence[Runner], subset: EvaluationSubset, clock: Callable[[], float]) -> Sequence[_Measured]:
    """Run the same samples on each, in parts, as long as there is time."""
    chosen = np.unique(np.linspace(0, len(subset) - 1, SAMPLES).astype(np.int64))  # data is often sorted by class
    found, end = [_Measured() for _ in runners], clock() + SECONDS
    for places in np.split(chosen, range(PART, len(chosen), PART)):
        for runner, own in zip(runners, found, strict=True):
            own.rows.append(subset.measure(runner, places, batch_size=PART, on_outputs=own.record))
        if clock() >= end:
            break
    return found


def _agreement(ours: Sequence[Array], theirs: Sequence[Array]) -> float | None:
    if any(part.ndim != 2 or part.shape[1] < 2 for part in ours):
        return None
    same = [one.argmax(axis=1) == other.argmax(axis=1) for one, other in zip(ours, theirs, strict=True)]
    return float(np.concatenate(same).mean())


def cpu_features(path: Path = Path("/proc/cpuinfo")) -> tuple[str, ...]:
    """Which of FEATURES the processor has; none where the system does not tell."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    told = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    words = set(told.partition(":")[2].split())
    return tuple(name for name in FEATURES if name in words)
