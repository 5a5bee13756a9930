"""Graphs cut where LiteRT can go on: the halves together compute what the whole does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autoquant.errors import ModelError
from autoquant.model.front import NOT_IN_LITERT, cut_front
from autoquant.model.graph import Graph

RNG = np.random.default_rng(0)
EMBEDDING = RNG.normal(size=(7, 4)).astype(np.float32)
WORDS = np.array([["a", "b c", ""], ["b", "a", "zz"]], object)


def placeholder(name: str, shape: Any, dtype: str = "string") -> Any:
    import tensorflow as tf

    return tf.compat.v1.placeholder(dtype, shape, name=name)


def hashed(x: Any) -> Any:
    import tensorflow as tf

    return tf.strings.to_hash_bucket_fast(x, 7, name="hash")


def embedded() -> Any:
    import tensorflow as tf

    return tf.gather(EMBEDDING, hashed(placeholder("x", [None, 3])), name="y")


def padded() -> Any:
    """The sizes that the padding takes come from the hashes too: behind it one tensor does."""
    import tensorflow as tf

    ids = hashed(placeholder("x", [None, 3])) + 1
    ids = tf.pad(ids, [[0, 0], [0, 5 - tf.shape(ids)[1]]])
    return tf.gather(EMBEDDING, ids % 7, name="y")


def masked() -> Any:
    """What reads the hashes as a mask stays behind the cut, which would have two tensors else."""
    import tensorflow as tf

    ids = hashed(placeholder("x", [None, 3]))
    mask = tf.cast(tf.not_equal(ids, 0), tf.float32)
    return tf.multiply(tf.gather(EMBEDDING, ids), mask[..., None], name="y")


def beside_numbers() -> Any:
    import tensorflow as tf

    rows = tf.gather(EMBEDDING, hashed(placeholder("x", [None])))
    return tf.concat([rows, placeholder("n", [None, 2], "float32")], axis=1, name="y")


def read_twice() -> Any:
    """An integer that is counted, and read as it is too."""
    import tensorflow as tf

    n = placeholder("n", [None, 3], "int32")
    counts = tf.raw_ops.DenseBincount(input=n, size=7, weights=np.zeros(0, np.float32), binary_output=True)
    return tf.concat([counts, tf.cast(n, tf.float32)], axis=1, name="y")


def two_texts() -> Any:
    import tensorflow as tf

    first, second = placeholder("x", [None, 3]), placeholder("z", [None, 3])
    return tf.add(tf.gather(EMBEDDING, hashed(first)), tf.gather(EMBEDDING, hashed(second + first)), name="y")


@pytest.mark.parametrize(
    ("write", "feeds", "front", "rest"),
    [
        (embedded, {"x": WORDS}, ["x"], ["x_processed"]),
        (padded, {"x": WORDS}, ["x"], ["x_processed"]),
        (masked, {"x": WORDS}, ["x"], ["x_processed"]),
        (beside_numbers, {"x": WORDS[0], "n": RNG.normal(size=(3, 2))}, ["x"], ["n", "x_processed"]),
        (read_twice, {"n": [[0, 6, 6], [1, 2, 3]]}, ["n"], ["n", "n_processed"]),
        (two_texts, {"x": WORDS, "z": WORDS[::-1]}, ["x", "z"], ["x_processed", "inputs_processed"]),
    ],
)
def test_the_halves_compute_what_the_whole_does(
    write: Callable[[], Any],
    feeds: dict[str, Any],
    front: list[str],
    rest: list[str],
    build: Callable[..., Graph],
    run: Callable[..., list[Any]],
) -> None:
    graph = build(write, inputs=tuple(feeds))
    halves = cut_front(graph)
    assert halves is not None
    assert (list(halves.front.inputs), sorted(halves.rest.inputs)) == (front, sorted(rest))
    assert halves.rest.outputs == graph.outputs
    assert not NOT_IN_LITERT & {node.op for node in halves.rest.nodes.values()}
    made = dict(zip(halves.front.outputs, run(halves.front, {name: feeds[name] for name in front}), strict=True))
    given = {name: made.get(name, feeds.get(name)) for name in halves.rest.inputs}
    np.testing.assert_array_equal(run(halves.rest, given)[0], run(graph, feeds)[0])


def test_the_cut_keeps_shapes_and_what_may_be_quantized(build: Callable[..., Graph]) -> None:
    halves = cut_front(build(padded))
    assert halves is not None
    ops = {node.op for node in halves.rest.nodes.values()}
    assert ops == {"Const", "Placeholder", "GatherV2"}


def test_a_graph_that_litert_can_run_is_not_cut(build: Callable[..., Graph]) -> None:
    import tensorflow as tf

    assert cut_front(build(lambda: tf.nn.relu(placeholder("x", [None, 4], "float32"), name="y"))) is None


def late_text() -> Any:
    import tensorflow as tf

    scores = tf.matmul(placeholder("x", [None, 4], "float32"), EMBEDDING[:4])
    return tf.gather(["one", "two", "three", "four"], tf.argmax(scores, axis=1), name="y")


def text_between_layers() -> Any:
    import tensorflow as tf

    scores = tf.matmul(placeholder("x", [None, 4], "float32"), EMBEDDING[:4])
    ids = hashed(tf.strings.as_string(tf.argmax(scores, axis=1)))
    return tf.matmul(tf.gather(EMBEDDING, ids), EMBEDDING[:4], name="y")


def ragged() -> Any:
    import tensorflow as tf

    words = tf.strings.split(placeholder("x", [None]))
    rows = tf.gather(EMBEDDING, hashed(words.values))
    return tf.math.segment_sum(rows, words.value_rowids(), name="y")


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (ragged, "x: is ragged in front of the layers: a sample has any number of rows.*output_sequence_length"),
        (late_text, "y: is an output of text, .*; leave it out with --outputs, or choose --target tensorflow"),
        (text_between_layers, r"MatMul: is a layer \(MatMul\) in front of text, .*--outputs"),
    ],
)
def test_text_behind_layers_is_refused(write: Callable[[], Any], told: str, build: Callable[..., Graph]) -> None:
    with pytest.raises(ModelError, match=told):
        cut_front(build(write))
