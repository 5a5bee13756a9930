"""A live graph is calibrated by its runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_model import Tiny

import autoquant as amct
from autoquant.amct.calibration import calibration_of, empty_entries
from autoquant.errors import ModelError, PlanError, TrialError, UsageError
from autoquant.formats.record_text import load_record

CONFIG, RECORD = Path("config.json"), Path("record.txt")


class Session:
    """A session of a graph with the tiny model's input and output."""

    def __init__(self, graph: Any) -> None:
        import tensorflow as tf

        self.graph = graph
        self._session = tf.compat.v1.Session(graph=graph)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def initialize(self) -> None:
        import tensorflow as tf

        with self.graph.as_default():
            self._session.run(tf.compat.v1.global_variables_initializer())

    def run(self, images: Any, *, output: str = "scores:0") -> Any:
        return self._session.run(output, {"image:0": images})


def edit(**changes: Any) -> None:
    """Change keys of config.json; `layers` are merged into the objects of layers."""
    config = json.loads(CONFIG.read_text())
    for name, settings in changes.pop("layers", {}).items():
        config[name] |= settings
    CONFIG.write_text(json.dumps(config | changes))


def configured(graph: Any, *, batch_num: int = 2, **changes: Any) -> list[Any]:
    """Config with these changes, and the graph quantized by it."""
    amct.create_quant_config(CONFIG, graph, batch_num=batch_num)
    edit(**changes)
    return amct.quantize_model(graph, CONFIG, RECORD)


def calibrated(graph: Any, *batches: Any) -> None:
    with Session(graph) as session:
        session.initialize()
        for batch in batches:
            session.run(batch)


def test_the_graph_computes_what_it_did_and_gains_a_variable_a_layer(live: Any, images: NDArray[Any]) -> None:
    import tensorflow as tf

    with Session(live) as session:
        before = session.run(images)
    names = {op.name for op in live.get_operations()}
    variables = configured(live)
    assert [v.name for v in variables] == [
        f"{layer}/act_quant/calibrated_batches:0" for layer in ("conv", "depthwise", "dense")
    ]
    with live.as_default():
        assert [v.name for v in tf.compat.v1.global_variables()] == [v.name for v in variables]
    assert names < {op.name for op in live.get_operations()}
    with Session(live) as session:
        session.initialize()
        np.testing.assert_allclose(session.run(images), before, rtol=1e-6)


def test_the_record_is_a_skeleton_until_batch_num_passes_are_done(live: Any, images: NDArray[Any]) -> None:
    configured(live, batch_num=2)
    assert empty_entries(RECORD.read_text()) == ("conv", "depthwise", "dense")
    with Session(live) as session:
        session.initialize()
        session.run(images[:32])
        assert empty_entries(RECORD.read_text()) == ("conv", "depthwise", "dense")
        session.run(images[32:])
    assert list(load_record(RECORD)) == ["conv", "depthwise", "dense"]


def test_passes_beyond_batch_num_change_nothing(live: Any, images: NDArray[Any]) -> None:
    configured(live, batch_num=1)
    with Session(live) as session:
        session.initialize()
        session.run(images[:32])
        written = RECORD.read_text()
        session.run(100.0 * images)
    assert RECORD.read_text() == written


def test_initialized_variables_start_anew(live: Any, images: NDArray[Any]) -> None:
    configured(live, batch_num=2)
    with Session(live) as session:
        session.initialize()
        session.run(images[:32])
        session.run(images[32:])
        first = RECORD.read_text()
        session.initialize()
        session.run(images[32:] * 2)
        assert RECORD.read_text() == first
        session.run(images[:32] * 2)
        doubled = load_record(RECORD)
        session.initialize()
        session.run(images[:32])
        session.initialize()  # the pass before is forgotten
        session.run(images[32:])
        session.run(images[:32])
    assert RECORD.read_text() == first
    assert doubled["conv"].activation.scale == 2 * load_record(RECORD)["conv"].activation.scale


