"""What can be trained of a quantized model: its arithmetic and its gradients, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from autoquant.quantization.affine import Affine
from autoquant.tuning.repairs.training.student import Trainable, WeightGrid, fake_quantized

AFFINE = Affine(0.25, -100)


def evaluated(tensors: Any, feeds: Any) -> Any:
    import tensorflow as tf

    with tf.compat.v1.Session() as session:
        return session.run(tensors, feeds)


def test_values_and_gradients_of_a_rounded_tensor(tensorflow: Any) -> None:
    """TQT, equations 6 to 8: round(v) - v inside, the ends beyond, both less the offset; for the values 1 and 0."""
    rng = np.random.default_rng(0)
    x, upstream = rng.uniform(-20, 80, (2, 64)).astype(np.float32)
    with tensorflow.Graph().as_default():
        values, scale = tensorflow.constant(x), tensorflow.compat.v1.placeholder(tensorflow.float32, ())
        made = fake_quantized(values, scale, AFFINE.offset)
        gradients = tensorflow.gradients(made, [values, scale], grad_ys=tensorflow.constant(upstream))
        found, of_values, of_scale = evaluated([made, *gradients], {scale: AFFINE.scale})
    steps = x.astype(np.float64) / AFFINE.scale
    low, high = -128 - AFFINE.offset, 127 - AFFINE.offset
    assert (steps < low).any() and (steps > high).any()
    clipped = np.clip(np.rint(steps), low, high)
    np.testing.assert_allclose(found, clipped * AFFINE.scale, atol=1e-5)
    inside = (steps >= low) & (steps <= high)
    np.testing.assert_allclose(of_values, upstream * inside, atol=1e-6)
    own = np.where(inside, np.rint(steps) - steps, clipped)
    np.testing.assert_allclose(of_scale, (upstream * own).sum(), rtol=1e-4)


def grid(weight: Any, scales: Any, integers: Any = None, low: int = -128, high: int = 127) -> WeightGrid:
    nearest = np.clip(np.rint(weight / scales), low, high).astype(np.int8)
    return WeightGrid(weight, scales, nearest if integers is None else integers, low, high)


def test_a_weight_is_rounded_straight_through(tensorflow: Any) -> None:
    weight = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    scales = np.array([[0.02, 0.03, 0.01]], np.float32)
    trainable = Trainable()
    with tensorflow.Graph().as_default():
        made = trainable.weight("one", grid(weight, scales))
        (placeholder,), (parameter,) = trainable.placeholders.values(), trainable.parameters.values()
        gradient = tensorflow.gradients(made, placeholder)[0]
        found, slope = evaluated([made, gradient], {placeholder: parameter.start})
    integers = np.clip(np.rint(weight / scales), -128, 127)
    np.testing.assert_allclose(found, integers * scales, rtol=1e-6)
    np.testing.assert_allclose(slope, np.broadcast_to(scales, weight.shape) * (np.abs(integers) < 127.5), rtol=1e-6)


def test_only_the_integers_below_and_above_can_be_chosen(tensorflow: Any) -> None:
    weight = np.random.default_rng(2).uniform(-1.5, 1.5, (50, 2)).astype(np.float32)
    scales = np.array([[0.01, 0.011]], np.float32)
    trainable = Trainable()
    with tensorflow.Graph().as_default():
        trainable.weight("one", grid(weight, scales, low=-127))
    (name, parameter), steps = next(iter(trainable.parameters.items())), np.clip(weight / scales, -127, 127)
    for end, wanted in ((parameter.low, np.floor(steps)), (parameter.high, np.ceil(steps))):
        chosen = trainable.corrections({name: np.asarray(end)}).weights["one"]
        assert chosen.dtype == np.int8
        exact = np.abs(steps - np.rint(steps)) < 1e-3  # where both sides are as near
        difference = np.abs(chosen - wanted)
        assert (difference[~exact] == 0).all() and (difference <= 1).all()


def test_training_starts_from_the_integers_that_were_chosen_before(tensorflow: Any) -> None:
    """Wherever they are."""
    weight = np.linspace(-1, 1, 20, dtype=np.float32).reshape(10, 2)
    scales = np.full((1, 1), 0.01, np.float32)
    nearest = np.rint(weight / scales)
    chosen = np.clip(nearest + np.resize([-2, -1, 0, 1, 2], nearest.shape), -128, 127).astype(np.int8)
    trainable = Trainable()
    with tensorflow.Graph().as_default():
        trainable.weight("one", grid(weight, scales, chosen))
    ((name, parameter),) = trainable.parameters.items()
    np.testing.assert_array_equal(trainable.corrections({name: parameter.start}).weights["one"], chosen)


@pytest.mark.parametrize("half", [False, True])
def test_scales_by_name_are_shared_and_given_back(tensorflow: Any, half: bool) -> None:
    trainable = Trainable(half)
    affine = Affine(float(np.float16(0.3)), 5)
    x = np.linspace(-50, 50, 101, dtype=np.float32)
    with tensorflow.Graph().as_default():
        values = tensorflow.constant(x)
        first, again, other = (
            trainable.activation(values, name, one)
            for name, one in (("one", affine), ("one", affine), ("other", AFFINE))
        )
        assert len(trainable.parameters) == 2
        moved = {name: np.array(0.1, np.float32) for name in trainable.parameters}
        feeds = {trainable.placeholders[name]: value for name, value in moved.items()}
        found = evaluated([first, again, other], feeds)
    trained = trainable.corrections(moved).activations
    assert (trained["one"].offset, trained["other"].offset) == (5, -100)
    wanted = affine.scale * np.exp(0.1)
    assert trained["one"].scale == pytest.approx(wanted, rel=1e-3 if half else 1e-6)
    assert not half or float(np.float16(trained["one"].scale)) == trained["one"].scale
    for values, one in zip(found, (trained["one"], trained["one"], trained["other"]), strict=True):
        exact = (np.clip(np.rint(x / one.scale) + one.offset, -128, 127) - one.offset) * one.scale
        tolerance = np.abs(x / one.scale % 1 - 0.5) < 1e-3  # ties go one way or the other
        np.testing.assert_allclose(values[~tolerance], exact[~tolerance], rtol=1e-5, atol=1e-5)


def test_a_bias_begins_with_its_correction(tensorflow: Any) -> None:
    trainable = Trainable()
    with tensorflow.Graph().as_default():
        made = trainable.bias("one", np.array([1.0, 2.0], np.float32), np.array([0.5, -0.5]))
        ((name, parameter),) = trainable.parameters.items()
        found = evaluated(made, {trainable.placeholders[name]: parameter.start})
    assert found.tolist() == [1.5, 1.5]
    assert trainable.corrections({name: parameter.start}).biases["one"].tolist() == [0.5, -0.5]


@pytest.mark.parametrize(("moved", "scale"), [(0.0, 0.25), (0.4, 0.25), (0.6, 0.5), (-0.8, 0.125)])
def test_a_power_of_two_moves_by_factors_of_two(tensorflow: Any, moved: float, scale: float) -> None:
    """The gradient is that of the scale times its logarithm's derivative, ln 2 times the scale: straight through."""
    trainable = Trainable(powers=True)
    x = np.linspace(-4, 60, 9).astype(np.float32)
    with tensorflow.Graph().as_default():
        made = trainable.activation(tensorflow.constant(x), "one", AFFINE)
        (placeholder,) = trainable.placeholders.values()
        gradient = tensorflow.gradients(made, placeholder)[0]
        found, slope = evaluated([made, gradient], {placeholder: np.float32(moved)})
    steps = x.astype(np.float64) / scale
    low, high = -128 - AFFINE.offset, 127 - AFFINE.offset
    clipped = np.clip(np.rint(steps), low, high)
    np.testing.assert_allclose(found, clipped * scale, atol=1e-5)
    inside = (steps >= low) & (steps <= high)
    wanted = np.where(inside, np.rint(steps) - steps, clipped).sum() * scale * np.log(2.0)
    np.testing.assert_allclose(slope, wanted, rtol=1e-4, atol=1e-4)
    values = {name: np.array(moved, np.float32) for name in trainable.parameters}
    assert trainable.corrections(values).activations == {"one": Affine(scale, AFFINE.offset)}
