"""The objectives of a search, by hand."""

from __future__ import annotations

import pytest

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.errors import UsageError
from autoquant.model.layer import Layer
from autoquant.tuning.objective import OBJECTIVES
from autoquant.tuning.study.choices import OBJECTIVES as NAMES
from autoquant.tuning.study.workload import Bytes, Macs, Workload


def layer(name: str, shape: tuple[int, ...], macs: int, *, bias: bool) -> Layer:
    axis = len(shape) - 1
    return Layer(name, "Conv2D", ("x",), -1, "w", shape, (axis,), "b" if bias else None, None, macs)


LAYERS = {
    "a": layer("a", (3, 3, 2, 4), 300, bias=True),  # 72 weights, 4 biases
    "b": layer("b", (1, 1, 4, 7), 100, bias=False),  # 28 weights
    "pool": Layer("pool", "AvgPool", ("x",), -1, None, (), (), None, None, 100),
}
FULL = Plan(dict.fromkeys(LAYERS, LayerPlan(channel_wise=False)))
FLOAT = Plan(dict.fromkeys(LAYERS))


def only(*names: str) -> Plan:
    return Plan({name: FULL.layers[name] if name in names else None for name in LAYERS})


def test_there_is_one_for_every_name_that_can_be_asked_for() -> None:
    assert set(OBJECTIVES) == set(NAMES)


@pytest.mark.parametrize(
    ("plan", "macs", "size"),
    [
        (FLOAT, 1.0, 1.0),
        (only("a"), 0.4, (72 + 16 + 112) / 416),
        (only("b"), 0.8, (288 + 16 + 28) / 416),
        (only("pool"), 0.8, 1.0),
        (FULL, 0.0, (72 + 16 + 28) / 416),
    ],
    ids=["all float", "a", "b", "a pooling", "all INT8"],
)
def test_macs_and_bytes(plan: Plan, macs: float, size: float) -> None:
    assert Macs(Workload.from_layers(LAYERS), FULL)(plan) == pytest.approx(macs)
    assert Bytes(LAYERS, FULL)(plan) == pytest.approx(size)


def test_the_lowest_is_that_of_the_fullest_plan() -> None:
    without_b = only("a", "pool")
    assert Macs(Workload.from_layers(LAYERS), without_b).lowest == pytest.approx(0.2)
    assert Bytes(LAYERS, without_b).lowest == pytest.approx((72 + 16 + 112) / 416)
    assert Bytes(LAYERS, FULL)(FULL) == Bytes(LAYERS, FULL).lowest


def test_bytes_of_a_model_without_weights_are_refused() -> None:
    with pytest.raises(UsageError, match="--objective bytes: no layer of the model has a weight; give macs"):
        Bytes({"pool": LAYERS["pool"]}, FULL)
