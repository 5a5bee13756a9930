"""When a trial that is scored sample by sample stops, and what is known of it then."""

from __future__ import annotations

from dataclasses import dataclass

from autoquant.evaluation.metrics.metric import Score
from autoquant.evaluation.scoring.changes import SampleChanges

PROBE_SIZES = (1, 4, 16, 32, 64, 128, 256)
"""Samples of the probe set after which the mean divergence from FP32 is told, and after all where these are fewer."""
FIRST_PROBES = 64
"""Of the probe set, that every trial is scored on which is not only to be compared with others."""
EARLY_STOPPING = ("anytime-valid test", "asymptotic test", "none")
"""By what trials are stopped early: a test that errs at most as often as stated, one that nearly does, or nothing."""
FIRST_CHECK = 32
"""Samples of a plan's own order before the test is asked for the first time."""
GROWTH = 1.25
"""How many times as many there are before it is asked again."""
SCREEN_AFTER = 64, 256
"""Samples of a plan's own order after which one that is undecided is screened on the low-margin set.

The first number where hardly anything was lost, so that it takes many samples to decide; else the second.
"""
HARDLY = 3.0
"""So much was lost then on all samples so far, in units of what a sample can lose at most."""
LOW_MARGIN_SHARES = (0.05, 0.1, 0.2, 0.4)
"""The shares of all samples that are the low-margin set, in steps after each of which a trial may be screened out.

Of 54 and 135 plans of two networks of 4,000 samples with all layers in INT8, 99 % and 63 % of all changes were in the
first tenth. To find one that loses 3 at most took 22 % and 11 % fewer samples than with the first tenth alone.
"""
LEEWAY = 1.0 / 3.0
"""By so much of what is within tolerance more may be lost at the first of these steps: some of it is won back."""


@dataclass(frozen=True, slots=True)
class StoppingRules:
    """When scoring a trial stops.

    `max_drop` is the largest drop within tolerance, `alpha` the probability with which the test may err, `order` a
    number of the plan's own, from which the order of samples is drawn. A model that is proven within tolerance is
    scored on everything only where it `improves` on the best so far. With `max_samples` nothing is decided: it is
    scored on so many of the probe set, or on everything where it is as many as there are.
    """

    max_drop: float
    alpha: float
    order: int = 0
    improves: bool = True
    max_samples: int | None = None


@dataclass(frozen=True, slots=True)
class SequentialScore:
    """The result of scoring a trial sample by sample.

    `score` is there where it was scored on all samples; `drop` is exact then, else the estimate of it, and `low` and
    `high` are the ends of its interval; all None where nothing is known. `within` says whether the drop is within
    tolerance, None where that is not known: without `max_samples`, where it was screened out. `divergences` are means
    of the divergence from FP32 (divergence.py) over the first samples of the probe set, for each of PROBE_SIZES as far
    as it was scored on them, the last one over `divergence_samples`; `probe_drops` are the mean drops there, of a
    metric whose values have no bounds: of right and wrong answers the drop of few samples says little. `changes` says
    which samples changed, where there is a score and the metric has a number for each of them.
    """

    samples: int
    score: Score | None
    drop: float | None
    low: float | None
    high: float | None
    within: bool | None
    divergences: tuple[float, ...]
    divergence_samples: int
    changes: SampleChanges | None = None
    probe_drops: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class FullScore:
    """A score on all samples, and which of them changed, where the metric has a number for each of them."""

    score: Score
    changes: SampleChanges | None
