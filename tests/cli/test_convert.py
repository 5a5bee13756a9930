"""`autoquant convert`, with the arguments of AMCT's command."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cli_files import Files

from autoquant.amct.logs import NAME
from autoquant.cli.main import main


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    yield
    logging.getLogger(NAME).handlers.clear()


@pytest.fixture
def trained() -> Path:
    import tensorflow as tf

    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, (None, 4), name="x")
        weight = tf.quantization.fake_quant_with_min_max_vars(np.eye(4, dtype=np.float32), -1.0, 1.0, narrow_range=True)
        tf.matmul(tf.quantization.fake_quant_with_min_max_args(x), weight, name="y")
    Path("qat.pb").write_bytes(graph.as_graph_def().SerializeToString())
    return Path("qat.pb")


def test_a_trained_model_is_converted(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "--model", str(trained), "--save_path=out/net", "--outputs=y:0"]) == 0
    folder = Path("out").absolute()
    told = f"model   {folder}/net_quantized.pb\nmapping {folder}/net_quant.json\n"
    assert capsys.readouterr().out == told
    assert (folder / "net_quantized.pb").is_file()


def test_functions_can_be_left_out(trained: Path) -> None:
    words = ["convert", "--model", str(trained), "--outputs", "y:0", "--save_path"]
    assert main([*words, "with"]) == main([*words, "without", "--without-simulation"]) == 0
    assert len(Path("without_quantized.pb").read_bytes()) < len(Path("with_quantized.pb").read_bytes())


def test_a_training_switch_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    import tensorflow as tf

    graph = tf.Graph()
    with graph.as_default():
        x, training = tf.compat.v1.placeholder(tf.float32, (None, 4), name="x"), tf.compat.v1.placeholder(tf.bool, ())
        given = tf.cond(training, lambda: x + 1, lambda: x)
        weight = tf.quantization.fake_quant_with_min_max_vars(np.eye(4, dtype=np.float32), -1.0, 1.0, narrow_range=True)
        tf.matmul(tf.quantization.fake_quant_with_min_max_args(given), weight, name="y")
    Path("qat.pb").write_bytes(graph.as_graph_def().SerializeToString())
    words = ["convert", "--model", "qat.pb", "--save_path=out/net", "--outputs=y:0"]
    assert main([*words, "--feed", "Placeholder=false"]) == 0
    saved = tf.compat.v1.GraphDef.FromString(Path("out/net_quantized.pb").read_bytes())
    assert not {"If", "StatelessIf", "Placeholder_1"} & {node.op for node in saved.node}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "{model}", "--save_path", "net"], "the following arguments are required: --outputs"),
        (["--model", "{float}", "--save_path", "net", "--outputs", "fc:0"], "has no FakeQuant operator"),
        (["--model", "{model}", "--save_path", "net", "--outputs", "z:0"], "z:0: no such output in the graph"),
    ],
)
def test_unusable_input_ends_with_a_sentence(
    files: Files, trained: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    given = {"{model}": str(trained), "{float}": str(files.model)}
    assert main(["convert", *(given.get(word, word) for word in words)]) == 2
    captured = capsys.readouterr()
    assert message in " ".join(captured.err.split())
    assert captured.out == ""
