import math

import numpy as np
import pytest

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.calibration.ranges import Ifmr, MinMax
from autoquant.calibration.record import Calibrator, LayerRecord
from autoquant.calibration.statistics import collect
from autoquant.errors import PlanError, TrialError
from autoquant.model.graph import Graph, make_const
from autoquant.model.layers import Layer
from autoquant.quantization.affine import Affine

CONV = np.array([[[[127.0, -64.0, 0.0]]]], np.float32)
DENSE = np.array([[1.0, -256.0], [2.0, 3.0]], np.float32)
LAYERS = {
    "conv": Layer("conv", "Conv2D", "x", "conv/w", CONV.shape, (3,), None, None, None),
    "dense": Layer("dense", "MatMul", "y", "dense/w", DENSE.shape, (1,), None, None, None),
}
WHOLE = LayerPlan(MinMax(), channel_wise=False)


def calibrator(x: list[list[float]], y: list[float] = [1.0]) -> Calibrator:  # noqa: B006
    graph = Graph({"conv/w": make_const("conv/w", CONV), "dense/w": make_const("dense/w", DENSE)}, (), ())
    batches = [{"x": np.array(values, np.float32), "y": np.array(y, np.float32)} for values in x]
    return Calibrator(
        graph, LAYERS, collect(((number, [batch]) for number, batch in enumerate(batches, start=1)), key="")
    )


def f32(value: float) -> float:
    return float(np.float32(value))


def test_scales_and_offsets():
    calibrate = calibrator([[0.0, 51.0], [-204.0, 0.0]], [0.0, 127.0])
    settings = LayerPlan(MinMax(), asymmetric=True, channel_wise=True)
    first = calibrate.record(Plan({"conv": settings, "dense": None}, 1))
    assert first == {"conv": LayerRecord(Affine(f32(0.2), -128), (1.0, 0.5, 1.0))}
    both = calibrate.record(
        Plan({"conv": WHOLE, "dense": LayerPlan(MinMax(), asymmetric=False, channel_wise=False)}, 2)
    )
    assert both == {"conv": LayerRecord(Affine(1.0, 76), (1.0,)), "dense": LayerRecord(Affine(1.0, 0), (2.0,))}
    # What was computed before must not leak into a plan that differs in one setting.
    symmetric = calibrate.record(Plan({"conv": LayerPlan(MinMax(), asymmetric=False, channel_wise=False)}, 2))
    assert symmetric["conv"] == LayerRecord(Affine(f32(204 / 128), 0), (1.0,))
    assert calibrate.record(Plan({"conv": settings}, 1)) == first


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([1.0, math.nan], "conv: its input held 1 NaN or infinite values; leave the layer in float"),
        ([], "conv: its input was empty in every calibration batch; leave the layer in float"),
        ([0.0, 1e30], "conv: calculate scale failed: scale must be in"),
    ],
)
def test_inputs_without_a_scale(x: list[float], message: str):
    with pytest.raises(TrialError) as caught:
        calibrator([x]).record(Plan({"conv": WHOLE}))
    assert str(caught.value).startswith(message)


def test_a_layer_in_float_may_have_any_input():
    assert list(calibrator([[math.nan]]).record(Plan({"conv": None, "dense": WHOLE}))) == ["dense"]


def test_plans_that_do_not_fit():
    with pytest.raises(PlanError, match="batch_num: 2 batches were not calibrated; there are 1"):
        calibrator([[1.0]]).record(Plan({"conv": WHOLE}, 2))
    with pytest.raises(PlanError, match="dense: channel_wise must be false"):
        calibrator([[1.0]]).record(Plan({"dense": LayerPlan(Ifmr())}))


@pytest.mark.parametrize("scales", [(), (0.0,), (-1.0,), (1.0, math.nan), (math.inf,), (0.1,), (1e300,)])
def test_no_record(scales: tuple[float, ...]):
    with pytest.raises(ValueError, match="scale_w must hold"):
        LayerRecord(Affine(1.0, 0), scales)
