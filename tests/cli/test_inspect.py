from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_files import Files

from autoquant import api
from autoquant.cli.inspect import facts, text
from autoquant.cli.main import main

# Two 3 x 3 convolutions over 6 x 6 pixels, 2 to 4 and 4 to 4 channels, then 4 x 3.
MACS = [36 * 9 * 2 * 4, 36 * 9 * 4 * 4, 12]
PARAMETERS = [72, 144, 12]


def test_table_has_every_layer_and_the_totals(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(files.model)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["layer", "operator", "weight", "output", "multiply-adds", "share", "parameters"]
    assert lines[1] == ["conv1", "Conv2D", "3x3x2x4", "1x6x6x4", "2,592", "33.3%", "72"]
    assert lines[2] == ["conv2", "Conv2D", "3x3x4x4", "1x6x6x4", "5,184", "66.6%", "144"]
    assert lines[3] == ["fc", "MatMul", "4x3", "1x3", "12", "0.2%", "12"]
    assert " ".join(lines[-1]).startswith("tiny: 3 layers can be quantized, 7,788 multiply-adds, 228 parameters;")


def test_json_has_the_same_in_numbers(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(files.model), "--json", "--outputs", "fc"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [layer["macs"] for layer in told["layers"]] == MACS
    assert [layer["parameters"] for layer in told["layers"]] == PARAMETERS
    assert sum(layer["share"] for layer in told["layers"]) == pytest.approx(1.0)
    assert (told["macs"], told["parameters"]) == (sum(MACS), sum(PARAMETERS))
    assert told["outputs"] == [{"name": "fc", "dtype": "float32", "shape": [None, 3]}]
    assert told["tensors"] == []
    assert told["inputs"] == [{"name": "x", "dtype": "float32", "shape": [None, 6, 6, 2]}]


def test_inputs_and_outputs_are_shown(files: Files) -> None:
    lines = [line.split() for line in text(api.inspect(files.model, outputs=["fc"]), columns=None).splitlines()]
    begin = lines.index(["input", "type", "shape"])
    shown = [["x", "float32", "?x6x6x2"], [], ["output", "type", "shape"], ["fc", "float32", "?x3"], []]
    assert lines[begin + 1 : -1] == shown


def test_values_that_are_fed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        x, rate = (tf.compat.v1.placeholder(tf.float32, shape, name=n) for n, shape in (("x", (None, 4)), ("rate", ())))
        tf.linalg.matmul(x * rate, tf.ones([4, 2]), name="y")
    (tmp_path / "m.pb").write_bytes(graph.as_graph_def().SerializeToString())
    assert main(["inspect", str(tmp_path / "m.pb")]) == 0
    assert ["rate", "float32", "scalar"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    assert main(["inspect", str(tmp_path / "m.pb"), "--feed", "rate=0.5", "--json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)["inputs"]] == ["x"]
    assert main(["inspect", str(tmp_path / "m.pb"), "--feed", "rate=half"]) == 2
    assert "--feed rate: cannot read 'half' as float32; give a number" in " ".join(capsys.readouterr().err.split())


def test_on_a_narrow_screen_every_layer_is_a_paragraph(files: Files) -> None:
    words = " ".join(text(api.inspect(files.model), columns=50).split())
    assert words.startswith(
        "layer conv1 operator Conv2D, weight 3x3x2x4, output 1x6x6x4, multiply-adds 2,592, share 33.3%, parameters 72 "
    )


@pytest.fixture(scope="session")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A convolution, `adds` additions of its result and its input, a max pool and an average pool."""
    import tensorflow as tf

    def make(adds: int) -> Path:
        with tf.Graph().as_default() as graph:
            x = tf.compat.v1.placeholder(tf.float32, [None, 4, 4, 2], name="x")
            t = tf.nn.conv2d(x, tf.ones([1, 1, 2, 2]), 1, "SAME", name="conv")
            for number in range(adds):
                t = tf.raw_ops.AddV2(x=t, y=x, name=f"add{number}")
            t = tf.nn.avg_pool2d(t, 2, 2, "SAME", name="average")
            tf.nn.max_pool2d(t, 2, 2, "SAME", name="pool")
        path = tmp_path_factory.mktemp("pools") / "pools.pb"
        path.write_bytes(graph.as_graph_def().SerializeToString())
        return path

    return make


def test_layers_without_weight_and_tensors_that_are_float_by_default(pools: Callable[..., Path]) -> None:
    found = api.inspect(pools(1))
    wide = [line.split() for line in text(found, columns=200).splitlines()]
    assert ["average", "AvgPool", "-", "1x2x2x2", "32", "33.3%", "0"] in wide
    begin = wide.index(["not", "quantized", "by", "default", "operator"])
    assert wide[begin + 1 : begin + 4] == [["add0:0", "AddV2"], ["add0:1", "AddV2"], ["pool:0", "MaxPool"]]
    assert wide[begin + 4][:3] == ["to", "quantize", "these,"]
    assert wide[-1][:5] == ["pools:", "2", "layers", "can", "be"]
    assert " ".join(wide[-1]).endswith("96 multiply-adds, 4 parameters; 0 operators cannot")
    told = facts(found)
    assert told["tensors"] == [
        {"name": "add0:0", "op": "AddV2", "reads": "conv"},
        {"name": "add0:1", "op": "AddV2", "reads": "x"},
        {"name": "pool:0", "op": "MaxPool", "reads": "average"},
    ]
    assert [layer["weight_shape"] for layer in told["layers"]] == [(1, 1, 2, 2), None]


def test_of_many_additions_the_first_are_shown_and_all_are_in_json(pools: Callable[..., Path]) -> None:
    found = api.inspect(pools(10))
    assert len(facts(found)["tensors"]) == 21
    lines = [line.split() for line in text(found, columns=None).splitlines()]
    (cut,) = (number for number, line in enumerate(lines) if line[:1] == ["..."])
    assert [line[0] for line in lines[cut - 8 : cut]] == [f"add{n}:{i}" for n in range(4) for i in (0, 1)]
    assert lines[cut][1:4] == ["and", "13", "more,"]


def test_rejected_operators_are_listed_with_the_reason(tmp_path: Path) -> None:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, None], name="x")
        y = tf.linalg.matmul(x, tf.ones([4, 4]), name="first")
        tf.linalg.matmul(y, tf.transpose(y), name="product")
    (tmp_path / "odd.pb").write_bytes(graph.as_graph_def().SerializeToString())
    found = api.inspect(tmp_path / "odd.pb")
    for columns in (None, 50):
        shown = text(found, columns=columns)
        assert "not quantizable" in shown
        assert "product" in shown
        assert "is not constant" in shown
    assert [one["name"] for one in facts(found)["rejected"]] == ["product"]


def test_shares_are_of_all_that_computes(tmp_path: Path) -> None:
    """Of 22 operators that cannot be quantized one multiplies: 48 * 4 beside 16 * 4 of the only layer."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 4, 4, 4], name="x")
        t = tf.nn.conv2d(x, tf.ones([1, 1, 4, 1]), 1, "SAME", name="layer")
        for number in range(21):
            t = tf.nn.max_pool3d(t[:, None], 1, 1, "SAME", name=f"pool{number}")[:, 0]
        wide = tf.nn.conv2d(tf.cast(x, tf.double), tf.ones([1, 1, 4, 3], tf.double), 1, "SAME", name="wide")
        tf.concat([t, tf.cast(wide, tf.float32)], 3, name="y")
    (tmp_path / "wide.pb").write_bytes(graph.as_graph_def().SerializeToString())
    found = api.inspect(tmp_path / "wide.pb")
    lines = [line.split() for line in text(found, columns=None).splitlines()]
    assert ["layer", "Conv2D", "1x1x4x1", "1x4x4x1", "64", "25.0%", "4"] in lines
    assert ["wide", "Conv2D", "computes", "in", "double,", "not", "in", "float", "192"] in lines
    assert ["...", "and", "2", "more,", "which", "--json", "lists"] in lines
    assert " ".join(lines[-1]) == (
        "wide: 1 layer can be quantized, with 64 of 256 multiply-adds (25.0%), 4 parameters; 22 operators cannot"
    )
    told = facts(found)
    assert (told["macs"], told["layers"][0]["share"], len(told["rejected"])) == (256, 0.25, 22)
    assert {one["macs"] for one in told["rejected"]} == {0, 192}
