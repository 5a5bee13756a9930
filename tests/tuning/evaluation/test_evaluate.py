"""Models of every kind scored on the same samples: right scores and pairs, right feeds, and what cannot be compared."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from networks import without_warnings_of_keras
from tiny_model import Tiny

import autoquant
from autoquant.errors import BaselineError, DataError, ModelError, RunError, UsageError
from autoquant.evaluation.statistics.paired import EXACT
from autoquant.tuning.certification.certificate import Verdict, load_certificate
from autoquant.tuning.evaluation.result import Evaluation
from autoquant.tuning.events import Progress

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
KINDS = ("float", "dynamic", "half", "int8", "int8_io", "uint8_io")


@pytest.fixture(scope="module")
def lite(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The tiny model as TFLiteConverter writes it: in float, and quantized in all of its ways."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("lite")
    samples = np.load(tiny.calibration)["x"]
    found = {}
    for kind in KINDS:
        converter = tf.compat.v1.lite.TFLiteConverter.from_frozen_graph(str(tiny.model), ["image"], ["scores"])
        if kind != "float":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if kind == "half":
            converter.target_spec.supported_types = [tf.float16]
        if "int8" in kind:
            converter.representative_dataset = lambda: ([one[None]] for one in samples)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        if kind.endswith("_io"):
            type_ = tf.int8 if kind == "int8_io" else tf.uint8
            converter.inference_input_type = converter.inference_output_type = type_
        found[kind] = folder / f"{kind}.tflite"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found[kind].write_bytes(converter.convert())
    return found


@pytest.fixture(scope="module")
def saved(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The tiny model quantized by a search for each target."""
    folder, found = tmp_path_factory.mktemp("saved"), {}
    for target, options in (("tensorflow", {}), ("litert", {"io": "int8"})):
        result = autoquant.search(
            tiny.model,
            tiny.evaluation,
            calibration=tiny.calibration,
            tolerance="50%",
            certify="none",
            max_trials=1,
            target=target,
            run=folder / target,
            **options,  # type: ignore[arg-type]
        )
        assert result.model is not None
        found[target] = result.model
    return found


def answers(file: Path, images: Any) -> Any:
    """The class of each image by an interpreter of our own hand, fed and read by the scales in the file."""
    interpreter = Interpreter(str(file))
    given, made = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.resize_tensor_input(given["index"], images.shape)
    interpreter.allocate_tensors()
    scale, zero = given["quantization"]
    if scale:
        limits = np.iinfo(given["dtype"])
        images = np.clip(np.rint(images / np.float32(scale)) + zero, limits.min, limits.max).astype(given["dtype"])
    interpreter.set_tensor(given["index"], images)
    interpreter.invoke()
    return interpreter.get_tensor(made["index"]).argmax(axis=1)


def test_files_of_any_tool_are_fed_and_paired_right(tiny: Tiny, lite: Mapping[str, Path]) -> None:
    heard: list[object] = []
    found = autoquant.evaluate(tiny.model, *lite.values(), data=tiny.evaluation, listener=heard.append)
    phases = {one.what for one in heard if isinstance(one, Progress) and one.done == one.total == 200}
    assert phases == {f"scoring {name}" for name in ("tiny.pb", *(file.name for file in lite.values()))}
    assert (found.metric, found.samples, found.verdict) == ("top1", 200, None)
    arrays = np.load(tiny.evaluation)
    right = {kind: answers(file, arrays["x"]) == arrays["y"] for kind, file in lite.items()}
    assert found.models[0].score == right["float"].mean()
    assert found.models[0].drop is None and found.models[0].engine.startswith("tensorflow ")
    for one, (kind, file) in zip(found.models[1:], lite.items(), strict=True):
        lost, won = right["float"] & ~right[kind], right[kind] & ~right["float"]
        assert (one.name, one.path) == (file.name, str(file))
        assert one.score == pytest.approx(right[kind].mean()), kind
        assert (one.losses, one.gains) == (lost.sum(), won.sum())
        assert one.drop == pytest.approx((lost.sum() - won.sum()) / 200)
        assert one.changes is not None and (one.changes.worse, one.changes.better) == (lost.sum(), won.sum())
        assert {sample.sample for sample in one.lost} == set(np.flatnonzero(lost).tolist())
        assert one.engine.startswith("litert ") and one.method == EXACT and one.verdict is None
        assert one.drop is not None and one.lower_bound is not None and one.upper_bound is not None
        assert one.lower_bound <= one.drop <= one.upper_bound


