"""What comes before the first trial: data opened, the baseline scored, statistics collected; kept where they can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autoquant.evaluation.data.dataset import Dataset, open_data, split
from autoquant.evaluation.data.preprocessing import open_preprocess
from autoquant.evaluation.data.splits import check_apart, without_shared
from autoquant.model.model import Model
from autoquant.tuning.study.request import DataRequest

CALIBRATION_SHARE = 5
CALIBRATION_SAMPLES = 512
"""Without calibration data of its own, one sample in five, and at most 512, are split off for it."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Evaluation and calibration data, and data to certify with where that was given by itself."""

    evaluation: Dataset
    calibration: Dataset
    certification: Dataset | None = None

    def check_apart(self) -> None:
        """Raise DataError where a sample is in two of them, by its content."""
        check_apart("calibration", self.calibration, "evaluation", self.evaluation)
        if self.certification is not None:
            check_apart("certification", self.certification, "evaluation", self.evaluation)
            check_apart("certification", self.certification, "calibration", self.calibration)


def open_samples(request: DataRequest, model: Model, *, seed: int, certify: Any = None) -> Samples:
    """Open the data of a request, and data to certify with where `certify` gives any.

    Without `calibration` of its own some is split off, drawn by the seed, and nothing of the same content is left in
    the evaluation data.
    """
    evaluation = open_one(request, model, request.data)
    certification = None if certify is None else open_one(request, model, certify)
    if request.calibration is not None:
        return Samples(evaluation, open_one(request, model, request.calibration), certification)
    count = min(CALIBRATION_SAMPLES, len(evaluation) // CALIBRATION_SHARE)
    parts = split(evaluation, max(count, 1), seed)
    return Samples(without_shared(parts.rest, parts.calibration), parts.calibration, certification)


def open_one(request: DataRequest, model: Model, spec: Any) -> Dataset:
    """Open evaluation or calibration data as the request says."""
    return open_data(
        spec,
        model.inputs,
        preprocess=open_preprocess(request.preprocess, scale=request.scale, mean=request.mean, std=request.std),
        label_offset=request.label_offset,
        image_size=request.image_size,
    )
