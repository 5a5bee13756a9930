from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.calibration.ranges import RANGES, Ifmr, MinMax
from autoquant.calibration.record import Calibrator, LayerRecord
from autoquant.calibration.statistics import collect
from autoquant.errors import IN_FLOAT, PlanError, TrialError
from autoquant.model.graph import Graph
from autoquant.model.layer import Layer
from autoquant.model.model import Fusion
from autoquant.model.nodes import make_const
from autoquant.quantization.affine import Affine

CONV = np.array([[[[127.0, -64.0, 0.0]]]], np.float32)
DENSE = np.array([[1.0, -256.0], [2.0, 3.0]], np.float32)
LAYERS = {
    "conv": Layer("conv", "Conv2D", ("x",), -1, "conv/w", CONV.shape, (3,), None, None, None),
    "pool": Layer("pool", "AvgPool", ("x",), -1, None, (), (), None, None, None),
    "dense": Layer("dense", "MatMul", ("y",), -1, "dense/w", DENSE.shape, (1,), None, None, None),
    "attention": Layer("attention", "BatchMatMulV2", ("x", "y"), -1, None, (), (), None, None, None),
    "add:1": Layer("add:1", "AddV2", ("y",), -1, None, (), (), None, None, None),
}
WHOLE = LayerPlan(MinMax(), channel_wise=False)
EXACT = pytest.mark.parametrize("exact", [False, True], ids=["sketch", "exact"])


def calibrator(x: list[Any], y: list[Any] = [1.0], *, exact: bool = False, channels: list[Any] = []) -> Calibrator:  # noqa: B006
    graph = Graph({"conv/w": make_const("conv/w", CONV), "dense/w": make_const("dense/w", DENSE)}, (), ())
    batches = [{"x": np.array(values, np.float32), "y": np.array(y, np.float32)} for values in x]
    stages = ((number, [batch]) for number, batch in enumerate(batches, start=1))
    statistics = collect(stages, key="", exact=["x", "y"] if exact else [], channels=channels)
    return Calibrator(graph, LAYERS, statistics)


def f32(value: float) -> float:
    return float(np.float32(value))


@EXACT
def test_scales_and_offsets(exact: bool) -> None:
    calibrate = calibrator([[0.0, 51.0], [-204.0, 0.0]], [0.0, 127.0], exact=exact)
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


def test_one_entry_for_each_activation_and_a_weight_scale_only_for_weights() -> None:
    """In graph order: a pooling and an input have no weight, a product of two activations has two entries."""
    both = LayerPlan(MinMax(), asymmetric=False, channel_wise=False)
    plan = Plan({"add:1": WHOLE, "attention": both, "dense": WHOLE, "pool": WHOLE})
    record = calibrator([[0.0, 51.0]], [-64.0, 191.0]).record(plan)
    assert list(record.items()) == [
        ("pool", LayerRecord(Affine(f32(0.2), -128))),
        ("dense", LayerRecord(Affine(1.0, -64), (2.0,))),
        ("attention", LayerRecord(Affine(f32(51 / 127), 0))),
        ("attention:1", LayerRecord(Affine(f32(191 / 127), 0))),
        ("add:1", LayerRecord(Affine(1.0, -64))),
    ]


@pytest.mark.parametrize(
    ("bits", "scales"), [(8, (1.0, 0.5, 1.0)), (7, (127 / 63, 1.0, 1.0)), (6, (127 / 31, 2.0, 1.0))]
)
def test_weight_bits(bits: int, scales: tuple[float, ...]) -> None:
    record = calibrator([[1.0]]).record(Plan({"conv": LayerPlan(MinMax(), weight_bits=bits)}))
    assert record["conv"].scale_w == tuple(map(f32, scales))
    assert record["conv"].weight_bits == bits


@EXACT
@pytest.mark.parametrize("kind", RANGES.values(), ids=RANGES)
def test_every_algorithm_makes_a_record(kind: Any, exact: bool) -> None:
    x = np.random.default_rng(0).normal(size=5000).tolist()
    record = calibrator([x], exact=exact).record(Plan({"conv": LayerPlan(kind()), "pool": WHOLE}))
    assert record["conv"].activation.scale == pytest.approx(record["pool"].activation.scale, rel=0.4)