def test_a_finished_record_outlives_runs_that_do_not_finish_another(
    live: Any, tiny: Tiny, images: NDArray[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as an accuracy of the float graph, taken in a session of its own before save_model."""
    configured(live, batch_num=2)
    calibrated(live, images[:32], images[32:])
    finished = RECORD.read_text()
    capsys.readouterr()
    calibrated(live, images)
    told = capsys.readouterr().err
    assert "WARNING" in told
    assert "variables were initialized again: the next batch_num=2 passes calibrate anew; until then" in told
    assert RECORD.read_text() == finished
    amct.save_model(tiny.model, ["scores"], RECORD, "out/tiny")
    told = capsys.readouterr().err
    assert "the calibration before the one that waits for conv, depthwise, dense: 1 of 2 passes" in told


def test_batches_may_come_from_several_threads(
    live: Any, load_pb: Callable[[Path], Any], tiny: Tiny, images: NDArray[Any]
) -> None:
    configured(live, batch_num=8)
    batches = np.split(images, 8)
    calibrated(live, *batches)
    expected = load_record(RECORD)
    graph = load_pb(tiny.model)
    configured(graph, batch_num=8)
    with Session(graph) as session:
        session.initialize()
        threads = [Thread(target=session.run, args=(batch,)) for batch in batches]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert load_record(RECORD) == expected


def test_a_batch_that_the_user_overwrites_in_place_counts_as_it_was(
    live: Any, load_pb: Callable[[Path], Any], tiny: Tiny, images: NDArray[Any]
) -> None:
    calibrated_by_copies = load_pb(tiny.model)
    configured(calibrated_by_copies)
    calibrated(calibrated_by_copies, images[:32], images[32:])
    expected = load_record(RECORD)
    configured(live)
    with Session(live) as session:
        session.initialize()
        buffer = images[:32].copy()
        session.run(buffer)
        buffer[:] = images[32:]
        session.run(buffer)
    assert load_record(RECORD) == expected


def test_without_initialized_variables_tensorflow_names_the_layer(live: Any, images: NDArray[Any]) -> None:
    import tensorflow as tf

    configured(live)
    with (
        Session(live) as session,
        pytest.raises(tf.errors.FailedPreconditionError, match=r"value (conv|depthwise|dense)/act_quant/"),
    ):
        session.run(images)


def test_a_placeholder_that_is_not_fed_is_named_and_such_a_run_does_not_count(live: Any, images: NDArray[Any]) -> None:
    import tensorflow as tf

    configured(live)
    with Session(live) as session:
        session.initialize()
        with pytest.raises(
            tf.errors.InvalidArgumentError, match=r"You must feed a value for placeholder tensor 'image'"
        ):
            session._session.run("scores:0")
        session.run(images)
        assert empty_entries(RECORD.read_text())
        session.run(images)
    assert list(load_record(RECORD)) == ["conv", "depthwise", "dense"]


def test_sessions_may_be_fed_any_tensor_that_they_could_be_fed_before(
    built: Callable[[Callable[[], Any]], Any],
) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(0)

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (None, 6, 6, 2), name="x")
        x = tf.nn.conv2d(x, rng.normal(size=(3, 3, 2, 4)).astype(np.float32), 1, "SAME", name="conv")
        x = tf.identity(tf.nn.relu(x, name="relu"), name="same")
        x = tf.nn.conv2d(x, rng.normal(size=(3, 3, 4, 4)).astype(np.float32), 1, "VALID", name="second")
        x = tf.reshape(tf.nn.avg_pool2d(x, 2, 2, "VALID", name="pool"), (-1, 16), name="flat")
        x = tf.nn.dropout(x, rate=1 - tf.compat.v1.placeholder_with_default(np.float32(1.0), ()), name="dropout")
        tf.matmul(x, rng.normal(size=(16, 3)).astype(np.float32), name="y")

    graph = built(write)
    tensors = ["x", "conv", "relu", "same", "second", "pool", "flat", "dropout/SelectV2", "y"]
    with tf.compat.v1.Session(graph=graph) as session:
        values = session.run([f"{name}:0" for name in tensors], {"x:0": rng.normal(size=(2, 6, 6, 2))})
    configured(graph, batch_num=1)
    with Session(graph) as session:
        session.initialize()
        for name, value in zip(tensors, values, strict=True):
            result = session._session.run("y:0", {f"{name}:0": value})
            np.testing.assert_allclose(result, values[-1], rtol=1e-5, err_msg=name)
    assert list(load_record(RECORD)) == ["conv", "second", "pool", "y"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_name_the_layer_and_end_the_calibration(
    live: Any, tiny: Tiny, images: NDArray[Any], value: float
) -> None:
    import tensorflow as tf

    configured(live)
    broken = images.copy()
    broken[0, 0, 0, 0] = value
    with Session(live) as session:
        session.initialize()
        session.run(images)
        with pytest.raises(tf.errors.OpError, match=r"conv: its input holds 1 NaN or infinite values in pass 2; leave"):
            session.run(broken)
        session.run(images)
    with pytest.raises(TrialError, match=r"conv: its input holds 1 NaN or infinite values in pass 2"):
        amct.save_model(tiny.model, ["scores:0"], RECORD, "out/tiny")


def test_after_an_error_initialized_variables_start_anew(live: Any, images: NDArray[Any]) -> None:
    import tensorflow as tf

    configured(live, batch_num=1)
    with Session(live) as session:
        session.initialize()
        with pytest.raises(tf.errors.OpError, match=r"NaN"):
            session.run(np.full_like(images, np.nan))
        session.initialize()
        session.run(images)
    assert list(load_record(RECORD)) == ["conv", "depthwise", "dense"]


def test_nothing_but_empty_tensors(live: Any, tiny: Tiny, images: NDArray[Any]) -> None:
    import tensorflow as tf

    configured(live, batch_num=1)
    with Session(live) as session:
        session.initialize()
        with pytest.raises(
            tf.errors.OpError, match=r"conv: its input was empty in every calibration batch.*; .*leave the layer"
        ):
            session.run(images[:0])
    with pytest.raises(TrialError, match=r"conv: its input was empty"):
        amct.save_model(tiny.model, ["scores:0"], RECORD, "out/tiny")


def test_an_empty_batch_among_others_is_nothing(live: Any, images: NDArray[Any]) -> None:
    configured(live, batch_num=2)
    calibrated(live, images[:0], images)
    assert load_record(RECORD)["conv"].activation.scale > 0


def test_values_without_a_scale(live: Any, tiny: Tiny, images: NDArray[Any]) -> None:
    import tensorflow as tf

    configured(live, batch_num=1)
    with Session(live) as session:
        session.initialize()
        with pytest.raises(tf.errors.OpError, match=r"conv: calculate scale failed: .*; .*leave the layer in float"):
            session.run(images * np.float32(1e12))
    with pytest.raises(TrialError, match=r"conv: calculate scale failed"):
        amct.save_model(tiny.model, ["scores:0"], RECORD, "out/tiny")


def test_more_than_memory_holds_names_the_layer_and_hfmg(
    live: Any, tiny: Tiny, images: NDArray[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    from autoquant.calibration.distribution import ExactCollector

    monkeypatch.setattr(ExactCollector.__init__, "__kwdefaults__", {"limit": 1000})
    configured(live, batch_num=1)
    with Session(live) as session:
        session.initialize()
        with pytest.raises(tf.errors.OpError, match=r"conv: calibration is too large.*use act_algo hfmg"):
            session.run(images)
    with pytest.raises(TrialError, match=r"conv: calibration is too large.*exact.*smaller batch_num or batch size"):
        amct.save_model(tiny.model, ["scores:0"], RECORD, "out/tiny")


@pytest.mark.parametrize(
    "changes",
    [
        {"autoquant": {"exact": False}},
        {
            "layers": {
                name: {"activation_quant_params": {"act_algo": "hfmg", "num_of_bins": 1024}}
                for name in ("conv", "depthwise", "dense")
            }
        },
    ],
)
def test_sketches_and_hfmg_need_no_memory_for_all_values(
    live: Any, images: NDArray[Any], monkeypatch: pytest.MonkeyPatch, changes: dict[str, dict[str, Any]]
) -> None:
    from autoquant.calibration.distribution import ExactCollector

    monkeypatch.setattr(ExactCollector.__init__, "__kwdefaults__", {"limit": 0})
    configured(live, batch_num=1, **changes)
    calibrated(live, images)
    assert list(load_record(RECORD)) == ["conv", "depthwise", "dense"]


def test_layers_that_are_off_are_not_watched(live: Any, images: NDArray[Any]) -> None:
    variables = configured(live, batch_num=1, layers={"depthwise": {"quant_enable": False}})
    assert [v.name for v in variables] == [
        "conv/act_quant/calibrated_batches:0",
        "dense/act_quant/calibrated_batches:0",
    ]
    calibrated(live, images)
    assert list(load_record(RECORD)) == ["conv", "dense"]


def test_outputs_of_the_user_are_left_as_they_are(live: Any) -> None:
    amct.create_quant_config(CONFIG, live)
    outputs = ["scores:0"]
    amct.quantize_model(live, CONFIG, RECORD, calib_outputs=outputs)
    assert outputs == ["scores:0"]


def test_too_few_passes_are_counted(live: Any, tiny: Tiny, images: NDArray[Any]) -> None:
    configured(live, batch_num=3)
    calibrated(live, images[:32], images[32:])
    message = (
        "record.txt: no layers to be quantized, please ensure calibration is finished: waiting for conv, depthwise, "
        "dense: 2 of 3 passes; run outputs that depend on these layers batch_num times, in one session"
    )
    with pytest.raises(PlanError, match=message):
        amct.save_model(tiny.model, ["scores:0"], RECORD, "out/tiny")


def test_a_layer_that_no_run_has_reached_is_named(live: Any, tiny: Tiny, images: NDArray[Any]) -> None:
    configured(live, batch_num=2)
    with Session(live) as session:
        session.initialize()
        session.run(images, output="conv_bias:0")
    with pytest.raises(
        PlanError, match=r"waiting for conv: 1 of 2 passes; depthwise, dense: 0 of 2 passes; run outputs"
    ):
        amct.save_model(tiny.model, ["scores:0"], RECORD, "out/tiny")


def test_without_its_graph_an_unfinished_record_names_its_layers(live: Any, tiny: Tiny) -> None:
    configured(live, batch_num=2)
    copy = Path("copy.txt")
    copy.write_text(RECORD.read_text())
    assert calibration_of(copy) is None
    with pytest.raises(
        PlanError, match=r"copy.txt: no layers to be quantized.*: waiting for conv, depthwise, dense; run"
    ):
        amct.save_model(tiny.model, ["scores:0"], copy, "out/tiny")


def test_a_session_that_ran_before_does_not_calibrate_and_the_error_says_so(
    live: Any, tiny: Tiny, images: NDArray[Any]
) -> None:
    with Session(live) as session:
        session.run(images)
        configured(live, batch_num=1)
        session.initialize()
        session.run(images)
    with pytest.raises(PlanError, match=r"0 of 1 passes; run outputs .*, in one session made after quantize_model"):
        amct.save_model(tiny.model, ["scores:0"], RECORD, "out/tiny")
    calibrated(live, images)  # a new one does
    assert list(load_record(RECORD)) == ["conv", "depthwise", "dense"]


def test_a_graph_is_quantized_once(live: Any) -> None:
    configured(live)
    with pytest.raises(UsageError, match=r"quantize_model has been called on it already; import the .pb into a new tf"):
        amct.quantize_model(live, CONFIG, RECORD)
    with pytest.raises(UsageError, match=r"quantize_model has been called on it already"):
        amct.create_quant_config(CONFIG, live)


def test_a_finalized_graph_is_refused_before_anything_is_written(live: Any) -> None:
    amct.create_quant_config(CONFIG, live)
    live.finalize()
    with pytest.raises(UsageError, match=r"graph: it is finalized and cannot be changed; import"):
        amct.quantize_model(live, CONFIG, RECORD)
    assert not RECORD.exists()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"skip_fusion_layers": ["cnv"]}, PlanError, "Layer cnv does not exist in the graph.*; did you mean 'conv'"),
        ({"cnv": {}}, PlanError, "'cnv' is an invalid layer name or parameter"),
        (
            {"layers": {name: {"quant_enable": False} for name in ("conv", "depthwise", "dense")}},
            PlanError,
            "no layer is to be quantized",
        ),
    ],
)
def test_a_config_that_does_not_fit_is_refused(
    live: Any, changes: dict[str, Any], error: type[PlanError], message: str
) -> None:
    with pytest.raises(error, match=message):
        configured(live, **changes)
    assert not RECORD.exists()


def test_a_quantized_model_is_refused(
    live: Any, tiny: Tiny, images: NDArray[Any], load_pb: Callable[[Path], Any]
) -> None:
    configured(live, batch_num=1)
    calibrated(live, images)
    saved = amct.save_model(tiny.model, ["scores:0"], RECORD, "out/tiny")
    with pytest.raises(ModelError, match=r"is an operator of AMCT .*: the model is quantized already; give the float"):
        amct.create_quant_config(CONFIG, load_pb(saved.model))


def test_variables_of_the_calibration_are_no_part_of_a_checkpoint(
    built: Callable[[Callable[[], Any]], Any], images: NDArray[Any]
) -> None:
    """AMCT's FAQ 0369: subtract quant_add_ops from what a Saver restores."""
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (None, 4), name="x")
        tf.matmul(x, np.eye(4, dtype=np.float32), name="y")
        tf.compat.v1.Variable(7, trainable=False, name="global_step")

    graph = built(write)
    with graph.as_default(), tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.global_variables_initializer())
        checkpoint = tf.compat.v1.train.Saver().save(session, str(Path.cwd() / "model.ckpt"), write_meta_graph=False)
    quant_add_ops = configured(graph, batch_num=1)
    with graph.as_default(), tf.compat.v1.Session() as session:
        with pytest.raises(tf.errors.NotFoundError, match=r"calibrated_batches"):
            tf.compat.v1.train.Saver().restore(session, checkpoint)
        variables = [v for v in tf.compat.v1.global_variables() if v not in quant_add_ops]
        tf.compat.v1.train.Saver(list(set(tf.compat.v1.global_variables()) - set(quant_add_ops))).restore(
            session, checkpoint
        )
        assert [session.run(v) for v in variables] == [7]
        session.run(tf.compat.v1.variables_initializer(quant_add_ops))
        session.run("y:0", {"x:0": np.ones((2, 4))})
    assert list(load_record(RECORD)) == ["y"]


