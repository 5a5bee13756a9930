"""Lookup tables as constants: in a plain session the graph gives what the table gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorflow.core.protobuf import meta_graph_pb2

from autoquant.errors import ModelError
from autoquant.model.graph import Graph
from autoquant.model.open import model_digest, open_model
from autoquant.model.tables import FILLING, Table, with_constant_tables

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
WORDS = ["cat", "dog", "", "Zürich", "a\0b", "dog "]
ASKED = np.array([["dog", "cow", "cat"], ["", "Zürich", "dog "], ["a\0b", "a", "DOG"]], object)


def static(keys: Any, values: Any, default: Any) -> Any:
    import tensorflow as tf

    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), default)


def saved(folder: Path, function: Callable[[Any], Any], spec: Any, **held: Any) -> Path:
    """A SavedModel of a function, which holds what the function looks up."""
    import tensorflow as tf

    module = tf.Module()
    for name, value in held.items():
        setattr(module, name, value)
    traced = tf.function(lambda x: {"y": function(x)}).get_concrete_function(spec)
    tf.saved_model.save(module, str(folder), signatures=traced)
    return folder


@pytest.mark.parametrize(
    ("keys", "values", "default", "asked"),
    [
        (WORDS, np.arange(6, dtype=np.int64), np.int64(-1), ASKED),
        (WORDS, np.linspace(0, 1, 6, dtype=np.float32), np.float32(7), ASKED),
        (WORDS, [word[::-1] for word in WORDS], "none", ASKED),
        (
            np.array([5, -(2**62), 2**40, 0], np.int64),
            np.array([1, 2, 3, 4], np.int64),
            np.int64(0),
            np.array([[0, 5, 2**40, -(2**62), 2**63 - 1, -(2**63), 1]], np.int64),
        ),
        (np.array([3, 1], np.int32), np.array([1.5, 2.5], np.float32), np.float32(-1), np.array([1, 2, 3], np.int32)),
        (["only"], np.array([4], np.int64), np.int64(-1), np.array(["only", "other"], object)),
    ],
    ids=["ids", "floats", "words", "int64", "int32", "one"],
)
def test_a_static_table(
    keys: Any, values: Any, default: Any, asked: Any, tmp_path: Path, run: Callable[..., list[Any]]
) -> None:
    import tensorflow as tf

    table = static(keys, values, default)
    spec = tf.TensorSpec([None] * asked.ndim, tf.constant(asked).dtype, "x")
    model = open_model(saved(tmp_path / "m", table.lookup, spec, table=table))
    assert not {"LookupTableFindV2", "HashTableV2"} & {node.op for node in model.graph.nodes.values()}
    (found,) = run(model.graph, {"x": asked})
    np.testing.assert_array_equal(found, table.lookup(tf.constant(asked)).numpy())
    (empty,) = run(model.graph, {"x": asked[:0]})
    assert empty.shape == asked[:0].shape


def test_a_table_that_was_filled_before_it_was_saved(tmp_path: Path, run: Callable[..., list[Any]]) -> None:
    import tensorflow as tf

    table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
    table.insert(tf.constant(["a", "b"]), tf.constant([10, 20], tf.int64))
    path = saved(tmp_path / "m", table.lookup, tf.TensorSpec([None], tf.string, "x"), table=table)
    assert run(open_model(path).graph, {"x": ["b", "c", "a"]})[0].tolist() == [20, -1, 10]


def test_a_vocabulary_in_a_file_with_buckets_for_other_words(tmp_path: Path, run: Callable[..., list[Any]]) -> None:
    """StaticVocabularyTable hashes other words into buckets behind its size, which is looked up too."""
    import tensorflow as tf

    (tmp_path / "words.txt").write_text("one\ntwo\nthree\n")
    filled = tf.lookup.TextFileInitializer(
        str(tmp_path / "words.txt"), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, -1
    )
    table = tf.lookup.StaticVocabularyTable(filled, 4)
    path = saved(tmp_path / "m", table.lookup, tf.TensorSpec([None], tf.string, "x"), table=table)
    (tmp_path / "words.txt").unlink()
    words = np.array(["three", "four", "one", "five", ""], object)
    model = open_model(path)
    np.testing.assert_array_equal(run(model.graph, {"x": words})[0], table.lookup(tf.constant(words)).numpy())
    (asset,) = (path / "assets").iterdir()
    asset.write_text("one\ntwo\nfour\n")
    assert model_digest(path) != model.digest


def graph_of_tensorflow_1() -> Any:
    """A graph with a table, and the operator that fills it."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        table = static(["a", "b"], np.array([3, 4], np.int64), np.int64(0))
        x = tf.compat.v1.placeholder(tf.string, [None], name="x")
        tf.cast(table.lookup(x), tf.float32, name="y")
    return graph


