"""The evaluator of raw files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoquant.amct.graph_evaluator import GraphEvaluator
from autoquant.errors import AutoquantError, DataError, UsageError


def write(folder: Path, *arrays: Any, names: Sequence[str] = "abc") -> Path:
    folder.mkdir(exist_ok=True)
    for name, array in zip(names, arrays, strict=False):
        array.tofile(folder / f"{name}.bin")
    return folder


def ones(count: int, kind: type = np.float32) -> list[Any]:
    return [np.full((2, 3), number, kind) for number in range(count)]


@pytest.fixture
def counting() -> tuple[Any, list[Any]]:
    """A graph `left` * `right` -> `product`, and what was run through it; a variable must be initialized."""
    import tensorflow as tf

    graph, seen = tf.Graph(), []
    with graph.as_default():
        left = tf.compat.v1.placeholder(tf.float32, (None, 3), name="left")
        right = tf.compat.v1.placeholder(tf.float64, (None, 3), name="right")
        scale = tf.compat.v1.get_variable("scale", initializer=1.0, use_resource=False)
        look = tf.numpy_function(lambda a, b: seen.append((a.copy(), b.copy())), [left, right], [])
        with tf.control_dependencies([look]):
            tf.multiply(left * scale, tf.cast(right, tf.float32), name="product")
        tf.identity(left * scale, name="half")
    return graph, seen


def test_every_file_is_run_once_in_the_order_of_names(tmp_path: Path, counting: tuple[Any, list[Any]]) -> None:
    graph, seen = counting
    rng = np.random.default_rng(3)
    lefts = rng.normal(size=(3, 2, 3)).astype(np.float32)
    rights = rng.normal(size=(3, 2, 3))
    write(tmp_path / "l", *lefts, names=["b10", "b2", "a"])  # in the order of names: a, b10, b2
    write(tmp_path / "r", *rights)
    (tmp_path / "l" / "notes.txt").write_text("not data")
    evaluator = GraphEvaluator(f"{tmp_path}/l/;{tmp_path}/r/", "left:2,3;right:0:2,3", "float32;float64")
    assert evaluator.batch_num == 3
    evaluator.calibration(graph, ["product:0"])
    expected = [(lefts[2], rights[0]), (lefts[0], rights[1]), (lefts[1], rights[2])]
    assert len(seen) == 3
    for (left, right), (wanted_left, wanted_right) in zip(seen, expected, strict=True):
        np.testing.assert_array_equal(left, wanted_left)
        np.testing.assert_array_equal(right, wanted_right)


def test_an_input_that_the_outputs_do_not_need_may_be_left_out(tmp_path: Path, counting: tuple[Any, list[Any]]) -> None:
    write(tmp_path / "l", *ones(2))
    GraphEvaluator(f"{tmp_path}/l", "left:0:2,3", "float32").calibration(counting[0], ["half:0"])


def test_an_input_that_is_not_fed(tmp_path: Path, counting: tuple[Any, list[Any]]) -> None:
    write(tmp_path / "l", *ones(2))
    evaluator = GraphEvaluator(f"{tmp_path}/l;", "left:2,3;", "float32;")
    with pytest.raises(UsageError, match="you must feed a value for placeholder tensor 'right'; add its shape"):
        evaluator.calibration(counting[0], ["product:0"])


def test_an_input_that_the_graph_does_not_have(tmp_path: Path, counting: tuple[Any, list[Any]]) -> None:
    write(tmp_path / "l", *ones(2))
    with pytest.raises(UsageError, match="the graph has no input 'lft'; did you mean 'left'"):
        GraphEvaluator(f"{tmp_path}/l", "lft:2,3", "float32").calibration(counting[0], ["half:0"])


def test_a_shape_that_the_graph_does_not_take(tmp_path: Path, counting: tuple[Any, list[Any]]) -> None:
    write(tmp_path / "l", *ones(2))
    with pytest.raises(UsageError, match=r"gives 'left' the shape \(3, 2\), but in the graph it has \(None, 3\); give"):
        GraphEvaluator(f"{tmp_path}/l", "left:3,2", "float32").calibration(counting[0], ["half:0"])


def test_it_cannot_evaluate(tmp_path: Path) -> None:
    evaluator = GraphEvaluator(str(write(tmp_path / "l", *ones(1))), "left:2,3", "float32")
    for call in (evaluator.evaluate, evaluator.metric_eval):
        with pytest.raises(UsageError, match=r"only calibrates.*; give an evaluator of your own"):
            call(None, [])


BAD = [
    ("{l};{l}", "left:2,3", "float32", UsageError, "names 1 inputs, data_dir 2 folders and data_types 1 types"),
    ("{l}", "left", "float32", UsageError, "input_shape: cannot read 'left'; give a name and positive sizes"),
    ("{l}", "left:2,-3", "float32", UsageError, "cannot read 'left:2,-3'"),
    ("{l}", "left:2,0", "float32", UsageError, "cannot read 'left:2,0'"),
    ("{l}", "left:", "float32", UsageError, "cannot read 'left:'"),
    ("{l}", ":2,3", "float32", UsageError, "cannot read ':2,3'"),
    ("{l}", "left:2,3", "flaot32", UsageError, "data_types: unknown 'flaot32'; did you mean 'float32'?"),
    ("{l};{l}", "left:2,3;left:2,3", "float32;float32", UsageError, "'left' appears twice"),
    ("{root}/nowhere", "left:2,3", "float32", DataError, "nowhere: there is no such folder"),
    ("{empty}", "left:2,3", "float32", DataError, "empty: holds no .bin file"),
    (
        "{l};{one}",
        "left:2,3;right:2,3",
        "float32;float32",
        DataError,
        "one: holds 1 files for 'right', but there are 2",
    ),
    (
        "{l}",
        "left:2,3",
        "float64",
        DataError,
        "l/a.bin: holds 24 bytes, but float64 of shape 2,3 for 'left' takes 48",
    ),
]


@pytest.mark.parametrize(("data", "shape", "kind", "error", "message"), BAD, ids=[row[-1][:50] for row in BAD])
def test_refused_input_is_named(
    tmp_path: Path, data: str, shape: str, kind: str, error: type[AutoquantError], message: str
) -> None:
    folders = {"l": write(tmp_path / "l", *ones(2)), "one": write(tmp_path / "one", *ones(1))}
    folders["empty"] = write(tmp_path / "empty")
    with pytest.raises(error) as caught:
        GraphEvaluator(data.format(root=tmp_path, **folders), shape, kind)
    assert message in str(caught.value)
    assert caught.value.hint
