"""Real models: IFMR from all values against IFMR from sketches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autoquant.calibration.distribution import Distribution
from autoquant.calibration.plan import Plan, layer_plan
from autoquant.calibration.record import Calibrator
from autoquant.evaluation.data.dataset import open_data
from autoquant.evaluation.engines.tensorflow import TensorFlowEngine
from autoquant.evaluation.passes import CalibrationRunner
from autoquant.model.open import open_model
from autoquant.model.survey import survey_graph
from autoquant.quantization.affine import Affine

IMAGES = 200
BIN = 2.0**-13
"""The widest that a bin of a sketch can be, as a share of all that was seen."""
STEP = 0.01
"""Candidates are this far apart, as a share of the percentile."""


def ifmr_error(seen: Distribution, affine: Affine) -> float:
    """Mean squared error as IFMR has it, by the definition: clipping and rounding, no rounding of the offset."""
    values, scale = seen.values()[0].astype(np.float64), affine.scale
    low = min(seen.low, 0.0)
    return float(np.mean((np.rint(np.clip(values, low, low + 255 * scale) / scale) * scale - values) ** 2))


@pytest.mark.parametrize(
    ("model", "unit"), [("cifar10/resnet8.pb", 1.0), ("vww/vww_96.pb", 1 / 255)], ids=["resnet", "vww"]
)
def test_ifmr_of_sketches_is_that_of_all_values(real_data: Path, model: str, unit: float) -> None:
    """Nearly all layers choose the same candidate, whose bounds differ by a bin; another one is as good."""
    opened = open_model(real_data / model)
    layers = {layer.name: layer for layer in survey_graph(opened.graph).layers}
    images = np.load((real_data / model).with_name("calibration.npz"))["x"][:IMAGES] * np.float32(unit)
    data = open_data((images.astype(np.float32), None), opened.inputs)
    plan = Plan({name: layer_plan(layer) for name, layer in layers.items()})
    statistics, records = {}, {}
    calibration = CalibrationRunner(TensorFlowEngine(), data, IMAGES)
    for exact in (False, True):
        statistics[exact] = calibration.statistics(opened, layers, [1], exact=exact)
        records[exact] = Calibrator(opened.graph, layers, statistics[exact]).record(plan)
    sketched, kept = ({name: record[name].activation for name in layers} for record in (records[False], records[True]))
    apart = {name: abs(sketched[name].scale / kept[name].scale - 1.0) for name in layers}
    other = {name for name in layers if apart[name] > 2 * BIN}
    assert np.median(list(apart.values())) <= BIN
    assert len(other) <= 0.1 * len(layers)
    for name in other:
        assert apart[name] <= 5 * STEP
        seen = statistics[True].distribution(layers[name].activations[0], 1)
        assert ifmr_error(seen, sketched[name]) <= 1.001 * ifmr_error(seen, kept[name])