def test_a_saved_model_of_tensorflow_1(tmp_path: Path, run: Callable[..., list[Any]]) -> None:
    import tensorflow as tf

    v1 = tf.compat.v1
    graph = graph_of_tensorflow_1()
    with graph.as_default(), v1.Session() as session:
        filling = v1.tables_initializer()
        session.run(filling)
        signature = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/classify")
        signature.inputs["inputs"].CopyFrom(meta_graph_pb2.TensorInfo(name="x:0", dtype=7))
        signature.outputs["scores"].CopyFrom(meta_graph_pb2.TensorInfo(name="y:0", dtype=1))
        builder = v1.saved_model.Builder(str(tmp_path / "m"))
        builder.add_meta_graph_and_variables(session, ["train"], {}, main_op=filling)
        builder.add_meta_graph(["serve"], {"serving_default": signature})  # the graph knows its main operator now
        builder.save()
    assert run(open_model(tmp_path / "m").graph, {"inputs": ["b", "x"]})[0].tolist() == [4.0, 0.0]


def test_a_frozen_graph_has_the_operators_that_fill_its_table_or_is_refused(
    tmp_path: Path, run: Callable[..., list[Any]]
) -> None:
    graph = graph_of_tensorflow_1()
    graph_def = graph.as_graph_def()
    path = tmp_path / "m.pb"
    path.write_bytes(graph_def.SerializeToString())
    assert run(open_model(path).graph, {"x": ["b", "x"]})[0].tolist() == [4.0, 0.0]
    kept = [node for node in graph_def.node if node.op not in FILLING]
    del graph_def.node[:]
    graph_def.node.extend(kept)
    path.write_bytes(graph_def.SerializeToString())
    with pytest.raises(
        ModelError, match=r"the content of its lookup table '.*' is not in the file; give the SavedModel"
    ):
        open_model(path)


def test_a_graph_whose_table_was_an_input_is_refused(tmp_path: Path, build: Callable[..., Graph]) -> None:
    """As the standard way of freezing leaves the tables of Keras."""
    import tensorflow as tf

    def write() -> None:
        handle = tf.compat.v1.placeholder(tf.resource, [], name="table")
        x = tf.compat.v1.placeholder(tf.string, [None], name="x")
        tf.raw_ops.LookupTableFindV2(table_handle=handle, keys=x, default_value=np.float32(1), name="y")

    (tmp_path / "m.pb").write_bytes(build(write).to_graph_def().SerializeToString())
    with pytest.raises(ModelError, match="the content of its lookup table 'table' is not in the file; give the SavedM"):
        open_model(tmp_path / "m.pb")


def test_a_table_in_a_loop_is_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    table = static(["a"], np.array([1.0], np.float32), np.float32(0))
    spec = tf.TensorSpec([None], tf.string, "x")

    def looped(x: Any) -> Any:
        return tf.map_fn(table.lookup, x, fn_output_signature=tf.float32)

    with pytest.raises(ModelError, match=r"is a lookup table .* loop or condition\); look up constants"):
        open_model(saved(tmp_path / "m", looped, spec, table=table))


def test_an_empty_table_gives_its_default_and_vectors_are_refused(
    build: Callable[..., Graph], run: Callable[..., list[Any]]
) -> None:
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.string, [None, 2], name="x")
        handle = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64)
        tf.raw_ops.LookupTableFindV2(table_handle=handle, keys=x, default_value=tf.constant(9, tf.int64), name="y")

    graph = build(write)
    none = Table(np.zeros(0, object), np.zeros(0, np.int64))
    (found,) = run(with_constant_tables(graph, lambda *_: none), {"x": [["a", "b"]]})
    assert found.tolist() == [[9, 9]]
    with pytest.raises(ModelError, match="y: looks up vectors in a table"):
        with_constant_tables(graph, lambda *_: Table(np.array([b"a"], object), np.zeros((1, 3))))
