"""Sensitivities of maps of classes, and of one of several outputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from networks import without_warnings_of_keras

from autoquant.calibration.plan import LayerPlan
from autoquant.calibration.ranges import MinMax
from autoquant.evaluation.data.dataset import open_data
from autoquant.model.model import Model
from autoquant.model.open import open_model
from autoquant.tuning.sensitivity.divergence import divergence
from autoquant.tuning.sensitivity.fisher import fisher
from autoquant.tuning.sensitivity.likelihoods import OutputReading
from autoquant.tuning.sensitivity.measure import calibrated_request
from autoquant.tuning.sensitivity.request import Sensitivities, SensitivityRequest

METHODS = {"fisher": fisher, "divergence": divergence}
Method = Callable[[SensitivityRequest], Sensitivities]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A network that gives each pixel one of four classes, and the image one of three."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    image = layers.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(image)
    maps = layers.Conv2D(4, 1, name="map")(layers.Conv2D(8, 3, padding="same", activation="relu", name="deep")(x))
    whole = layers.Dense(3, name="whole")(layers.GlobalAveragePooling2D()(x))
    path = tmp_path_factory.mktemp("model") / "model.keras"
    with without_warnings_of_keras():
        keras.Model(image, [whole, maps]).save(path)
    return open_model(path)


def found(model: Model, method: Method, reading: OutputReading) -> dict[str, float]:
    """The sensitivity of each layer, by the part of its name that the network gives it."""
    x = np.random.default_rng(0).normal(size=(128, 8, 8, 3)).astype(np.float32)
    data = open_data((x, None), model.inputs)
    from autoquant.model.survey import survey_graph

    names = [layer.name for layer in survey_graph(model.graph).layers]
    plan = LayerPlan(activation=MinMax(), channel_wise=False)
    request = calibrated_request(
        model, data, {name: [plan] for name in names}, batch_size=32, batch_num=2, reading=reading
    )
    parts = ("stem", "deep", "map", "whole")
    return {part: values[0] for name, values in method(request).values.items() for part in parts if part in name}


def test_gradients_predict_the_divergence_of_maps(model: Model) -> None:
    reading = OutputReading(positions=True, outputs=("map",))
    one, other = (found(model, method, reading) for method in METHODS.values())
    assert one.keys() == other.keys() == {"stem", "deep", "map", "whole"}
    for layer in ("stem", "deep", "map"):
        assert one[layer] == pytest.approx(other[layer], rel=0.35)
    assert sorted(one, key=one.__getitem__) == sorted(other, key=other.__getitem__)


@pytest.mark.parametrize("method", METHODS)
def test_layers_of_other_outputs_change_nothing(model: Model, method: str) -> None:
    map_alone = found(model, METHODS[method], OutputReading(positions=True, outputs=("map",)))
    whole_alone = found(model, METHODS[method], OutputReading(positions=True, outputs=("whole",)))
    both = found(model, METHODS[method], OutputReading(positions=True))
    assert (map_alone["whole"], whole_alone["map"], whole_alone["deep"]) == (0.0, 0.0, 0.0)
    assert min(map_alone["map"], map_alone["deep"], whole_alone["whole"]) > 0.0
    assert both["whole"] == pytest.approx(whole_alone["whole"], rel=0.3)
    assert both["map"] == pytest.approx(map_alone["map"], rel=0.3)
