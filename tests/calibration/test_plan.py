import pytest

from autoquant.calibration.plan import LayerPlan, Plan, check_plan
from autoquant.errors import PlanError
from autoquant.model.layers import Layer


def layer(name: str, op: str) -> Layer:
    return Layer(name, op, "x", f"{name}/w", (3, 3, 2, 4), (3,), None, None, None)


LAYERS = {"conv1": layer("conv1", "Conv2D"), "fc": layer("fc", "MatMul")}


def test_int8_and_a_copy_of_what_was_given():
    given: dict[str, LayerPlan | None] = {"conv1": LayerPlan(), "fc": None}
    plan = Plan(given, 2)
    given.clear()
    assert plan.int8 == {"conv1": LayerPlan()}
    assert plan == Plan({"fc": None, "conv1": LayerPlan()}, 2)
    with pytest.raises(TypeError):
        plan.layers["fc"] = LayerPlan()  # type: ignore[index]


@pytest.mark.parametrize("batch_num", [0, -1])
def test_batch_num(batch_num: int):
    with pytest.raises(ValueError, match=f"batch_num must be greater than zero, got {batch_num}"):
        Plan({}, batch_num)


def test_a_plan_that_the_model_can_follow():
    check_plan(Plan({"conv1": LayerPlan(), "fc": LayerPlan(channel_wise=False)}), LAYERS)
    check_plan(Plan({"conv1": LayerPlan(), "gone": None}), LAYERS)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({}, "plan: no layer is to be quantized; switch at least one layer on"),
        ({"conv1": None}, "plan: no layer is to be quantized"),
        ({"conv1": None, "conv2": LayerPlan()}, "conv2: is no quantizable layer of this model; did you mean 'conv1'?"),
        ({"conv2": LayerPlan()}, "plan: none of its layers is a quantizable layer of this model; is it the config of"),
        ({"conv1": None, "zzz": LayerPlan()}, "zzz: is no quantizable layer of this model; `autoquant inspect` lists"),
        ({"fc": LayerPlan()}, "fc: channel_wise must be false for layer type MatMul; set it to false"),
    ],
)
def test_a_plan_that_it_cannot(layers: dict, message: str):
    with pytest.raises(PlanError) as caught:
        check_plan(Plan(layers), LAYERS)
    assert str(caught.value).startswith(message)
