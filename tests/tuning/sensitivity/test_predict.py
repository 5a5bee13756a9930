"""The candidates that a space offers each layer, and their predicted divergence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoquant.calibration.ranges import Ifmr, MinMax, Percentile
from autoquant.errors import AutoquantError, ModelError, TrialError
from autoquant.evaluation.data.dataset import open_data
from autoquant.formats.space_toml import parse_space
from autoquant.model.layer import Layer
from autoquant.model.litert.convert import convert
from autoquant.model.model import Model
from autoquant.model.open import open_model
from autoquant.quiet import no_progress
from autoquant.targets.table import open_target
from autoquant.tuning.sensitivity import predict
from autoquant.tuning.sensitivity.likelihoods import PLAIN, OutputReading
from autoquant.tuning.sensitivity.predict import MOST, Predictor, options
from autoquant.tuning.sensitivity.request import Between, Sensitivities, SensitivityRequest
from autoquant.tuning.study.space import Parameters, SearchSpace
from autoquant.tuning.study.workload import Workload

LAYERS = [
    Layer(f"l{i}", "Conv2D", (f"x{i}",), -1, f"w{i}", (3, 3, 2, 4), (3,), None, None, 10 * (i + 1)) for i in range(3)
]


def space(text: str, layers: Any = LAYERS) -> SearchSpace:
    return SearchSpace(parse_space(text, "space"), layers, batches=8)


def test_every_combination_of_a_layers_own_settings_the_preferred_first() -> None:
    found = list(options(space("[layer]\nquant_enable = [true, false]\nact_algo = ['ifmr', 'minmax']"), "l1", {}))
    assert [option.parameters for option in found] == [{"l1:activation": "ifmr"}, {"l1:activation": "minmax"}]
    assert [type(option.settings.activation) for option in found if option.settings] == [Ifmr, MinMax]
    text = "[layer]\nact_algo = ['ifmr', 'minmax']\nweight_algorithm = ['minmax', 'mse']\nasymmetric = [true, false]"
    found = list(options(space(text), "l1", {}))
    assert len({tuple(option.parameters.items()) for option in found}) == len(found) == 8
    assert found[0].parameters == {"l1:asymmetric": True, "l1:activation": "ifmr", "l1:weight_algorithm": "minmax"}


def test_settings_of_the_whole_model_are_as_they_are_given() -> None:
    """And so is a choice that one makes for all layers."""
    offered = space("[global]\nasymmetric = [true, false]\n[layer]\nquant_enable = [true, false]\nact_algo = 'minmax'")
    for value in (True, False):
        (one,) = options(offered, "l0", {"asymmetric": value, "l0:quant_enable": False})
        assert one.settings is not None
        assert (one.parameters, one.settings.asymmetric) == ({}, value)  # in INT8, whatever the plan has


def test_of_too_many_combinations_those_that_change_one_thing() -> None:
    text = """
    [layer]
    act_algo = ["ifmr", "minmax", "entropy", "mse"]
    weight_algorithm = ["minmax", "mse"]
    asymmetric = [true, false]
    channel_wise = [true, false]
    """
    assert MOST < 4 * 2 * 2 * 2
    found = list(options(space(text), "l2", {}))
    first = found[0].parameters
    changed = [{name: value for name, value in one.parameters.items() if first[name] != value} for one in found]
    assert changed[0] == {}
    assert sorted(map(len, changed[1:])) == [1] * (3 + 1 + 1 + 1)
    assert len({tuple(one.items()) for one in changed}) == len(found)


class Asked:
    """What was asked, and an answer that tells layers and candidates apart."""

    def __init__(self) -> None:
        self.requests: list[SensitivityRequest] = []

    def __call__(self, request: SensitivityRequest, **_: Any) -> Sensitivities:
        self.requests.append(request)
        values = {(name, n): 0.001 * (n + 1) for name, each in request.candidates.items() for n in range(len(each))}
        return request.result_from(values, "fisher")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    found = Asked()
    monkeypatch.setattr(predict, "measure_sensitivity", found)
    return found


SPACE = (
    "[layer]\nquant_enable = [true, false]\nact_algo = ['minmax', 'percentile']\n[layer.percentile]\nfraction = 0.9\n"
)


class Opened:
    """A predictor for the tiny model, and what it told."""

    def __init__(self, tiny: Any, folder: Path, *, target: str = "tensorflow", text: str = SPACE) -> None:
        self.warnings: list[str] = []
        self.source = open_model(tiny) if isinstance(tiny, Path) else open_model(tiny.model)
        self.folder, self.target, self.text = folder, target, text

    def __call__(self, samples: Path, **changed: Any) -> Predictor:
        given: Model = changed.pop("source", self.source)
        data = open_data(samples, given.inputs)
        target = open_target(self.target)
        layers = Workload.of(target, target.lowered(given), data).layers
        offered = SearchSpace(parse_space(changed.pop("text", self.text), "space"), list(layers.values()), batches=3)
        options = {
            "batch_size": 20,
            "reading": PLAIN,
            "folder": self.folder,
            "on_progress": no_progress,
            "warn": self.warnings.append,
            "between": lambda plan: None,
            "on_calibration": no_progress,
        }
        return Predictor(given, target.lowered(given), offered, data, **{**options, **changed})


@pytest.fixture
def opened(tiny: Any, tmp_path: Path) -> Opened:
    return Opened(tiny, tmp_path)


def test_what_is_lost_behind_a_layer_is_added(opened: Opened, tiny: Any, asked: Asked) -> None:
    found = opened(tiny.calibration, between=lambda plan: Between({}, {"dense": 0.5}, frozenset())).predict({})
    assert [one.divergence for one in found["dense"]] == [0.501, 0.502]
    assert found["conv"] == opened(tiny.calibration).predict({})["conv"]


def test_16_bits_bring_nothing_to_a_layer_that_reads_8(tiny: Any, tmp_path: Path, asked: Asked) -> None:
    """Of each setting 8 bits are asked for, then 16."""
    text = SPACE.replace("[layer]\n", "[layer]\nactivation_bits = [8, 16]\n")
    opened = Opened(tiny, tmp_path, target="litert", text=text)
    found = opened(tiny.calibration).predict({})
    assert [(one.divergence, one.wide) for one in found["dense"]] == [(0.001, 0.002), (0.003, 0.004)]
    behind = Between({}, {"dense": 0.5}, frozenset())
    found = opened(tiny.calibration, narrow_inputs={"dense"}, between=lambda plan: behind).predict({})
    assert [(one.divergence, one.wide) for one in found["dense"]] == [(0.501, 0.001), (0.503, 0.003)]
    assert [one.wide for one in found["conv"]] == [0.002, 0.004]


def test_candidates_are_the_options_with_their_losses(opened: Opened, tiny: Any, asked: Asked) -> None:
    found = opened(tiny.calibration).predict({})
    assert list(found) == ["conv", "depthwise", "dense"]
    assert [(one.parameters, one.divergence) for one in found["dense"]] == [
        ({"dense:activation": "minmax"}, 0.001),
        ({"dense:activation": "percentile fraction=0.9"}, 0.002),
    ]
    (request,) = asked.requests
    assert request.reading == PLAIN
    assert [type(one.activation) for one in request.candidates["conv"]] == [MinMax, Percentile]


def test_what_was_predicted_is_known_of_each_layer_with_its_own_parameters(
    opened: Opened, tiny: Any, asked: Asked
) -> None:
    between = lambda plan: Between({}, {"dense": 0.5}, frozenset())  # noqa: E731  # a name would say no more
    chosen = {
        "conv:activation": "minmax",
        "depthwise:activation": "minmax",
        "dense:activation": "percentile fraction=0.9",
    }
    assert opened(tiny.calibration, between=between).known(chosen) is None
    opened(tiny.calibration).predict({})
    known = opened(tiny.calibration, between=between).known(chosen)
    assert known == {"conv": 0.001, "depthwise": 0.001, "dense": 0.502}
    assert len(asked.requests) == 1


def test_what_is_asked_is_found_out_once(
    opened: Opened, tiny: Any, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each trial that is better asks what is known of its layers."""
    counted: list[str] = []

    def counting(offered: SearchSpace, tunable: str, parameters: Parameters) -> Iterator[predict.Option]:
        counted.append(tunable)
        return options(offered, tunable, parameters)

    monkeypatch.setattr(predict, "options", counting)
    predictor = opened(tiny.calibration, text=f"[global]\nequalize = [false, true]\n{SPACE}")
    predictor.predict({"equalize": False})
    for algorithm in ("minmax", "percentile fraction=0.9"):
        known = predictor.known({"equalize": False, "conv:activation": algorithm})
        assert known is not None
        assert list(known) == ["conv"]
    assert counted == ["conv", "depthwise", "dense"]
    assert predictor.known({"equalize": True}) is None
    assert counted == 2 * ["conv", "depthwise", "dense"]