def test_values_of_numpy_and_a_graph_under_a_prefix(tiny: Tiny, images: NDArray[Any]) -> None:
    """Its record names the graph's layers, and the file that it was imported from is quantized by it."""
    import tensorflow as tf

    from autoquant import check

    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(tf.compat.v1.GraphDef.FromString(tiny.model.read_bytes()))
    skipped = np.array(["import/dense"])
    amct.create_quant_config(CONFIG, graph, skipped, batch_num=np.int64(2), activation_offset=np.False_)
    config = json.loads(CONFIG.read_text())
    assert (config["batch_num"], config["activation_offset"]) == (2, False)
    amct.quantize_model(graph, CONFIG, RECORD, calib_outputs=np.array(["import/scores:0"]))
    with graph.as_default(), tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.global_variables_initializer())
        for batch in np.split(images, 2):
            session.run("import/scores:0", {"import/image:0": batch})
    assert list(load_record(RECORD)) == ["import/conv", "import/depthwise"]
    saved = amct.save_model(tiny.model, np.array(["scores"]), RECORD, "out/model")
    again = amct.save_model(tiny.model, ["import/scores:0"], RECORD, "again/model")
    assert saved.model.read_bytes() == again.model.read_bytes()
    assert dict(check(saved.model, RECORD).layers) == {"Conv2D": 1, "DepthwiseConv2dNative": 1}