def test_what_a_search_saved_scores_as_in_the_search(tiny: Tiny, saved: Mapping[str, Path]) -> None:
    from json import loads

    found = autoquant.evaluate(tiny.model, *saved.values(), data=tiny.evaluation, tolerance="50%")
    for one, file in zip(found.models[1:], saved.values(), strict=True):
        result = loads((file.parent.parent / "result.json").read_text(encoding="utf-8"))
        assert one.score == pytest.approx(result["score_tensorflow"] or result["score"])
        assert one.verdict is Verdict.MET and one.certificate is None
    runs = [file.parent.parent for file in saved.values()]
    again = autoquant.evaluate(tiny.model, *runs, data=tiny.evaluation)
    assert [one.score for one in again.models] == [one.score for one in found.models]
    assert [one.name for one in again.models] == ["tiny.pb", "tensorflow", "litert"]


def test_a_graph_without_functions_gets_them(tiny: Tiny, saved: Mapping[str, Path], tmp_path: Path) -> None:
    run = saved["tensorflow"].parent.parent
    bare = autoquant.export(run, tmp_path / "bare", simulation=False).model
    found = autoquant.evaluate(saved["tensorflow"], bare, data=tiny.evaluation)
    assert found.models[1].changes is not None and found.models[1].changes.answers == 0
    assert found.models[1].score == found.models[0].score
    with pytest.raises(ModelError, match="has no output 'nothing'; its own: scores"):
        autoquant.evaluate(bare, data=tiny.evaluation, outputs=("nothing",))