def test_losses_are_those_of_the_model_itself(opened: Opened, tiny: Any) -> None:
    """Clipping most of a layer's input costs more than nothing; by gradients or, as too much is lost, by measuring."""
    found = opened(tiny.calibration).predict({})
    for unit in ("conv", "depthwise", "dense"):
        whole, clipped = (one.divergence for one in found[unit])
        assert 0.0 < whole < 0.02
        assert clipped > 5 * whole
    assert opened.warnings == []


def test_predictions_are_cached_under_a_key_of_their_own(opened: Opened, tiny: Any, asked: Asked) -> None:
    first = opened(tiny.calibration)
    one = first.predict({})
    assert opened(tiny.calibration).predict({}) == one
    assert len(asked.requests) == 1
    changed = [
        opened(tiny.calibration, batch_size=10),
        opened(tiny.calibration, reading=OutputReading(of_classes=False)),
        opened(tiny.evaluation),
        opened(tiny.calibration, source=replace(opened.source, digest="0" * 64)),
        opened(tiny.calibration, text=SPACE.replace("0.9", "0.8")),
        opened(tiny.calibration, text=f"[global]\nbatch_num = 2\n{SPACE}"),
        opened(tiny.calibration, text=f"[global]\nequalize = true\n{SPACE}"),
    ]
    for count, other in enumerate(changed, start=2):
        other.predict({})
        assert len(asked.requests) == count
    assert len(list(opened.folder.glob("sensitivity-*.npz"))) == 1 + len(changed)