def test_a_live_graph_is_not_trained(live: Any) -> None:
    with pytest.raises(PlanError, match=r"autoquant.training: .*cannot be trained.*; remove it, or .*quantize"):
        configured(live, autoquant={"training": True})
    assert not RECORD.exists()


@pytest.mark.parametrize(("setting", "value"), [("bias_correction", "analytic"), ("weight_rounding", "gptq")])
def test_biases_and_weights_are_not_corrected_in_a_live_graph(live: Any, setting: str, value: str) -> None:
    with pytest.raises(PlanError, match=rf"autoquant.{setting}: .*{value}.*; remove it, or .*autoquant quantize"):
        configured(live, autoquant={setting: value})
    assert not RECORD.exists()


def test_weights_of_least_squared_error_are_saved(live: Any, tiny: Tiny, images: NDArray[Any]) -> None:
    """A record of such scales is one of this model."""
    squared = {"weight_quant_params": {"num_bits": 8, "wts_algo": "mse", "channel_wise": False}}
    configured(live, batch_num=1, layers={"dense": squared, "conv": squared})
    calibrated(live, images)
    saved = amct.save_model(tiny.model, ["scores:0"], RECORD, "out/model")
    assert saved.model.is_file()
    largest = np.abs(tiny.weights["dense"]).max()
    assert load_record(RECORD)["dense"].scale_w[0] <= largest / 127


def test_a_config_that_wants_other_weights_is_refused(live: Any) -> None:
    with pytest.raises(PlanError, match=r"config\.json: autoquant\.equalize: .*; .*`autoquant quantize MODEL"):
        configured(live, autoquant={"equalize": True})
    assert not RECORD.exists()
