"""Models that could do more than compute are refused before anything of them runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from autoquant.cli.main import main
from autoquant.errors import ModelError
from autoquant.model.open import open_model
from autoquant.model.trust import CHECKPOINTS, REACHES_OUT
from autoquant.tuning.study.request import SearchRequest

v1 = tf.compat.v1


def frozen(folder: Path, build: Any) -> Path:
    """A frozen graph x -> y; `build` makes y of x."""
    with tf.Graph().as_default() as graph:
        tf.identity(build(v1.placeholder(tf.float32, [None, 2], name="x")), name="y")
    path = folder / "m.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


def with_file(x: Any, path: str) -> Any:
    return x + tf.cast(tf.strings.length(tf.io.read_file(path)), tf.float32)


def in_a_branch(x: Any, path: str) -> Any:
    @tf.function  # type: ignore[untyped-decorator]  # TensorFlow has no types
    def inner(x: Any) -> Any:
        tf.io.write_file(path, "mine")
        return tf.raw_ops.PyFunc(input=[x], token="a", Tout=[tf.float32])[0]

    return inner(x)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (with_file, "ReadFile ('ReadFile')"),
        (in_a_branch, "PyFunc ('PyFunc') and WriteFile ('WriteFile')"),
        (
            lambda x, path: (
                x + tf.raw_ops.RestoreV2(prefix=path, tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32])[0]
            ),
            "RestoreV2 ('RestoreV2')",
        ),
    ],
    ids=["read", "in a function", "checkpoint"],
)
def test_a_frozen_graph_that_reaches_out_is_refused(build: Any, told: str, tmp_path: Path) -> None:
    path = frozen(tmp_path, lambda x: build(x, str(tmp_path / "file")))
    with pytest.raises(ModelError) as caught:
        open_model(path)
    assert told.replace(" and ", ", ") in str(caught.value).replace(" and ", ", ")
    assert "--trust-model" in str(caught.value)
    assert not (tmp_path / "file").exists()


def test_who_trusts_a_model_opens_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("12345")
    path = frozen(tmp_path, lambda x: with_file(x, str(tmp_path / "file")))
    assert open_model(path, trust=True).graph.outputs == ("y",)


def saved_by_functions(folder: Path, target: Path) -> None:
    """A SavedModel of TensorFlow 2 that writes a file when it is loaded: as the initializer of a table."""

    class Table(tf.lookup.StaticHashTable):  # type: ignore[misc]  # TensorFlow has no types
        def _initialize(self) -> Any:
            tf.io.write_file(str(target), "mine")
            return super()._initialize()

    class Net(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.table = Table(tf.lookup.KeyValueTensorInitializer(["a"], [1.0]), 0.0)

        @tf.function(input_signature=[tf.TensorSpec([None, 2])])  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            return x + self.table.lookup(tf.constant(["a"]))

    net = Net()
    tf.saved_model.save(net, str(folder), signatures=net.__call__)


def saved_by_a_session(folder: Path, target: Path) -> None:
    """One of TensorFlow 1 whose main operator does."""
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 2], name="x")
        v1.identity(x * 2.0, name="y")
        signature = meta_graph_pb2.SignatureDef(method_name="m")
        signature.inputs["x"].CopyFrom(meta_graph_pb2.TensorInfo(name="x:0", dtype=1))
        signature.outputs["y"].CopyFrom(meta_graph_pb2.TensorInfo(name="y:0", dtype=1))
        saving = tf.raw_ops.SaveV2(prefix=str(target), tensor_names=["a"], shape_and_slices=[""], tensors=[[1.0]])
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature}, main_op=saving)
        builder.save()


@pytest.mark.parametrize(
    ("save", "told"),
    [
        (saved_by_functions, "WriteFile"),
        (saved_by_a_session, r"runs operators when it is loaded \(its main_op\): SaveV2"),
    ],
)
def test_a_saved_model_that_writes_when_it_is_loaded_is_refused(save: Any, told: str, tmp_path: Path) -> None:
    save(tmp_path / "m", tmp_path / "written")
    for file in tmp_path.glob("written*"):
        file.unlink()
    with pytest.raises(ModelError, match=told):
        open_model(tmp_path / "m")
    assert not list(tmp_path.glob("written*"))
    open_model(tmp_path / "m", trust=True)
    assert list(tmp_path.glob("written*"))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_code_in_a_keras_file_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"m{suffix}"
    model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x + 1, output_shape=(2,))])
    model.save(path)
    with pytest.raises(ModelError, match="Lambda"):
        open_model(path)
    assert open_model(path, trust=True).graph.outputs


def test_a_constant_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    graph_def = tf.compat.v1.GraphDef.FromString(frozen(tmp_path, lambda x: x + tf.fill([2], 3.0)).read_bytes())
    node = graph_def.node.add(name="c", op="Const")
    node.attr["dtype"].type = 1
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(1.0))
    for size in (1 << 20, 1 << 22):
        node.attr["value"].tensor.tensor_shape.dim.add(size=size)
    (tmp_path / "m.pb").write_bytes(graph_def.SerializeToString())
    with pytest.raises(ModelError, match=r"'c' is a constant of 17,592,186,044,416 bytes by its shape, of which"):
        open_model(tmp_path / "m.pb", trust=True)


def test_operators_that_are_refused_exist() -> None:
    """But for those that only TensorFlow's own Python makes, or that are in a library of their own."""
    known = set(tf.raw_ops.__dict__)
    assert {"ReadFile", "WriteFile", "MatchingFiles", "PyFunc", "EagerPyFunc", "PrintV2", "TextLineDataset"} <= known
    assert len(REACHES_OUT - known) < len(REACHES_OUT) / 4, sorted(REACHES_OUT - known)
    assert {"SaveV2", "RestoreV2", "MergeV2Checkpoints"} <= CHECKPOINTS & known


def test_the_command_line_says_so_and_no_run_can(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = frozen(tmp_path, lambda x: tf.linalg.matmul(with_file(x, "nothing"), tf.ones((2, 3))))
    assert main(["inspect", str(path)]) == 2
    assert "ReadFile ('ReadFile'); cut them off" in capsys.readouterr().err
    assert main(["inspect", str(path), "--trust-model"]) == 0
    request = SearchRequest(model=path, data="d.npz", trust_model=True)
    assert "trust_model" not in request.as_table()
    assert not SearchRequest.from_table({**request.as_table(), "trust_model": True}, "run.toml").trust_model
    assert SearchRequest.from_table(request.as_table(), "run.toml", trust_model=True).trust_model