def test_settings_of_the_whole_model_are_predicted_each(opened: Opened, tiny: Any, asked: Asked) -> None:
    text = f"[global]\nbatch_num = [3, 1]\nequalize = [false, true]\n{SPACE}"
    predictor = opened(tiny.calibration, text=text)
    predictor.predict({"batch_num": 3, "equalize": False})
    predictor.predict({"batch_num": 1, "equalize": True})
    plain, repaired = asked.requests
    assert (plain.batches, repaired.batches) == (3, 1)
    assert (plain.model.digest == opened.source.digest, repaired.model.digest == opened.source.digest) == (True, False)
    predictor.predict({"batch_num": 1, "equalize": True, "conv:quant_enable": False})  # the layers' own do not count
    assert len(asked.requests) == 2


def test_for_litert_the_graph_of_tensorflow_is_asked(tiny: Any, tmp_path: Path, asked: Asked) -> None:
    """Its layers are called alike, and gradients are there."""
    text = '[layer]\nquant_enable = [true, false]\nweight_algorithm = ["minmax", "octav"]\n'
    opened = Opened(tiny, tmp_path, target="litert", text=text)
    found = opened(tiny.calibration).predict({})
    (request,) = asked.requests
    assert request.model is opened.source
    assert request.layers["dense"].op == "MatMul"
    assert [one.parameters for one in found["conv"]] == [
        {"conv:weight_algorithm": "minmax"},
        {"conv:weight_algorithm": "octav"},
    ]


