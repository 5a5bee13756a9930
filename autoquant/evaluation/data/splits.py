"""What the samples of a run are for: calibration, the search, and a holdout that the search never sees."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autoquant.array import Array
from autoquant.cache import CacheEntry, read_cache, write_cache
from autoquant.errors import DataError, InputError
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.units import units_of

VERSION = 2
CALIBRATION_SHARE = 5
GIVE_OTHERS = "a score on what was used before is too good: give other data for {}, or --allow-overlap"
CALIBRATION_SAMPLES = 512
"""Without calibration data of its own, one sample in five, and at most 512, are split off for it."""


@dataclass(frozen=True, eq=False)
class DataSplits:
    """The data of a run by what it is for.

    `evaluation` is all that the FP32 baseline is scored on, and `search` what of it trials are scored on. `holdout` is
    the rest of it, or data of its own, or None, and then `reason` says why. `left_out` counts samples that were meant
    for the holdout and are not in it, because search or calibration have them as well; `dropped` counts those that are
    not in calibration, because evaluation has them as well. `unit` names the samples' units, as `column_of` reads it,
    none of which is split; empty where samples are independent.
    """

    calibration: Dataset
    evaluation: Dataset
    search: Dataset
    holdout: Dataset | None = None
    reason: str = ""
    left_out: int = 0
    dropped: int = 0
    unit: str = ""

    @classmethod
    def of(
        cls, evaluation: Dataset, calibration: Dataset, holdout: Dataset | None = None, unit: str = ""
    ) -> DataSplits:
        """The search has all of the evaluation data."""
        return cls(calibration, evaluation, evaluation, holdout, unit=unit)

    def _check_units(self, holdout: Dataset) -> None:
        """Raise DataError where a holdout of its own has units of the rest."""
        units = units_of(holdout, self.unit)
        if units is None:
            return
        for kind, data in (("evaluation", self.evaluation), ("calibration", self.calibration)):
            both = np.unique(units[_in_units(units, data, self.unit)])
            if len(both):
                what = f"{len(both):,} units of '{self.unit}' are in the {kind} data too (such as {both[0]})"
                way = GIVE_OTHERS.format("the holdout")
                hint = f"a unit has the same value in all data, and goes into one part: {way}"
                raise DataError(holdout.name, what, hint=hint)

    @property
    def has_own_holdout(self) -> bool:
        """Whether the holdout is not from the evaluation data."""
        return self.holdout is not None and self.holdout.source is not self.evaluation.source

    def without_holdout(self, reason: str) -> DataSplits:
        """The same for calibration and search, and no holdout."""
        return replace(self, holdout=None, reason=reason, left_out=0)

    def disjoint(self) -> DataSplits:
        """The same with no sample, and no unit, in two kinds of data: calibration is without those of evaluation.

        Samples are told by their content. Raises DataError where calibration has no others, and where a holdout of its
        own shares a sample or a unit with the rest. Of calibration data that names no units, units are not compared.
        """
        if self.holdout is not None and self.has_own_holdout:
            check_disjoint("the holdout", self.holdout, "evaluation", self.evaluation)
            check_disjoint("the holdout", self.holdout, "calibration", self.calibration)
            self._check_units(self.holdout)
        left, units = unseen_indices(self.calibration, self.evaluation), known_units(self.calibration, self.unit)
        if units is not None:
            left = left[~_in_units(units[left], self.evaluation, self.unit)]
        if not len(left):
            what = f"all {len(self.calibration):,} samples for calibration are for evaluation too"
            what += f", or of units of '{self.unit}' that are" if self.unit else ""
            raise DataError(self.calibration.name, what, hint=GIVE_OTHERS.format("calibration"))
        dropped = len(self.calibration) - len(left)
        return replace(self, calibration=self.calibration.subset(left), dropped=dropped)


def known_units(data: Dataset, unit: str) -> Array | None:
    """The unit of each sample, (samples,); None where none is named, or this data names none."""
    try:
        return units_of(data, unit)
    except InputError:
        return None


def _in_units(units: Array, data: Dataset, unit: str) -> Array:
    """Which of the units, (samples,), bool, other data has too."""
    known = known_units(data, unit)
    return np.zeros(len(units), bool) if known is None else np.isin(units, known)


def split_calibration(data: Dataset, seed: int, holdout: Dataset | None = None, unit: str = "") -> DataSplits:
    """Split calibration data off, drawn by the seed; raises DataError unless some is left with other content.

    Of the units that are drawn nothing is left, so that with large units it is fewer samples than without.
    """
    count = max(min(CALIBRATION_SAMPLES, len(data) // CALIBRATION_SHARE), 1)
    if count >= len(data):
        what = f"has too few samples ({len(data)}) to split off {count} for calibration"
        raise DataError(data.name, what, hint="give --calibration data of its own")
    order, drawn = _drawn(units_of(data, unit), len(data), count, seed)
    if drawn == len(data):
        what = f"has samples of one unit of '{unit}' alone, which cannot be split"
        raise DataError(data.name, what, hint="give --calibration data of its own")
    calibration, rest = data.subset(order[:drawn]), data.subset(order[drawn:])
    left = unseen_indices(rest, calibration)
    if not len(left):
        what = "has no samples besides those for calibration, whose content is the same"
        raise DataError(data.name, what, hint="are all samples alike? give --calibration data of its own")
    return DataSplits.of(rest.subset(left), calibration, holdout, unit)


def _drawn(units: Array | None, total: int, count: int, seed: int) -> tuple[Array, int]:
    """An order of samples, drawn by the seed, and how many of its first ones are `count`, or whole units close to it.

    Those are at least one unit.
    """
    random = np.random.default_rng(seed)
    if units is None:
        return random.permutation(total), count
    _, of, sizes = np.unique(units, return_inverse=True, return_counts=True)
    place = random.permutation(len(sizes))
    ends = np.cumsum(sizes[np.argsort(place)])
    last = max(int(np.searchsorted(ends, count, side="right")) - 1, 0)
    return np.argsort(place[of], kind="stable"), int(ends[last])


def split_search_holdout(splits: DataSplits, *, least: int | None, seed: int, overlapping: bool) -> DataSplits:
    """Split the evaluation data into halves, drawn by the seed, for search and holdout.

    There is no holdout where half has fewer than `least` samples, or units, which are not split; None says that no
    number is enough. Samples of the same content stay together: those that are in both halves go to the search, and so
    do those that are in the calibration data, which is compared where it may be `overlapping`.
    """
    data, units = splits.evaluation, units_of(splits.evaluation, splits.unit)
    word, total = ("samples", len(data)) if units is None else ("units", len(np.unique(units)))
    if least is None:
        return splits.without_holdout("no number of samples certifies a tolerance of 0")
    order, half = _drawn(units, len(data), len(data) // 2, seed)
    enough = half if units is None else len(np.unique(units[order[:half]]))
    if total < 2 or enough < least:
        what = f"a certificate takes at least {least:,} {word} that the search does not see"
        half_of = f"half of the {total:,} evaluation {word} are {enough if total > 1 else 0:,}"
        return splits.without_holdout(f"{what}, and {half_of}: give {2 * least:,}, or others with --certify")
    search, holdout = np.sort(order[half:]), np.sort(order[:half])
    hashes = data.hashes()
    seen = np.concatenate([hashes[search], splits.calibration.hashes()]) if overlapping else hashes[search]
    both = shared(hashes[holdout], seen)
    if units is not None:
        known = np.isin(units[holdout], units[holdout[both]])
        known |= _in_units(units[holdout], splits.calibration, splits.unit) if overlapping else False
        both = np.flatnonzero(known)
    left = half - len(both) if units is None else len(np.unique(np.delete(units[holdout], both)))
    if left < least:
        what = f"{len(both):,} of {half:,} samples for the holdout are in the search or calibration data too"
        return splits.without_holdout(f"{what}, and to certify takes at least {least:,} {word}")
    search, holdout = np.concatenate([search, holdout[both]]), np.delete(holdout, both)
    return replace(splits, search=data.subset(search), holdout=data.subset(holdout), left_out=len(both))


def without_overlap(splits: DataSplits, *, least: int | None) -> DataSplits:
    """Leave out of a holdout of its own what is evaluation or calibration data too.

    There is no holdout where something is left out and fewer than `least` are left; None: no number is enough.
    """
    data = splits.holdout
    assert data is not None
    left, units = unseen_indices(data, splits.evaluation, splits.calibration), units_of(data, splits.unit)
    if units is not None:
        known = np.isin(units, np.delete(units, left))
        for other in (splits.evaluation, splits.calibration):
            known |= _in_units(units, other, splits.unit)
        left = np.flatnonzero(~known)
    out = len(data) - len(left)
    if not out:
        return splits
    if least is None or len(left) < least:
        what = f"{out:,} of {len(data):,} samples to certify are evaluation or calibration data too"
        return splits.without_holdout(f"{what}, and the {len(left):,} left are too few; give other data with --certify")
    return replace(splits, holdout=data.subset(left), left_out=out)


def unseen_indices(data: Dataset, *others: Dataset) -> Array:
    """Positions of samples whose content is in none of the others, ascending."""
    seen = np.concatenate([other.hashes() for other in others])
    return np.delete(np.arange(len(data)), shared(data.hashes(), seen))


def check_disjoint(one: str, data: Dataset, another: str, other: Dataset) -> None:
    """Raise DataError where samples of `data` are in `other` as well; `one` and `another` is what they are for."""
    same = shared(data.hashes(), other.hashes())
    if len(same):
        what = f"{len(same)} of {len(data)} samples for {one} are for {another} too (the first is sample {same[0]})"
        raise DataError(data.name, what, hint=GIVE_OTHERS.format(one))


def save_splits(splits: DataSplits, path: Path) -> None:
    """Write which evaluation samples are for what, for whoever wants to compute a score again."""
    data, holdout = splits.evaluation, splits.holdout
    arrays = {
        "search": splits.search.positions_in(data),
        "holdout": np.arange(0) if holdout is None else holdout.positions_in(data),
    }
    facts = {"reason": splits.reason, "left_out": splits.left_out}
    write_cache(path, CacheEntry(facts, arrays), key=data.digest, version=VERSION)


def load_splits(splits: DataSplits, path: Path) -> DataSplits | None:
    """The splits with the search and holdout that `save_splits` wrote; None where it wrote none of this data."""
    data = splits.evaluation
    entry = read_cache(path, key=data.digest, version=VERSION)
    if entry is None:
        return None
    holdout = data.subset(entry.arrays["holdout"]) if len(entry.arrays["holdout"]) else None
    return replace(splits, search=data.subset(entry.arrays["search"]), holdout=holdout, **entry.header)


def shared(one: Array, other: Array) -> Array:
    """Positions in `one` whose content is somewhere in `other`, ascending; both are hashes."""
    return np.flatnonzero(np.isin(one, other))