@EXACT
def test_balanced_channels(exact: bool) -> None:
    """SmoothQuant's factors by hand: the input divided, the weight multiplied, both scales of what comes of that."""
    inputs = np.array([[1.0, -16.0], [-4.0, 64.0]])  # largest: 4, 64
    calibrate = calibrator([[1.0]], inputs.tolist(), exact=exact, channels=[("y", -1)])  # weights: 256, 3
    settings = LayerPlan(MinMax(), channel_wise=False, dmq=0.5)
    found = calibrate.record(Plan({"dense": settings}))["dense"]
    factors = np.array([math.sqrt(4 / 256), math.sqrt(64 / 3)], np.float32)
    assert found.balance == tuple(map(float, factors))
    divided = inputs / factors
    assert found.activation.scale == pytest.approx((divided.max() - divided.min()) / 255, rel=1e-6)
    weight = DENSE * factors[:, None]
    assert found.scale_w == pytest.approx((max(weight.max() / 127, -weight.min() / 128),), rel=1e-6)
    # Neither the other strength nor a plan without it may find what this one left.
    other = calibrate.record(Plan({"dense": LayerPlan(MinMax(), channel_wise=False, dmq=0.8)}))["dense"]
    assert other.balance[1] == pytest.approx(64**0.8 / 3**0.2, rel=1e-6)
    assert other.activation != found.activation and other.scale_w != found.scale_w
    plain = calibrate.record(Plan({"dense": WHOLE}))["dense"]
    assert plain == LayerRecord(Affine(f32(80 / 255), -77), (2.0,))
    assert calibrate.record(Plan({"dense": settings}))["dense"] == found


def test_channels_that_were_not_calibrated() -> None:
    with pytest.raises(PlanError, match="y: was not calibrated channel by channel"):
        calibrator([[1.0]]).record(Plan({"dense": LayerPlan(MinMax(), channel_wise=False, dmq=0.5)}))


def test_as_many_channels_as_the_weight_has() -> None:
    calibrate = calibrator([[1.0]], [[1.0, 2.0, 3.0]], channels=[("y", -1)])
    with pytest.raises(
        PlanError, match="dense: its input has 3 channels, its weight 2: they cannot be balanced; remove"
    ):
        calibrate.record(Plan({"dense": LayerPlan(MinMax(), channel_wise=False, dmq=0.5)}))


def test_layers_that_keep_what_is_behind_them_apart() -> None:
    plan = {"conv": LayerPlan(MinMax()), "dense": WHOLE, "pool": WHOLE}
    one = calibrator([[1.0]]).record(Plan(plan, fusion=Fusion(skip=frozenset({"conv"}))))
    assert {name: entry.skip_fusion for name, entry in one.items()} == {"conv": True, "pool": False, "dense": False}
    off = calibrator([[1.0]]).record(Plan(plan, fusion=Fusion(enabled=False)))
    assert {name: entry.skip_fusion for name, entry in off.items()} == {"conv": True, "pool": False, "dense": True}


def test_float16_scales() -> None:
    """0.2 is 0.199951171875 in float16; the offset is that of the scale before."""
    record = calibrator([[0.0, 51.0]]).record(Plan({"conv": LayerPlan(MinMax())}, fp16_scales=True))
    assert record["conv"] == LayerRecord(Affine(0.199951171875, -128), (1.0, 0.5, 1.0))


@pytest.mark.parametrize(
    ("high", "scale"), [(255 * 65504.0, 65504.0), (255 * 2.0**-23, 2.0**-23), (255 * 1.75 * 2.0**-23, 2.0**-22)]
)
def test_the_ends_of_float16(high: float, scale: float) -> None:
    record = calibrator([[0.0, high]]).record(Plan({"conv": WHOLE}, fp16_scales=True))
    assert record["conv"].activation.scale == scale


