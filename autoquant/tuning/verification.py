"""What a score on LiteRT rests on: the kernels that ran, the machine, and how far other kernels come out elsewhere.

Integer kernels round differently, each within its rules; through many layers one-step differences grow. So a score
belongs to the kernels it was measured on, and the reference kernels, which define what an operator computes, tell how
much of it that is.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoquant.evaluation.data.batch import Array
from autoquant.evaluation.engines.engine import run_batch
from autoquant.evaluation.engines.litert import LiteRTEngine, LiteRTRunner
from autoquant.evaluation.scoring.score import score_of, stack_rows
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
    `relative_difference` is |y - r| / |r| of the first output, Euclidean norms, `largest_difference` its largest single
    one in units of the output; `agreement` the share of samples of the same top-1 class, None where outputs are no
    classes. `score` and `reference_score` are of the metric.
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

    def facts(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def verify(
    path: Path,
    program: Program,
    part: EvaluationSubset,
    *,
    clock: Callable[[], float],
) -> Verification:
    """Run some samples from all over the data on both kinds of kernels. Raises TrialError where one does not run."""
    fast, slow = LiteRTEngine(), LiteRTEngine(reference=True)
    one = fast.open_file(path, program)
    try:
        other = slow.open_file(path, program)
        try:
            seen = list(_compared(one, other, part, clock))
        finally:
            other.close()
        kernels = {name: dict(Counter(operators)) for name, operators in one.kernels().items()}
    finally:
        one.close()
    samples = sum(len(one.result) for one in seen)
    result, expected = (np.concatenate([getattr(p, name).reshape(-1) for p in seen]) for name in ("result", "expected"))
    scale = max(float(np.linalg.norm(expected)), np.finfo(np.float64).tiny)
    return Verification(
        litert=fast.version,
        processor=platform.machine(),
        features=cpu_features(),
        threads=fast.threads,
        kernels=kernels,
        samples=samples,
        relative_difference=float(np.linalg.norm(result - expected)) / scale,
        largest_difference=float(np.abs(result - expected).max(initial=0.0)),
        agreement=_agreement(seen),
        score=score_of(part.metric, stack_rows(part.metric, [one.rows for one in seen])).value,
        reference_score=score_of(part.metric, stack_rows(part.metric, [one.reference_rows for one in seen])).value,
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """Some samples: the first output on both kernels, float64, and the rows of the metric."""

    result: Array
    expected: Array
    rows: Array
    reference_rows: Array


def _compared(
    one: LiteRTRunner,
    other: LiteRTRunner,
    part: EvaluationSubset,
    clock: Callable[[], float],
) -> Iterator[_Part]:
    data, metric = part.data, part.metric
    chosen = np.unique(np.linspace(0, len(data) - 1, SAMPLES).astype(np.int64))  # data is often sorted by class
    end, done = clock() + SECONDS, 0
    for batch in data.subset(chosen).batches(PART):
        wanted = part.reference(chosen[done : done + len(batch)]) if metric.needs_reference else None
        result, expected = run_batch(one, batch), run_batch(other, batch)
        name = next(iter(result))
        yield _Part(
            result[name].astype(np.float64),
            expected[name].astype(np.float64),
            metric.measure(result, batch.labels, wanted),
            metric.measure(expected, batch.labels, wanted),
        )
        done += len(batch)
        if clock() >= end:
            return


def _agreement(parts: list[_Part]) -> float | None:
    if any(part.result.ndim != 2 or part.result.shape[1] < 2 for part in parts):
        return None
    same = [part.result.argmax(axis=1) == part.expected.argmax(axis=1) for part in parts]
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