def test_files_of_keras(tmp_path: Path) -> None:
    """A .keras file, an .h5, a SavedModel and a .tflite of one network compute the same, under other names."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    with without_warnings_of_keras():
        image = keras.Input((6, 6, 1), name="picture")
        t = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, activation="relu")(image))
        network = keras.Model(image, keras.layers.Dense(3, name="classes")(t))
        for name in ("net.keras", "net.h5"):
            network.save(tmp_path / name)
        network.export(tmp_path / "saved_model", verbose=False)
        lite = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved_model")).convert()
    (tmp_path / "net.tflite").write_bytes(lite)
    x = np.random.default_rng(1).normal(size=(60, 6, 6, 1)).astype(np.float32)
    y = np.asarray(network(x)).argmax(axis=1)
    models = [tmp_path / name for name in ("net.keras", "net.h5", "saved_model", "net.tflite")]
    found = autoquant.evaluate(*models, data=(x, y))
    assert [one.score for one in found.models] == [1.0] * 4
    assert [one.drop for one in found.models[1:]] == [0.0] * 3
    of_lite = autoquant.evaluate(*reversed(models), data=(x, y), metric="sqnr")
    assert all(one.score == 30.0 for one in of_lite.models[1:]), "the cap of sqnr: as good as the first"


def test_a_certificate_of_a_model_made_elsewhere(tiny: Tiny, lite: Mapping[str, Path], tmp_path: Path) -> None:
    from hashlib import sha256

    from autoquant.evaluation.statistics.bounds import exact_upper

    to = tmp_path / "release"
    pair = (tiny.model, lite["int8"])
    found = autoquant.evaluate(*pair, data=tiny.evaluation, tolerance=0.2, certify=to, guard="class", confidence=0.9)
    one, certificate = found.models[1], load_certificate(to / "certificate.json")
    assert found.file == to / "certificate.json" and one.certificate == certificate
    assert one.losses is not None and one.gains is not None
    assert certificate.upper_bound == pytest.approx(exact_upper(one.losses, one.gains, 200, confidence=0.9))
    assert certificate.verdict is one.verdict is found.verdict
    assert (certificate.max_drop, certificate.guard_max_drop, len(certificate.guard)) == (0.2, 0.2, 3)
    assert certificate.origin.model == sha256(tiny.model.read_bytes()).hexdigest()
    assert certificate.origin.int8_model == sha256(lite["int8"].read_bytes()).hexdigest()
    assert certificate.origin.engine.startswith("litert ") and "CONV" not in certificate.origin.kernels
    assert "nothing of these samples was used to train, quantize or choose the model" in certificate.assumes
    strict = autoquant.evaluate(*pair, data=tiny.evaluation, tolerance=0.0, certify=to)
    assert strict.verdict in (Verdict.MET, Verdict.MISSED)


def test_groups_and_units(tiny: Tiny, lite: Mapping[str, Path], tmp_path: Path) -> None:
    arrays = dict(np.load(tiny.evaluation))
    np.savez(tmp_path / "units.npz", **arrays, patient=np.arange(200) // 4, site=np.arange(200) % 2)
    options: dict[str, Any] = {"data": tmp_path / "units.npz", "unit": "patient", "guard": "site"}
    found = autoquant.evaluate(tiny.model, lite["int8"], tolerance=1.0, guard_tolerance=0.5, **options)
    one = found.models[1]
    assert (found.units, found.guard_max_drop) == (50, 0.5)
    assert one.method.endswith("by unit") and {group.label for group in one.guard} == {"0", "1"}
    assert sum(group.samples * group.drop for group in one.guard) / 200 == pytest.approx(one.drop)
    free = autoquant.evaluate(tiny.model, lite["int8"], **options)
    assert free.verdict is None and len(free.models[1].guard) == 2


def test_a_metric_that_is_no_mean_has_bounds_too(tiny: Tiny, lite: Mapping[str, Path]) -> None:
    arrays = np.load(tiny.evaluation)

    def deviation(outputs: Any, labels: Any) -> float:
        return float(outputs[:, 0].std())

    deviation.per_sample = False  # type: ignore[attr-defined]
    found = autoquant.evaluate(tiny.model, lite["int8"], data=(arrays["x"], arrays["y"]), metric=deviation)
    one = found.models[1]
    assert one.drop is not None and one.lower_bound is not None and one.upper_bound is not None
    assert one.lower_bound < one.drop < one.upper_bound
    assert one.changes is None and one.lost == ()


def test_images_become_what_each_model_takes(tmp_path: Path) -> None:
    """The same files for models of other image sizes, and lost samples by the names of files."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(3)
    for number in range(40):
        level = 40 if number % 2 else 200
        image = np.clip(rng.normal(level, 30, size=(10, 10, 1)), 0, 255).astype(np.uint8)
        file = tmp_path / "images" / ("dark" if number % 2 else "light") / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(tf.io.encode_png(image).numpy())
    models = []
    for size, sign in ((10, 1.0), (6, 1.0), (8, -1.0)):
        image = keras.Input((size, size, 1), name="image")
        mean = keras.layers.GlobalAveragePooling2D()(image)
        network = keras.Model(image, keras.layers.Dense(2, name="scores")(mean))
        network.layers[-1].set_weights([np.array([[-sign, sign]]), np.array([0.5, -0.5]) * sign])
        models.append(tmp_path / f"net{size}.keras")
        with without_warnings_of_keras():
            network.save(models[-1])
    found = autoquant.evaluate(*models, data=tmp_path / "images", scale="1/255")
    assert [one.score for one in found.models] == [1.0, 1.0, 0.0]
    assert found.models[1].lost == ()
    assert {one.id for one in found.models[2].lost} == {
        f"{'dark' if number % 2 else 'light'}/{number:02d}.png" for number in range(40)
    }
    assert {(one.label, one.before, one.after) for one in found.models[2].lost} == {(0, 0, 1), (1, 1, 0)}