def test_a_scale_beyond_float16() -> None:
    with pytest.raises(TrialError) as caught:
        calibrator([[0.0, 255 * 65536.0]]).record(Plan({"conv": WHOLE}, fp16_scales=True))
    assert str(caught.value) == (
        "conv: its scale 6.55e+04 is beyond float16 (fakequant_precision_mode FORCE_FP16_QUANT); "
        f"set that mode to DEFAULT, or {IN_FLOAT}"
    )


@EXACT
@pytest.mark.parametrize("dmq", [False, True], ids=["plain", "balanced"])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0, math.nan]], "dense: its input held 1 NaN or infinite values; repair the calibration data, or leave"),
        ([[math.inf, 1.0]], "dense: its input held 1 NaN or infinite values"),
        (
            np.zeros((0, 2)),
            "dense: its input was empty in every calibration batch; calibrate with representative data",
        ),
        ([[0.0, 1e30]], "dense: calculate scale failed: scale must be in [1.19e-07, 8.39e+06], got"),
    ],
)
def test_inputs_without_a_scale(values: list[Any], message: str, exact: bool, dmq: bool) -> None:
    """The message names the layer and the way out."""
    settings = LayerPlan(MinMax(), channel_wise=False, dmq=0.2 if dmq else None)
    with pytest.raises(TrialError) as caught:
        calibrator([[1.0]], values, exact=exact, channels=[("y", -1)]).record(Plan({"dense": settings}))
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith(IN_FLOAT)


def test_the_second_factor_of_a_product_is_named() -> None:
    both = LayerPlan(MinMax(), asymmetric=False, channel_wise=False)
    with pytest.raises(TrialError, match="attention:1: its input held 1 NaN"):
        calibrator([[1.0]], [math.nan]).record(Plan({"attention": both}))


def test_a_layer_in_float_may_have_any_input() -> None:
    assert list(calibrator([[math.nan]]).record(Plan({"conv": None, "dense": WHOLE}))) == ["dense"]


def test_plans_that_do_not_fit() -> None:
    with pytest.raises(PlanError, match="batch_num: 2 batches were not calibrated; there are 1"):
        calibrator([[1.0]]).record(Plan({"conv": WHOLE}, 2))
    with pytest.raises(PlanError, match="dense: channel_wise must be false"):
        calibrator([[1.0]]).record(Plan({"dense": LayerPlan(Ifmr())}))


@pytest.mark.parametrize("scales", [(0.0,), (-1.0,), (1.0, math.nan), (math.inf,), (0.1,), (1e300,)])
def test_no_record(scales: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="scale_w must hold"):
        LayerRecord(Affine(1.0, 0), scales)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"balance": (0.1,)}, "tensor_balance_factor must hold"),
        ({"balance": (1e-9,)}, "tensor_balance_factor must hold"),
        ({"weight_bits": 5}, "a weight has 8, 7 or 6 bits, not 5"),
        ({"shift_bit": (1, 2)}, "there are 2 shift_bit for 1 scale_w"),
        ({"shift_bit": (17,)}, "shift_bit must be all 0, or all in"),
    ],
)
def test_no_record_of_these_facts(facts: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayerRecord(Affine(1.0, 0), (1.0,), **facts)


def test_weights_of_least_squared_error_beside_the_largest_value() -> None:
    """One algorithm must not find what the other left; 7 bits have scales of their own."""
    calibrate = calibrator([[1.0]])
    found = {}
    for algorithm, bits in (("minmax", 8), ("mse", 8), ("minmax", 7), ("mse", 7)):
        settings = LayerPlan(MinMax(), channel_wise=False, weight_bits=bits, weight_algorithm=algorithm)
        found[algorithm, bits] = calibrate.record(Plan({"conv": settings}))["conv"].scale_w[0]
        steps = 2 ** (bits - 1)
        expected = CONV.astype(np.float64)
        errors = {
            scale: np.square(np.clip(np.rint(expected / scale), -steps, steps - 1) * scale - expected).sum()
            for scale in (found[algorithm, bits], found["minmax", bits])
        }
        assert errors[found[algorithm, bits]] <= errors[found["minmax", bits]]
    assert found["mse", 8] <= found["minmax", 8] < found["mse", 7] <= found["minmax", 7]
