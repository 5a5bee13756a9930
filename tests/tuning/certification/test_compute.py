"""Verdicts of certificates, and how often they are wrong, over whole selections."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from autoquant.array import Array
from autoquant.errors import UsageError
from autoquant.evaluation.metrics.table import METRICS
from autoquant.evaluation.statistics.bounds import exact_upper
from autoquant.evaluation.statistics.paired import (
    ALL_EQUAL,
    BETTING,
    BOOTSTRAP,
    EXACT,
    TOO_FEW,
    bootstrap_calls,
    upper_bound,
)
from autoquant.evaluation.statistics.sequential import upper_of_mean
from autoquant.tuning.certification.certificate import Certificate, Origin, Verdict
from autoquant.tuning.certification.compute import bootstrap_seconds, compute_certificate

ORIGIN = Origin("litert", "XNNPACK", "a" * 64, "b" * 64, "c" * 64)


def rows(losses: int, gains: int, samples: int) -> tuple[Array, Array]:
    """Of FP32 and INT8, 0/1; half of what is not discordant is right in both."""
    same = np.arange(samples - losses - gains) % 2
    return np.concatenate([np.ones(losses), np.zeros(gains), same]), np.concatenate(
        [np.zeros(losses), np.ones(gains), same]
    )


def certificate(losses: int, gains: int, samples: int, *, max_drop: float = 0.01, **options: Any) -> Certificate:
    before, after = rows(losses, gains, samples)
    chosen = {"metric": METRICS["top1"], "max_drop": max_drop, "confidence": 0.95, "origin": ORIGIN, **options}
    return compute_certificate(before, after, **chosen)


def test_certified() -> None:
    found = certificate(3, 1, 1000)
    assert found.verdict is Verdict.CERTIFIED
    assert (found.samples, found.method) == (1000, EXACT)
    assert (found.losses, found.gains) == (3, 1)
    assert found.drop == pytest.approx(0.002)
    assert found.baseline - found.score == pytest.approx(0.002)
    assert found.upper_bound == exact_upper(3, 1, 1000, confidence=0.95) <= 0.01
    assert found.needed_samples is None
    assert not found.suspicious


def test_met_says_how_many_samples_are_needed_and_these_do() -> None:
    found = certificate(8, 3, 1000)
    assert found.verdict is Verdict.MET
    assert found.needed_samples is not None and found.needed_samples > 1000
    times = found.needed_samples / 1000
    again = certificate(round(8 * times), round(3 * times), found.needed_samples, max_drop=0.0101)
    assert again.verdict is Verdict.CERTIFIED


def test_met_at_the_very_edge_needs_more_than_any_number() -> None:
    found = certificate(10, 0, 1000)
    assert (found.verdict, found.needed_samples) == (Verdict.MET, None)


def test_missed() -> None:
    found = certificate(30, 3, 1000)
    assert (found.verdict, found.needed_samples) == (Verdict.MISSED, None)


def test_int8_that_is_better_than_fp32_is_suspicious() -> None:
    found = certificate(1, 20, 1000)
    assert found.suspicious
    assert found.verdict is Verdict.CERTIFIED


def test_a_metric_where_lower_is_better_has_bounds_from_the_bootstrap() -> None:
    random = np.random.default_rng(0)
    before = random.exponential(size=400)
    after = before + random.normal(0.05, 0.1, 400)
    found = compute_certificate(before, after, metric=METRICS["mse"], max_drop=0.1, confidence=0.95, origin=ORIGIN)
    assert (found.verdict, found.method, found.losses) == (Verdict.CERTIFIED, BOOTSTRAP, None)
    assert found.drop == pytest.approx(after.mean() - before.mean())
    assert found.upper_bound == upper_bound(after - before, confidence=0.95, binary=False).value
    tight = compute_certificate(
        before, after, metric=METRICS["mse"], max_drop=found.drop + 0.002, confidence=0.95, origin=ORIGIN
    )
    assert tight.verdict is Verdict.MET
    assert tight.needed_samples == pytest.approx(400 * ((found.upper_bound - found.drop) / 0.002) ** 2, rel=0.01)


@dataclass(frozen=True)
class Overlap:
    """How much of what is to be found is found, 0 to 1, of each sample."""

    name: str = "overlap"
    higher_is_better: bool = True
    per_sample: bool = True
    bounds: tuple[float, float] = (0.0, 1.0)
    shares: bool = False

    def combine(self, rows: Array) -> float:
        return float(rows.mean())


def overlap(before: Array, after: Array, *, bounds: tuple[float, float] = (0.0, 1.0), **options: Any) -> Certificate:
    chosen = {"max_drop": 0.05, "confidence": 0.95, "origin": ORIGIN, **options}
    metric: Any = Overlap(bounds=bounds)
    return compute_certificate(before, after, metric=metric, **chosen)


@pytest.mark.parametrize("samples", [1, 3, 10, 99])
def test_few_samples_of_a_metric_without_bounds_certify_nothing(samples: int) -> None:
    rows = np.full(samples, 0.25)
    found = compute_certificate(rows, rows, metric=METRICS["mse"], max_drop=0.1, confidence=0.95, origin=ORIGIN)
    assert found.verdict is Verdict.MET
    assert (found.upper_bound, found.method) == (np.inf, TOO_FEW)
    assert found.needed_samples == 100


@pytest.mark.parametrize("value", [0.0, 0.25, 1.0])
def test_losses_of_a_metric_without_bounds_that_are_all_equal_certify_nothing(value: float) -> None:
    rows = np.full(1000, value)
    found = compute_certificate(rows, rows, metric=METRICS["mse"], max_drop=0.1, confidence=0.95, origin=ORIGIN)
    assert (found.verdict, found.method, found.needed_samples) == (Verdict.MET, ALL_EQUAL, None)


def test_a_group_without_samples_is_open() -> None:
    before, groups = np.ones(1000), np.repeat([0, 1], 500)
    assert overlap(before, before, groups=groups).verdict is Verdict.CERTIFIED
    found = overlap(before, before, groups=groups, unseen=("2",))
    assert (found.verdict, found.unseen, found.needed_samples) == (Verdict.MET, ("2",), None)
    assert overlap(before, before - 0.5, groups=groups, unseen=("2",)).verdict is Verdict.MISSED
    with pytest.raises(ValueError, match="every group"):
        replace(found, verdict=Verdict.CERTIFIED)


def test_groups_that_are_too_small_are_open() -> None:
    random = np.random.default_rng(3)
    before = random.exponential(size=1000)
    after, groups = before + random.normal(0.0, 0.01, 1000), np.arange(1000) < 1
    options: dict[str, Any] = {"metric": METRICS["mse"], "confidence": 0.95, "origin": ORIGIN}
    assert compute_certificate(before, after, max_drop=0.5, **options).verdict is Verdict.CERTIFIED
    found = compute_certificate(before, after, max_drop=0.5, groups=groups, **options)
    assert (found.verdict, found.needed_samples) == (Verdict.MET, 100_000)
    assert {group.label: group.upper < np.inf for group in found.guard} == {"True": False, "False": True}
    parts = np.repeat(["many", "some", "few"], [900, 90, 10])
    found = compute_certificate(before, after, max_drop=0.5, groups=parts, **options)
    assert (found.verdict, found.needed_samples) == (Verdict.MET, 10_000)  # a hundred of the few


def test_a_metric_with_bounds_has_a_bound_that_holds_for_any_number_of_samples() -> None:
    before = np.full(200, 0.75)
    after = before - np.repeat([0.25, 0.0], [4, 196])
    found = overlap(before, after)
    assert (found.verdict, found.method, found.losses) == (Verdict.CERTIFIED, BETTING, None)
    assert found.drop == pytest.approx(0.005)
    assert found.upper_bound == upper_of_mean(before - after, bound=1.0, alpha=0.05)
    tight = overlap(before, after, max_drop=0.02)
    assert tight.verdict is Verdict.MET
    assert tight.needed_samples is not None
    assert tight.needed_samples > 200
    times = -(-tight.needed_samples // 200)
    assert overlap(np.tile(before, times), np.tile(after, times), max_drop=0.02).verdict is Verdict.CERTIFIED
    few = overlap(before[-3:], after[-3:])
    assert (few.verdict, few.upper_bound > 0.5) == (Verdict.MET, True)


def test_groups_of_a_metric_with_bounds_say_what_they_need() -> None:
    before = np.full(1000, 0.75)
    found = overlap(before, before, groups=np.repeat(["few", "many"], [50, 950]), guard_max_drop=0.1)
    assert {group.label: group.upper <= 0.1 for group in found.guard} == {"few": False, "many": True}
    assert found.verdict is Verdict.MET
    assert found.needed_samples is not None
    again = found.needed_samples
    parts = [-(-again // 20), again * 19 // 20]
    rows = np.full(sum(parts), 0.75)
    assert (
        overlap(rows, rows, groups=np.repeat(["few", "many"], parts), guard_max_drop=0.1).verdict is Verdict.CERTIFIED
    )


def test_metrics_that_only_happen_to_be_zero_or_one_are_not_counted() -> None:
    """A sample of this metric may lose 10, though none of these did."""
    ones = np.ones(1000)
    assert overlap(ones, ones).method == EXACT
    assert overlap(ones, ones, bounds=(0.0, 10.0)).method == BETTING


@pytest.mark.parametrize(("kind", "method"), [(float, BETTING), (bool, EXACT)])
def test_shares_that_are_all_one_are_not_counted_but_one_answer_a_sample_is(kind: type, method: str) -> None:
    """FP32 agrees with itself everywhere, and so may INT8 in these samples: others may lose a part."""
    ones: Array = np.ones(1000, kind)
    options: dict[str, Any] = {"metric": METRICS["agreement"], "confidence": 0.95, "origin": ORIGIN}
    found = compute_certificate(ones, ones, max_drop=0.01, **options)
    assert (found.method, found.verdict) == (method, Verdict.CERTIFIED)
    assert (found.losses, found.gains) == ((0, 0) if kind is bool else (None, None))


def test_a_metric_without_values_per_sample() -> None:
    random = np.random.default_rng(1)
    truth = random.integers(0, 2, 300).astype(float)
    before = np.stack([truth + random.normal(size=300), truth], axis=1)
    after = before + np.stack([random.normal(0, 0.05, 300), np.zeros(300)], axis=1)
    options: dict[str, Any] = {"metric": METRICS["auc"], "confidence": 0.95, "origin": ORIGIN}
    found = compute_certificate(before, after, max_drop=0.05, **options)
    assert (found.verdict, found.method, found.samples) == (Verdict.CERTIFIED, BOOTSTRAP, 300)
    assert found.drop < found.upper_bound < 0.02
    assert not found.suspicious
    with pytest.raises(UsageError, match="'auc' has no value for each sample"):
        compute_certificate(before, after, max_drop=0.05, groups=truth, **options)


def test_a_metric_that_is_no_mean_is_called_for_one_set_of_resamples() -> None:
    calls: list[int] = []

    def spread(rows: Array) -> float:
        calls.append(len(rows))
        return float(rows.std())

    random, metric = np.random.default_rng(1), replace(METRICS["auc"], combine=spread)
    before = random.normal(size=300)
    after = before + random.normal(0, 0.05, 300)
    compute_certificate(before, after, metric=metric, max_drop=0.05, confidence=0.95, origin=ORIGIN)
    assert len(calls) == bootstrap_calls(300) + 4  # the scores and the drop of both
    assert bootstrap_calls(300) == 2200
    ticks = itertools.count()
    assert bootstrap_seconds(before, 600, metric, lambda: float(next(ticks))) == 2 * 2200


def guarded(worst: int, *, each: float | None) -> Certificate:
    """Two classes of 500, of which the second has all the losses."""
    before = np.ones(1000)
    after = np.ones(1000)
    after[500 : 500 + worst] = 0.0
    groups = np.repeat(["cat", "dog"], 500)
    options: dict[str, Any] = {"metric": METRICS["top1"], "max_drop": 0.05, "confidence": 0.95, "origin": ORIGIN}
    return compute_certificate(before, after, groups=groups, guard_max_drop=each, **options)


def test_the_guard_holds_every_group() -> None:
    good = guarded(5, each=0.05)
    assert good.verdict is Verdict.CERTIFIED
    assert [group.label for group in good.guard] == ["dog", "cat"]
    assert good.guard_max_drop == guarded(5, each=None).guard_max_drop == 0.05
    open_ = guarded(15, each=0.04)  # 3 % of dogs lost, surely no more than about 5 %
    assert open_.verdict is Verdict.MET
    assert open_.needed_samples is not None and open_.needed_samples > 1000
    assert guarded(30, each=0.06).needed_samples is None
    broken = guarded(30, each=0.02)
    assert broken.verdict is Verdict.MISSED
    assert broken.guard[0].lower > 0.02
    assert certificate(3, 1, 1000).guard_max_drop is None


@pytest.mark.parametrize(
    "change",
    [
        {"drop": np.nan},
        {"upper_bound": np.nan},
        {"upper_bound": np.inf},
        {"upper_bound": -np.inf},
        {"confidence": 1.0},
        {"samples": 0},
        {"guard_max_drop": np.nan},
    ],
)
def test_a_certificate_is_of_numbers(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"finite|has a bound|confidence"):
        replace(certificate(3, 1, 1000), **change)


def test_digests_are_whole_and_guards_have_a_limit() -> None:
    with pytest.raises(ValueError, match="64 hexadecimal"):
        replace(ORIGIN, data="abc")
    with pytest.raises(ValueError, match="a largest drop of each"):
        replace(guarded(5, each=0.05), guard_max_drop=None)


def test_false_certification_stays_below_the_stated_rate_over_whole_selections() -> None:
    """30 models, all truly beyond the tolerance: the best on 1,000 samples of the search is certified on 1,000 more."""
    random, runs, samples, allowed, confidence = np.random.default_rng(7), 2000, 1000, 0.01, 0.95
    drops = allowed + np.linspace(0.0001, 0.004, 30)
    discordant = 0.018
    chance = np.stack([(discordant + drops) / 2, (discordant - drops) / 2, np.full(30, 1 - discordant)], axis=1)
    naive, false, met = 0, 0, 0
    verdict = cache(lambda losses, gains: certificate(losses, gains, samples, max_drop=allowed).verdict)
    for _ in range(runs):
        searched = random.multinomial(samples, chance)
        seen = searched[:, 0] - searched[:, 1]
        winner = int(np.argmin(seen))
        naive += seen[winner] / samples <= allowed
        losses, gains, _ = random.multinomial(samples, chance[winner])
        fresh = verdict(int(losses), int(gains))
        false += fresh is Verdict.CERTIFIED
        met += fresh is Verdict.MET
    print(
        f"\nof {runs} selections, none truly within tolerance: the drop on the search part says 'within' in "
        f"{naive / runs:.3f}, the certificate says 'certified' in {false / runs:.4f} (stated {1 - confidence:.2f}), "
        f"'met, not certified' in {met / runs:.3f}"
    )
    assert false / runs <= 1 - confidence
    assert naive / runs > 0.9


@pytest.mark.parametrize("samples", [100, 320])
def test_false_certification_of_sparse_losses_stays_below_the_stated_rate_over_whole_selections(samples: int) -> None:
    """10 models that lose most of very few samples, all truly beyond the tolerance, by a metric between 0 and 1.

    A bootstrap of 100 certifies 12 % of them.
    """
    random, runs, lost, allowed, confidence = np.random.default_rng(8), 2000, 0.9, 0.018, 0.95
    chances = np.linspace(1.01, 1.2, 10) * allowed / lost
    before, naive, false = np.full(samples, 0.95), 0, 0

    @cache
    def verdict(losers: int) -> Verdict:
        after = before - lost * (np.arange(samples) < losers)
        return overlap(before, after, max_drop=allowed, confidence=confidence).verdict

    for _ in range(runs):
        searched = lost * random.binomial(samples, chances) / samples
        winner = int(np.argmin(searched))
        naive += searched[winner] <= allowed
        false += verdict(int(random.binomial(samples, chances[winner]))) is Verdict.CERTIFIED
    print(
        f"\nof {runs} selections, none truly within tolerance, the search part says 'within' in {naive / runs:.3f}, "
        f"the certificate says 'certified' in {false / runs:.4f} (stated {1 - confidence:.2f})"
    )
    assert false / runs <= 1 - confidence
    assert naive / runs > 0.9