def test_several_inputs_and_outputs_are_paired_by_name_or_form(tmp_path: Path) -> None:
    import tensorflow as tf

    def network(names: tuple[str, str], outputs: tuple[str, str], *, alike: bool) -> Path:
        class Net(tf.Module):  # type: ignore[misc]  # TensorFlow ships no types
            @tf.function(autograph=False)  # type: ignore[untyped-decorator]  # TensorFlow ships no types
            def __call__(self, one: Any, two: Any) -> Any:
                return {outputs[0]: one - tf.reduce_sum(two, 1, keepdims=True), outputs[1]: two}

        second = 3 if alike else 5
        specs = [tf.TensorSpec((None, size), tf.float32, name) for name, size in zip(names, (3, second), strict=True)]
        net = Net()
        signature = net.__call__.get_concrete_function(*specs)
        folder = tmp_path / f"{names[0]}-{alike}"
        tf.saved_model.save(net, str(folder), signatures=signature)
        return folder

    x = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    wide = np.random.default_rng(1).normal(size=(30, 5)).astype(np.float32)
    first = network(("a", "b"), ("left", "right"), alike=False)
    other = network(("c", "d"), ("up", "down"), alike=False)
    data = {"a": x, "b": wide, "y": x.argmax(axis=1)}
    found = autoquant.evaluate(first, other, data=data, metric="top1@output=left")
    assert [one.score for one in found.models] == [1.0, 1.0]
    twins = [network(names, ("left", "right"), alike=True) for names in (("a", "b"), ("b", "c"))]
    with pytest.raises(ModelError, match=r"which input is 'a' of a-True cannot be told"):
        autoquant.evaluate(*twins, data={"a": x, "b": x, "y": x.argmax(axis=1)}, metric="top1@output=left")


def test_what_cannot_be_compared(tiny: Tiny, lite: Mapping[str, Path], lite_pair: Any, tmp_path: Path) -> None:
    other = tmp_path / "other.tflite"
    other.write_bytes(lite_pair.int8)
    with pytest.raises(DataError, match=r"as other\.tflite takes it: .* \(batch, 8, 8, 4\)"):
        autoquant.evaluate(tiny.model, other, data=tiny.evaluation)
    damaged = tmp_path / "damaged.pb"
    damaged.write_bytes(b"no graph")
    with pytest.raises(ModelError, match="is not a GraphDef"):
        autoquant.evaluate(tiny.model, damaged, data=tiny.evaluation)
    arrays = np.load(tiny.evaluation)
    with pytest.raises(DataError, match=r"float\.tflite: output 'scores': is the same for all 200 samples"):
        autoquant.evaluate(lite["float"], data=(arrays["x"] * 0, arrays["y"]))


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        ((), {}, "MODEL: there is none"),
        ((0, 0), {}, "MODEL: one appears twice"),
        ((0,), {"tolerance": "1%"}, "--tolerance: compares models, and there is one"),
        ((0, 1, 2), {"tolerance": "1%", "certify": "out"}, "--certify: certifies one model, and 2 are compared"),
        ((0, 1), {"certify": "out"}, "--certify: needs a tolerance"),
        ((0, 1), {"guard_tolerance": "1%"}, "--guard-tolerance: needs a guard"),
        ((0, 1), {"confidence": 1.0}, "--confidence: must be above 0"),
        ((0, 1), {"tolerance": "much"}, "cannot read 'much'"),
        ((0, 1), {"min_baseline": float("nan")}, "--min-baseline: must be a number"),
        ((0, 1), {"metric": "top2"}, "unknown 'top2'"),
        ((0, 1), {"nothing": 1}, r"evaluate\(\): .*nothing"),
    ],
)
def test_what_is_asked_wrongly(
    tiny: Tiny, lite: Mapping[str, Path], models: tuple[int, ...], options: dict[str, Any], message: str
) -> None:
    files = [tiny.model, lite["int8"], lite["half"]]
    with pytest.raises(UsageError, match=message):
        autoquant.evaluate(*(files[number] for number in models), data=tiny.evaluation, **options)


