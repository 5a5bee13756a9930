import sys
from pathlib import Path

import numpy as np
import pytest

from autoquant.cli.demo_network import DemoFiles, make_demo, shifted
from autoquant.errors import UsageError

# Keras 3.15 copies TensorFlow variables in a way that NumPy 2 deprecates; not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoFiles:
    return make_demo(tmp_path_factory.mktemp("demo") / "new" / "folder", seed=0)


def test_data_are_digits_in_the_unit_range(demo: DemoFiles) -> None:
    for file, count in ((demo.evaluation, 900), (demo.calibration, 897)):
        with np.load(file) as data:
            x, y = data["x"], data["y"]
        assert x.shape == (count, 8, 8, 1)
        assert x.dtype == np.float32
        assert (x.min(), x.max()) == (0.0, 1.0)
        assert y.shape == (count,)
        assert set(y) == set(range(10))


def test_evaluation_and_calibration_share_no_image(demo: DemoFiles) -> None:
    with np.load(demo.evaluation) as evaluation, np.load(demo.calibration) as calibration:
        seen = {image.tobytes() for image in calibration["x"]}
        assert not any(image.tobytes() in seen for image in evaluation["x"])


def test_network_reads_digits_and_one_weight_scale_per_layer_would_ruin_it(demo: DemoFiles) -> None:
    import keras

    with np.load(demo.evaluation) as data:
        x, y = data["x"], data["y"]
    model = keras.models.load_model(demo.model)
    assert _accuracy(model, x, y) > 0.9
    _round_folded_weights(model, per_channel=True)
    per_channel = _accuracy(model, x, y)
    model = keras.models.load_model(demo.model)
    _round_folded_weights(model, per_channel=False)
    assert per_channel > 0.9
    assert _accuracy(model, x, y) < per_channel - 0.05


def test_shifts_move_every_pixel_by_one_each_way() -> None:
    x = np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1)
    images = shifted(x)[..., 0]
    assert images.shape == (9, 3, 3)
    np.testing.assert_array_equal(images[0], [[0, 0, 0], [0, 0, 1], [0, 3, 4]])  # right and down
    np.testing.assert_array_equal(images[4], x[0, ..., 0])
    np.testing.assert_array_equal(images[8], [[4, 5, 0], [7, 8, 0], [0, 0, 0]])  # left and up


def test_without_scikit_learn_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)  # what Python itself does to forbid an import
    with pytest.raises(UsageError, match=r"needs scikit-learn; pip install 'autoquant\[demo\]'"):
        make_demo(tmp_path)


def _accuracy(model, x, y) -> float:
    return float(np.mean(model.predict(x, batch_size=900, verbose=0).argmax(-1) == y))


def _round_folded_weights(model, *, per_channel: bool) -> None:
    """Round each convolution's weights to 127 steps of what they are once batch normalization is folded in."""
    for layer, norm in zip(model.layers, model.layers[1:], strict=False):
        if type(norm).__name__ != "BatchNormalization":
            continue
        gamma, _, _, variance = norm.get_weights()
        factor = gamma.astype(float) / np.sqrt(variance.astype(float) + norm.epsilon)
        depthwise = type(layer).__name__ == "DepthwiseConv2D"
        factor = factor[:, None] if depthwise else factor
        folded = layer.get_weights()[0] * factor
        axes = None if not per_channel else (0, 1, 3) if depthwise else (0, 1, 2)
        step = np.abs(folded).max(axis=axes, keepdims=True) / 127.0
        layer.set_weights([np.rint(folded / step) * step / factor])