def test_layers_that_only_the_target_has_are_measured_there(tiny: Any, tmp_path: Path) -> None:
    """A product of two activations is no layer of a TensorFlow graph, but one of a .tflite."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 4, 8), name="x")
        tf.matmul(tf.matmul(x, tf.tanh(x), transpose_b=True, name="both"), tf.ones((1, 4, 3)), name="y")
    (tmp_path / "net.pb").write_bytes(graph.as_graph_def().SerializeToString())
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).normal(size=(40, 4, 8)).astype(np.float32))
    text = "[layer]\nquant_enable = [true, false]\n"
    predictor = Opened(tmp_path / "net.pb", tmp_path, target="litert", text=text)(tmp_path / "data.npz")
    found = predictor.predict({})
    assert "both" in found
    assert all(one.divergence > 1e-6 for each in found.values() for one in each)


def test_of_a_tflite_it_is_measured(tiny: Any, tmp_path: Path) -> None:
    path = tmp_path / "tiny.tflite"
    path.write_bytes(convert(open_model(tiny.model).graph).content)
    opened = Opened(path, tmp_path, target="litert")
    predictor = opened(tiny.calibration)
    found = predictor.predict({})
    assert len(found) == 3
    for whole, clipped in found.values():
        assert 0.0 <= whole.divergence < clipped.divergence < np.inf
    ranking = predictor.ranking()
    assert list(ranking) == list(found)
    assert ranking == {name: -whole.divergence for name, (whole, _) in found.items()}


def test_the_ranking_of_a_graph_is_by_cosine(opened: Opened, tiny: Any) -> None:
    from autoquant.tuning.sensitivity.measure import cosines

    text = '[layer]\nquant_enable = [true, false]\nact_algo = "minmax"\n'
    text += '[[override]]\nlayers = "conv"\nquant_enable = false\n'
    predictor = opened(tiny.calibration, text=text)
    ranking = predictor.ranking()
    assert list(ranking) == ["conv", "depthwise", "dense"]
    assert ranking["conv"] == 0.0  # always in float: nobody asks
    assert 0.9 < ranking["dense"] < 1.0
    request = predictor._request(predictor.source, predictor._asked({}).options, {})
    assert {name: value for name, value in ranking.items() if name != "conv"} == cosines(request)


def test_inputs_of_operators_that_are_in_float_lose_nothing(tmp_path: Path, asked: Asked) -> None:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 4, 4, 2], name="image")
        t = tf.nn.conv2d(x, tf.ones([1, 1, 2, 2]), 1, "SAME", name="conv")
        tf.raw_ops.AddV2(x=t, y=x, name="add")
    (tmp_path / "net.pb").write_bytes(graph.as_graph_def().SerializeToString())
    np.savez(tmp_path / "data.npz", x=np.random.default_rng(0).normal(size=(60, 4, 4, 2)).astype("f"))
    text = '[layer]\nquant_enable = [true, false]\n[[override]]\ntypes = "AddV2"\nquant_enable = [true, false]'
    found = Opened(tmp_path / "net.pb", tmp_path, text=text)(tmp_path / "data.npz").predict({})
    assert [(one.parameters, one.divergence) for one in found["add:0"]] == [
        ({"add:0:quant_enable": True}, 0.001),
        ({"add:0:quant_enable": False}, 0.0),
    ]
    assert [(one.parameters, one.divergence) for one in found["conv"]] == [({}, 0.001)]


def test_where_neither_way_is_open_the_trials_must_tell(
    opened: Opened, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: SensitivityRequest) -> Sensitivities:
        raise ModelError("tiny", "has no gradient", hint="none")

    monkeypatch.setattr(predict, "measure_sensitivity", refused)
    found = opened(tiny.calibration).predict({})
    assert {one.divergence for each in found.values() for one in each} == {0.0}
    (warned,) = opened.warnings
    assert warned.startswith("tiny: has no gradient")
    assert "assumed to lose nothing" in warned


@pytest.mark.parametrize(("loss", "measured"), [(0.3, 0), (0.4, 1)])
def test_errors_too_large_for_gradients_are_measured(
    opened: Opened, tiny: Any, monkeypatch: pytest.MonkeyPatch, loss: float, measured: int
) -> None:
    """In all more than one nat, each layer with the best that it can have; three layers here."""
    calls: list[str] = []

    def by_gradients(request: SensitivityRequest) -> Sensitivities:
        values = {(name, n): loss + n for name, each in request.candidates.items() for n in range(len(each))}
        return request.result_from(values, "fisher")

    def by_measuring(request: SensitivityRequest, *, reason: str) -> Sensitivities:
        calls.append(reason)
        return request.result_from({(name, n): 0.5 for name in request.candidates for n in (0, 1)}, "divergence")

    monkeypatch.setattr(predict, "measure_sensitivity", by_gradients)
    monkeypatch.setattr(predict, "divergence", by_measuring)
    found = opened(tiny.calibration).predict({})
    assert calls == ["the errors of layers are too large for gradients"] * measured
    assert found["conv"][0].divergence == (0.5 if measured else loss)


@pytest.mark.parametrize("error", [ModelError, TrialError])
def test_where_measuring_fails_what_gradients_say_is_kept(
    opened: Opened, tiny: Any, monkeypatch: pytest.MonkeyPatch, error: type[AutoquantError]
) -> None:
    def by_gradients(request: SensitivityRequest) -> Sensitivities:
        return request.result_from({(name, 0): 2.0 for name in request.candidates}, "fisher")

    def refused(request: SensitivityRequest, *, reason: str) -> Sensitivities:
        raise error("tiny", "does not convert", hint="none")

    monkeypatch.setattr(predict, "measure_sensitivity", by_gradients)
    monkeypatch.setattr(predict, "divergence", refused)
    assert opened(tiny.calibration).predict({})["conv"][0].divergence == 2.0
    (warned,) = opened.warnings
    assert warned.startswith("tiny: does not convert")
    assert "ranked by gradients" in warned


def test_a_layer_that_cannot_be_quantized_so_is_infinite_and_stays_so_when_it_is_kept(
    opened: Opened, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def partly(request: SensitivityRequest) -> Sensitivities:
        return request.result_from({(name, 0): 0.1 for name in request.candidates}, "fisher")

    monkeypatch.setattr(predict, "measure_sensitivity", partly)
    for _ in range(2):
        found = opened(tiny.calibration).predict({})
        assert [one.divergence for one in found["conv"]] == [0.1, np.inf]
        monkeypatch.setattr(predict, "measure_sensitivity", None)  # once was enough


def test_layers_always_in_float_are_not_predicted(opened: Opened, tiny: Any, asked: Asked) -> None:
    text = SPACE + '[[override]]\nlayers = "conv"\nquant_enable = false\n'
    assert set(opened(tiny.calibration, text=text).predict({})) == {"depthwise", "dense"}
    assert set(asked.requests[0].candidates) == {"depthwise", "dense"}