def test_a_first_model_that_is_too_bad_ends_it(tiny: Tiny, lite: Mapping[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "out.xml"
    with pytest.raises(BaselineError, match=r"tiny\.pb: scores top1 0\.9.*, worse than --min-baseline 0\.99"):
        autoquant.evaluate(tiny.model, lite["int8"], data=tiny.evaluation, min_baseline=0.99, junit=file)
    assert 'failures="1"' in file.read_text(encoding="utf-8")
    assert autoquant.evaluate(tiny.model, lite["int8"], data=tiny.evaluation, min_baseline=0.5).samples == 200


def test_facts_are_json(tiny: Tiny, lite: Mapping[str, Path]) -> None:
    from json import dumps, loads

    found: Evaluation = autoquant.evaluate(tiny.model, lite["int8"], data=tiny.evaluation, tolerance="1%")
    facts = loads(dumps(found.facts(), allow_nan=False))
    assert facts["verdict"] == found.verdict.value if found.verdict else None
    assert facts["models"][1]["changes"]["worse"] == found.models[1].losses
    assert facts["models"][0]["drop"] is None


def test_data_of_functions_and_records(tiny: Tiny, lite: Mapping[str, Path], tmp_path: Path) -> None:
    """A function is called as often as it takes, records are read for each image size; lost ones by their keys."""
    import keras
    import tensorflow as tf

    arrays = np.load(tiny.evaluation)
    calls: list[int] = []

    def batches() -> Any:
        calls.append(1)
        for start in range(0, 200, 40):
            yield arrays["x"][start : start + 40], arrays["y"][start : start + 40]

    of_function = autoquant.evaluate(tiny.model, lite["int8_io"], data=batches)
    of_arrays = autoquant.evaluate(tiny.model, lite["int8_io"], data=tiny.evaluation)
    assert [one.score for one in of_function.models] == [one.score for one in of_arrays.models]
    assert of_function.models[1].lost == of_arrays.models[1].lost and len(calls) == 1
    keras.utils.set_random_seed(0)
    models = []
    for size, sign in ((6, 1.0), (9, -1.0)):
        image = keras.Input((size, size, 1), name="image")
        network = keras.Model(image, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(image)))
        network.layers[-1].set_weights([np.array([[-sign, sign]]), np.array([0.5, -0.5]) * sign])
        models.append(tmp_path / f"net{size}.keras")
        with without_warnings_of_keras():
            network.save(models[-1])
    with tf.io.TFRecordWriter(str(tmp_path / "images.tfrecord")) as writer:
        for number in range(20):
            picture = np.full((9, 9, 1), 240 if number % 2 else 10, np.uint8)
            features = {
                "image/encoded": tf.train.BytesList(value=[tf.io.encode_png(picture).numpy()]),
                "image/filename": tf.train.BytesList(value=[f"{number}.png".encode()]),
            }
            made = {key: tf.train.Feature(bytes_list=value) for key, value in features.items()}
            made["image/class/label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[number % 2]))
            writer.write(tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString())
    found = autoquant.evaluate(*models, data=tmp_path / "images.tfrecord", scale="1/255")
    assert [one.score for one in found.models] == [1.0, 0.0]
    assert {one.id for one in found.models[1].lost} == {f"{number}.png" for number in range(20)}


def test_a_run_whose_best_was_changed_is_not_scored(tiny: Tiny, saved: Mapping[str, Path], tmp_path: Path) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(saved["litert"].parent.parent, run, symlinks=True)
    assert len(autoquant.evaluate(tiny.model, run, data=tiny.evaluation).models) == 2
    model = next(run.glob("trials/*/*.tflite"))
    model.write_bytes(model.read_bytes() + b"0")
    with pytest.raises(RunError, match="is not the file that was scored"):
        autoquant.evaluate(tiny.model, run, data=tiny.evaluation)
    model.unlink()
    with pytest.raises(RunError, match="has no best model yet"):
        autoquant.evaluate(tiny.model, run, data=tiny.evaluation)


@pytest.mark.parametrize("target", ["tensorflow", "litert"])
def test_its_certificate_is_that_of_a_search(tiny: Tiny, tmp_path: Path, target: str) -> None:
    """The same model on the same holdout, which the search was given apart."""
    from dataclasses import replace

    arrays = np.load(tiny.evaluation)
    x, y = arrays["x"], arrays["y"]
    result = autoquant.search(
        tiny.model,
        (x[:80], y[:80]),
        calibration=tiny.calibration,
        certify=(x[80:], y[80:]),
        guard="class",
        tolerance=0.3,
        max_trials=1,
        target=target,
        run=tmp_path / "run",
    )
    assert result.model is not None and result.certificate is not None
    pair, given = (tiny.model, result.model), {"tolerance": 0.3, "guard": "class", "certify": tmp_path / "here"}
    found = autoquant.evaluate(*pair, data=(x[80:], y[80:]), **given).models[1].certificate  # type: ignore[arg-type]
    assert found is not None
    # The search has its tolerance from the FP32 score on its own samples, of which an absolute one does not depend.
    assert replace(found, assumes=result.certificate.assumes) == result.certificate


def test_the_file_itself_is_run_where_it_has_one_signature(
    tiny: Tiny, lite: Mapping[str, Path], tmp_path: Path
) -> None:
    from autoquant.model.litert import flatbuffer
    from autoquant.model.litert.graph import LiteGraph
    from autoquant.model.litert.load import load_as_is

    bare = load_as_is(lite["int8"])
    assert isinstance(bare.program, LiteGraph) and bare.program.inputs == ("image",)
    assert bare.program.content != lite["int8"].read_bytes(), "it has no signature, so it gets one"
    model = flatbuffer.read(lite["int8"].read_bytes())
    flatbuffer.add_signature(model, ["picture"], ["classes"])
    signed = tmp_path / "signed.tflite"
    signed.write_bytes(flatbuffer.write(model))
    opened = load_as_is(signed)
    assert isinstance(opened.program, LiteGraph) and opened.program.content == signed.read_bytes()
    found = autoquant.evaluate(lite["int8"], signed, data=tiny.evaluation)
    assert found.models[0].score == found.models[1].score


def test_an_int8_graph_that_is_damaged(tiny: Tiny, saved: Mapping[str, Path], tmp_path: Path) -> None:
    import tensorflow as tf

    def changed(name: str) -> tuple[Any, Path]:
        return tf.compat.v1.GraphDef.FromString(saved["tensorflow"].read_bytes()), tmp_path / name

    graph_def, file = changed("no_scale.pb")
    graph_def.ClearField("library")
    for node in graph_def.node:
        if node.op == "AscendDequant":
            del node.input[1:]
    file.write_bytes(graph_def.SerializeToString())
    with pytest.raises(ModelError, match="AscendDequant has no scale"):
        autoquant.evaluate(tiny.model, file, data=tiny.evaluation)
    graph_def, file = changed("no_node.pb")
    del graph_def.node[1]
    file.write_bytes(graph_def.SerializeToString())
    with pytest.raises(ModelError):
        autoquant.evaluate(tiny.model, file, data=tiny.evaluation)
    graph_def, file = changed("reads_files.pb")
    graph_def.node.add(name="evil", op="ReadFile", input=["image"])
    file.write_bytes(graph_def.SerializeToString())
    with pytest.raises(ModelError, match="holds operators that reach files"):
        autoquant.evaluate(tiny.model, file, data=tiny.evaluation)


def test_values_that_are_fed_and_models_that_are_trusted(tmp_path: Path) -> None:
    """A value is for the float model: what was saved of it has that inside."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 4, 4, 1)).astype(np.float32)
    graph = tf.Graph()
    with graph.as_default():
        image = tf.compat.v1.placeholder(tf.float32, (None, 4, 4, 1), name="image")
        factor = tf.compat.v1.placeholder(tf.float32, (), name="factor")
        weight = tf.constant(rng.normal(size=(3, 3, 1, 3)), tf.float32)
        scores = tf.reduce_mean(tf.nn.conv2d(image, weight, 1, "SAME", name="conv"), (1, 2)) * factor
        tf.identity(scores, name="scores")
    model = tmp_path / "fed.pb"
    model.write_bytes(graph.as_graph_def().SerializeToString())
    with tf.compat.v1.Session(graph=graph) as session:
        y = session.run("scores:0", {"image:0": x, "factor:0": 2.0}).argmax(axis=1)
    options: dict[str, Any] = {"feed": {"factor": 2.0}}
    result = autoquant.search(
        model, (x, y), tolerance="50%", certify="none", max_trials=1, run=tmp_path / "run", **options
    )
    assert result.model is not None
    found = autoquant.evaluate(model, result.model, data=(x, y), **options)
    assert found.models[0].score == 1.0 and found.models[1].score > 0.9
    with pytest.raises(ModelError, match="--feed factor"):
        autoquant.evaluate(model, result.model, data=(x, y))
    with graph.as_default():
        tf.io.read_file("nothing", name="reads")
        tf.identity(graph.get_tensor_by_name("scores:0"), name="last")
    reading = tmp_path / "reads.pb"
    reading.write_bytes(graph.as_graph_def().SerializeToString())
    given = {**options, "outputs": ("scores",)}
    with pytest.raises(ModelError, match="holds operators that reach files"):
        autoquant.evaluate(model, reading, data=(x, y), **given)
    assert autoquant.evaluate(model, reading, data=(x, y), **given, trust_model=True).models[1].score == 1.0
