import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from networks import without_warnings_of_keras

from autoquant import api
from autoquant.cli.inspect import facts, text
from autoquant.cli.main import main
from autoquant.errors import UsageError
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.graph import LiteGraph

# Two 3 x 3 convolutions over 6 x 6 pixels, 2 to 4 and 4 to 4 channels, then 4 x 3.
MACS = [36 * 9 * 2 * 4, 36 * 9 * 4 * 4, 12]


@pytest.fixture(scope="session")
def converted(files: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a .tflite."""
    program = api.inspect(files.model, target="litert").model.program
    assert isinstance(program, LiteGraph)
    path = tmp_path_factory.mktemp("lite") / "tiny.tflite"
    path.write_bytes(program.content)
    return path


def test_which_layers_became_which_operators(files: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(files.model), "--target", "litert"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][:5] == ["layer", "operator", "in", "LiteRT", "weight"]
    assert lines[1][:7] == ["conv1", "Conv2D", "CONV_2D", "0", "4x3x3x2", "1x6x6x4", "2,592"]
    assert lines[3][:7] == ["fc", "MatMul", "FULLY_CONNECTED", "3", "3x4", "1x3", "12"]


def test_json_names_the_operators_too(files: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(files.model), "--target", "litert", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [layer["macs"] for layer in told["layers"]] == MACS
    assert [layer["litert"]["index"] for layer in told["layers"]] == [0, 1, 3]
    assert told["layers"][2]["litert"] == {"kind": "FULLY_CONNECTED", "index": 3, "result": "fc"}
    assert told["outputs"] == [{"name": "fc", "dtype": "float32", "shape": [None, 3]}]


def test_inputs_and_outputs_of_the_converted_file_are_shown(files: Any) -> None:
    lines = [line.split() for line in text(api.inspect(files.model, target="litert"), columns=None).splitlines()]
    assert ["x", "float32", "?x6x6x2"] in lines
    assert ["fc", "float32", "?x3"] in lines


def test_without_it_nothing_is_said_of_litert(files: Any) -> None:
    assert not any("litert" in layer for layer in facts(api.inspect(files.model))["layers"])
    assert "LiteRT" not in text(api.inspect(files.model), columns=None)
    assert facts(api.inspect(files.model, target="tensorflow")) == facts(api.inspect(files.model))


def test_a_tflite_is_for_litert(converted: Path) -> None:
    found = facts(api.inspect(converted))
    assert [layer["macs"] for layer in found["layers"]] == MACS
    assert [layer["op"] for layer in found["layers"]] == ["Conv2D", "Conv2D", "MatMul"]
    assert [layer["name"] for layer in found["layers"]] == [layer["litert"]["result"] for layer in found["layers"]]
    assert found["inputs"] == [{"name": "x", "dtype": "float32", "shape": (None, 6, 6, 2)}]
    narrow = " ".join(text(api.inspect(converted), columns=50).split())
    assert "operator Conv2D, in LiteRT CONV_2D 0, weight 4x3x3x2, output 1x6x6x4, multiply-adds 2,592, " in narrow
    with pytest.raises(UsageError, match="of which --target tensorflow can make nothing"):
        api.inspect(converted, target="tensorflow")


def test_tensorflow_is_not_loaded_for_a_tflite(converted: Path, python: Callable[..., CompletedProcess[str]]) -> None:
    code = "import sys; from autoquant.cli.main import main; main(); assert 'tensorflow' not in sys.modules"
    done = python("-c", code, "inspect", str(converted))
    assert done.returncode == 0, done.stderr
    assert "3 layers can be quantized" in done.stdout


def test_one_of_several_signatures(converted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = flatbuffer.read(converted.read_bytes())
    first = model.signatureDefs[0]
    flatbuffer.add_signature(model, ["image"], ["scores"], key="other")
    model.signatureDefs.insert(0, first)
    path = tmp_path / "two.tflite"
    path.write_bytes(flatbuffer.write(model))
    assert main(["inspect", str(path)]) == 2
    assert "has several signatures: serving_default, other; choose one with --signature" in capsys.readouterr().err
    assert main(["inspect", str(path), "--signature", "other", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["inputs"][0]["name"], told["outputs"][0]["name"]) == ("image", "scores")


def test_operators_that_cannot_be_int8_on_litert_and_why(tmp_path: Path) -> None:
    import tensorflow as tf

    rng = np.random.default_rng(0)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, 4, 4, 4, 1], name="x")
        t = tf.nn.conv3d(x, tf.constant(rng.normal(size=(3, 3, 3, 1, 2)), tf.float32), [1] * 5, "SAME", name="volume")
        tf.linalg.matmul(tf.reshape(t, (-1, 128)), tf.constant(rng.normal(size=(128, 3)), tf.float32), name="fc")
    (tmp_path / "volume.pb").write_bytes(graph.as_graph_def().SerializeToString())
    found = api.inspect(tmp_path / "volume.pb", target="litert")
    assert [layer.name for layer in found.survey.layers] == ["fc"]
    told = [(one["name"], one["op"], one["reason"]) for one in facts(found)["rejected"]]
    assert told == [("volume", "Conv3D", "LiteRT has no INT8 kernel for it")]
    assert "LiteRT has no INT8 kernel for it" in text(found, columns=None)


@pytest.mark.parametrize(("batch", "told"), [(1, "one by one"), (4, "4 at once"), (None, None)])
def test_a_fixed_batch_is_told(batch: int | None, told: str | None, tmp_path: Path) -> None:
    import keras

    image = keras.Input((4,), batch_size=batch, name="x")
    with without_warnings_of_keras():
        keras.Model(image, keras.layers.Dense(2)(image)).save(tmp_path / "m.keras")
        *_, last = text(api.inspect(tmp_path / "m.keras", target="litert"), columns=None).splitlines()
    expected = f"the batch of the .tflite is fixed at {batch}: samples are run {told}"
    assert last == expected if told else "1 layer can be quantized" in last
