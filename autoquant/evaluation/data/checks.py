"""Checks that calibration samples stand for those that are evaluated, before anything is searched.

Ranges come from calibration samples alone. Where these are on another scale, all the same, or hold one value that means
"missing", INT8 does badly whatever is tried, and nothing that a search shows says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.splits import DataSplits
from autoquant.evaluation.data.summary import InputSummary, Interval, farthest, summarize
from autoquant.quiet import no_progress

COMPARED = 512
"""Evaluation samples that calibration samples are compared with, from all over the data."""
APART = 0.8
"""Two kinds of samples are apart where their distributions are by so much (Kolmogorov-Smirnov)."""
ENOUGH = 8
"""Fewer samples say nothing of a distribution, unless each has many values."""
MANY = 64
"""Values of a sample that say something by themselves."""
UNLIKE, DOUBTFUL = 0.9, 0.4
"""The share of the wider range, 0 in both, that the other does not have: an error, a warning."""
DISTINCT = 0.95
"""The same without 0: an error; of a holdout, a warning where the ranges are about as wide."""
USELESS, WIDENED = 100.0, 10.0
"""How many times as far as all others a sample may reach: an error, a warning."""
RARE = 0.05
"""At most this share of samples are outliers."""
NO_VALUE = 1e30
"""No quantity is so large: it stands for a missing value."""
SAME_READING = "check --preprocess and --scale: they apply to both, so store both before preprocessing, or both after"
CLEAN = "remove or repair such samples"

CALIBRATION = "calibration"

Summaries = Mapping[str, InputSummary]


def check_splits(splits: DataSplits, on_progress: Callable[[int, int], None] = no_progress) -> tuple[str, ...]:
    """Check calibration data, and a holdout of its own, against evaluation data; returns warnings.

    Raises DataError with sample, input and value, or both ranges, where it is certain that calibration data misleads or
    the holdout is read otherwise than the rest.
    """
    data, evaluation = splits.calibration, splits.evaluation.spread(COMPARED)
    calibration, compared = summarize(data, on_progress), summarize(evaluation)
    warnings = list(_outliers(data, calibration, compared))
    _check_varied(data, calibration, compared)
    warnings += _ranges(CALIBRATION, data, calibration, splits.evaluation.name, compared)
    if splits.holdout is not None and splits.has_own_holdout:
        holdout = summarize(splits.holdout, on_progress)
        warnings += _ranges("holdout", splits.holdout, holdout, splits.evaluation.name, compared)
    return tuple(warnings)


def check_calibration(data: Dataset) -> None:
    """Check calibration data where nothing is evaluated: as `check_splits`, but what is doubtful passes."""
    found = summarize(data)
    list(_outliers(data, found, {}))
    _check_varied(data, found, {})


def _outliers(data: Dataset, calibration: Summaries, evaluation: Summaries) -> Iterator[str]:
    """Warn of samples that reach much farther than all others; raise DataError where no evaluation sample does."""
    for name, seen in calibration.items():
        order = np.argsort(seen.magnitude, kind="stable")
        reach = seen.magnitude[order]
        count = _outlier_count(reach) if seen.real else int((reach >= np.iinfo(np.int32).max).sum())
        missing = float(reach[-1]) >= NO_VALUE
        if not missing and not 0 < count <= max(1, RARE * len(reach)):
            continue
        at_most = float(evaluation[name].magnitude.max()) if name in evaluation else 0.0
        if not missing and at_most * WIDENED > reach[-1]:
            continue  # evaluation has such values too: they belong to the data
        text = _outlier_text(data, name, order, reach, seen, max(count, 1))
        if missing or _times(reach, count) >= USELESS or not seen.real:
            raise DataError(
                data.name, text, hint=f"{CLEAN}: an INT8 range that covers it has no levels left for others"
            )
        yield f"{data.name}: {text}; if it stands for a missing value, {CLEAN}"


def _outlier_count(reach: Array) -> int:
    """How many of the magnitudes, ascending, lie beyond the widest gap among the largest; 0 where none is wide."""
    most = max(1, int(RARE * len(reach)))
    times = [_times(reach, count) for count in range(1, min(most, len(reach) - 1) + 1)]
    return int(np.argmax(times)) + 1 if times and max(times) >= WIDENED else 0


def _times(reach: Array, count: int) -> float:
    """How many times as far as all others the last `count` reach at least; 0 where all others are zero."""
    within = float(reach[-count - 1]) if 0 < count < len(reach) else 0.0
    return float(reach[-count]) / within if within > 0.0 else 0.0


def _outlier_text(data: Dataset, name: str, order: Array, reach: Array, seen: InputSummary, count: int) -> str:
    place, value = farthest(data, name, int(order[-1]))
    more = f" ({count} samples are like it)" if count > 1 else ""
    text = f"{place} is {value:.10g}{more}"
    others = order[:-count]
    if not len(others):
        return text
    within = Interval(float(seen.low[others].min()), float(seen.high[others].max()))
    return f"{text}, while the other {len(others):,} calibration samples are within {within}"


def _check_varied(data: Dataset, calibration: Summaries, evaluation: Summaries) -> None:
    """Raise DataError where an input has one value everywhere, or all samples are the same, and evaluation differs."""
    hint = "give samples of what the model will see"
    for name, seen in calibration.items():
        low, high = (end + 0.0 for end in seen.whole)  # never -0
        told = len(seen.low) > 1 or seen.size >= MANY
        if seen.real and told and low == high and not _is_mostly(evaluation.get(name), low):
            what = f"input '{name}' is {low:.6g} everywhere in {_all_samples(data)}"
            other = f", and in evaluation samples within {evaluation[name].usual}" if name in evaluation else ""
            raise DataError(data.name, what + other, hint=hint)
    varied = [name for name in calibration if name not in evaluation or not evaluation[name].identical]
    if len(data) > 1 and varied and all(calibration[name].identical for name in varied):
        names = ", ".join(f"'{name}'" for name in varied)
        raise DataError(data.name, f"input {names} is the same in {_all_samples(data)}", hint=hint)


def _all_samples(data: Dataset) -> str:
    return f"all {len(data):,} calibration samples" if len(data) > 1 else "the calibration sample"


def _is_mostly(seen: InputSummary | None, value: float) -> bool:
    """Whether nearly all samples hold this value alone."""
    return seen is not None and float(np.mean((seen.low == value) & (seen.high == value))) >= 1.0 - RARE


def _ranges(what: str, data: Dataset, seen: Summaries, other: str, evaluation: Summaries) -> Iterator[str]:
    """Warn where samples of an input are on another scale than evaluation samples; raise DataError where certain."""
    for name, own in seen.items():
        compared = evaluation[name]
        few = min(len(own.low), len(compared.low)) < ENOUGH
        if not own.real or (few and min(own.size, compared.size) < MANY) or not _are_apart(own, compared):
            continue
        ranges = own.usual, compared.usual
        text = f"input '{name}' is mostly within {ranges[0]} in {what} samples, {ranges[1]} in evaluation samples"
        missing = _not_shared(*(Interval(min(low, 0.0), max(high, 0.0)) for low, high in ranges))  # INT8 has 0
        distinct = not few and _not_shared(*ranges) >= DISTINCT
        # A holdout may be of another season or camera; calibration samples that are cut the evaluated values off.
        misread = distinct and (what == CALIBRATION or _narrower(*ranges) >= UNLIKE)
        if missing >= UNLIKE or misread:
            raise DataError(data.name, text if data.name == other else f"{text} ({other})", hint=SAME_READING)
        if (missing >= DOUBTFUL and not few) or distinct:
            yield f"{data.name}: {text}; {SAME_READING}"


def _are_apart(one: InputSummary, other: InputSummary) -> bool:
    """Whether nearly all samples of one reach farther, or less far, than those of the other, at either end."""
    pairs = ((one.low, other.low), (one.high, other.high), (one.magnitude, other.magnitude))
    return any(_distance(*pair) >= APART for pair in pairs)


def _not_shared(one: Interval, other: Interval) -> float:
    """The share of the wider of two ranges that the other does not cover."""
    widest = max(one.high - one.low, other.high - other.low)
    shared = max(min(one.high, other.high) - max(one.low, other.low), 0.0)
    return 1.0 - shared / widest if widest > 0.0 else 0.0


def _narrower(one: Interval, other: Interval) -> float:
    """By which share of the wider of two ranges the other is narrower, wherever they lie."""
    least, most = sorted((one.high - one.low, other.high - other.low))
    return 1.0 - least / most if most > 0.0 else 0.0


def _distance(one: Array, other: Array) -> float:
    """The largest difference between two empirical distribution functions."""
    values = np.concatenate([one, other])
    shares = (np.searchsorted(np.sort(each), values, side="right") / len(each) for each in (one, other))
    return float(np.abs(np.subtract(*shares)).max())
