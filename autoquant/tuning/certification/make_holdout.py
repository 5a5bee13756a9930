"""What trials are scored on, and what is kept aside from them: half of the evaluation data, or data of its own."""

from __future__ import annotations

from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.splits import fresh
from autoquant.evaluation.scoring.baseline import Baseline
from autoquant.evaluation.scoring.subset import Part
from autoquant.tuning.certification.division import (
    ALL_SEEN,
    Division,
    divided,
    keep_division,
    kept_division,
    least_certifiable,
)
from autoquant.tuning.certification.holdout import DECLINED, Held
from autoquant.tuning.inputs import Opening
from autoquant.tuning.study.request import NOTHING
from autoquant.tuning.study.run_folder import RunFolder


def kept_aside(opening: Opening, folder: RunFolder, baseline: Baseline, allowed: float) -> tuple[Part, Held]:
    """What trials are scored on, and what only the best of them is; the folder keeps which samples these are."""
    data, metric = opening.samples.evaluation, opening.metric
    division = _division(opening, folder, baseline, allowed)
    search = Part.of(data, division.search, metric, baseline)
    if opening.samples.certification is not None:
        return search, _given(opening, opening.samples.certification, baseline, allowed)
    if opening.request.certify == NOTHING:
        return search, Held.nothing(DECLINED)
    if not len(division.certification):
        return search, Held.nothing(division.reason)
    return search, Held.part_of(Part.of(data, division.certification, metric, baseline), division.left_out)


def _division(opening: Opening, folder: RunFolder, baseline: Baseline, allowed: float) -> Division:
    """The division of the evaluation data, which stays what it was when the first trial began.

    What trials have seen certifies nothing any more, and they are all scored on the same samples, whatever `certify`
    is when the run goes on.
    """
    request, data, metric = opening.request, opening.samples.evaluation, opening.metric
    begun = folder.journal.exists()
    kept = kept_division(folder.division, data=data.digest) if begun else None
    if kept is not None:
        return kept
    if begun or opening.samples.certification is not None or request.certify == NOTHING:
        return Division.undivided(len(data), ALL_SEEN)
    options = {"allowed": allowed, "confidence": request.confidence}
    calibration = opening.samples.calibration if request.allow_overlap else None  # else nothing is shared
    division = divided(data, metric, baseline, **options, seed=request.seed, calibration=calibration)
    keep_division(division, folder.division, data=data.digest)
    return division


def _given(opening: Opening, data: Dataset, baseline: Baseline, allowed: float) -> Held:
    """Data of its own to certify with, but for samples that are evaluation or calibration data as well."""
    request, metric, samples = opening.request, opening.metric, opening.samples
    if not request.allow_overlap:  # nothing is shared
        return Held.given(data, metric)
    left = fresh(data, samples.evaluation, samples.calibration)
    out = len(data) - len(left)
    least = least_certifiable(metric, baseline, allowed=allowed, confidence=request.confidence)
    if out and (least is None or len(left) < least):
        what = f"{out:,} of {len(data):,} samples to certify are evaluation or calibration data too"
        return Held.nothing(f"{what}, and the {len(left):,} left are too few; give others with --certify")
    return Held.given(data.subset(left) if out else data, metric, out)
