import json

import pytest

from autoquant import api
from autoquant.cli.inspect import facts, text
from autoquant.cli.main import main

# Two 3 x 3 convolutions over 6 x 6 pixels, 2 to 4 and 4 to 4 channels, then 4 x 3.
MACS = [36 * 9 * 2 * 4, 36 * 9 * 4 * 4, 12]
PARAMETERS = [72, 144, 12]


def test_table_has_every_layer_and_the_totals(files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(files.model)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["layer", "operator", "weight", "output", "multiply-adds", "share", "parameters"]
    assert lines[1] == ["conv1", "Conv2D", "3x3x2x4", "1x6x6x4", "2,592", "33.3%", "72"]
    assert lines[2] == ["conv2", "Conv2D", "3x3x4x4", "1x6x6x4", "5,184", "66.6%", "144"]
    assert lines[3] == ["fc", "MatMul", "4x3", "1x3", "12", "0.2%", "12"]
    assert " ".join(lines[-1]).startswith("tiny: 3 layers can be quantized, 7,788 multiply-adds, 228 parameters;")


def test_json_has_the_same_in_numbers(files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(files.model), "--json", "--outputs", "fc"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [layer["macs"] for layer in told["layers"]] == MACS
    assert [layer["parameters"] for layer in told["layers"]] == PARAMETERS
    assert sum(layer["share"] for layer in told["layers"]) == pytest.approx(1.0)
    assert (told["macs"], told["parameters"], told["outputs"]) == (sum(MACS), sum(PARAMETERS), ["fc"])
    assert told["inputs"] == [{"name": "x", "dtype": "float32", "shape": [None, 6, 6, 2]}]


def test_a_narrow_screen_gets_two_lines_for_every_layer(files) -> None:
    lines = text(api.inspect(files.model), columns=50).splitlines()
    assert lines[:2] == ["conv1", "  Conv2D 3x3x2x4 -> 1x6x6x4, 2,592 multiply-adds (33.3%), 72 parameters"]


def test_what_cannot_be_quantized_is_listed_with_the_reason(tmp_path) -> None:
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
