"""The data of a request, opened and split."""

from __future__ import annotations

from typing import Any

from autoquant.evaluation.data.dataset import Dataset, open_data
from autoquant.evaluation.data.preprocessing import open_preprocess
from autoquant.evaluation.data.splits import DataSplits, split_calibration
from autoquant.model.model import Model
from autoquant.tuning.study.request import DataRequest


def open_splits(request: DataRequest, model: Model, *, seed: int, certify: Any = None) -> DataSplits:
    """Open the data of a request, and a holdout where `certify` gives data for it.

    Without `calibration` of its own some is split off, drawn by the seed, and nothing of the same content is left in
    the evaluation data.
    """
    evaluation = open_dataset(request, model, request.data)
    holdout = None if certify is None else open_dataset(request, model, certify)
    if request.calibration is not None:
        return DataSplits.of(evaluation, open_dataset(request, model, request.calibration), holdout)
    return split_calibration(evaluation, seed, holdout)


def open_dataset(request: DataRequest, model: Model, spec: Any) -> Dataset:
    """Open evaluation or calibration data as the request says."""
    return open_data(
        spec,
        model.inputs,
        preprocess=open_preprocess(request.preprocess, scale=request.scale, mean=request.mean, std=request.std),
        label_offset=request.label_offset,
        image_size=request.image_size,
    )
