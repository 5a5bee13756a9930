"""`autoquant calibration`, with the arguments of AMCT's command."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cli_files import Files

from autoquant.amct.logs import NAME
from autoquant.cli.main import main
from autoquant.formats.record_text import load_record

EVALUATOR = """
import numpy as np
import tensorflow as tf

class Evaluator:
    def calibration(self, graph, outputs):
        images = np.load({data!r})["x"]
        with graph.as_default(), tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            for batch in np.split(images, {batches}):
                session.run(outputs, {{"x:0": batch}})

evaluator = Evaluator()
"""


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    yield
    logging.getLogger(NAME).handlers.clear()


@pytest.fixture
def bins(files: Files) -> Path:
    """A folder of two batches of ten images; the file that comes last in the folder comes first by name."""
    folder = Path("bins")
    folder.mkdir()
    images = np.load(files.calibration)["x"]
    for name, batch in (("b.bin", images[10:]), ("a.bin", images[:10])):
        batch.tofile(folder / name)
    return folder


def evaluator(files: Files, *, batches: int = 2) -> str:
    Path("my_evaluator.py").write_text(EVALUATOR.format(data=str(files.calibration), batches=batches))
    return "my_evaluator.py"


def test_a_training_switch_is_given(tmp_path: Path, bins: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without it the input that data does not give is named."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 6, 6, 2), name="x")
        training = tf.compat.v1.placeholder(tf.bool, (), name="is_training")
        t = tf.nn.conv2d(x, np.ones((3, 3, 2, 4), np.float32), 1, "SAME", name="conv")
        tf.nn.relu(tf.cond(training, lambda: t + 1, lambda: 2 * t), name="y")
    (tmp_path / "m.pb").write_bytes(graph.as_graph_def().SerializeToString())
    words = ["calibration", "--model", str(tmp_path / "m.pb"), "--save_path", "out/net", "--outputs", "y:0"]
    words += ["--input_shape", "x:10,6,6,2", "--data_dir", f"{bins}/", "--data_types", "float32"]
    assert main([*words, "--feed", "is_training=false"]) == 0
    assert list(load_record(Path("out/net_record.txt"))) == ["conv"]
    saved = tf.compat.v1.GraphDef.FromString(Path("out/net_quantized.pb").read_bytes())
    assert not {"If", "StatelessIf"} & {node.op for node in saved.node}
    capsys.readouterr()
    assert main(words) == 2
    assert "is_training" in capsys.readouterr().err


def test_a_model_that_reaches_files_is_to_be_trusted(
    bins: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 6, 6, 2), name="x")
        tf.nn.relu(tf.nn.conv2d(x, np.ones((3, 3, 2, 4), np.float32), 1, "SAME", name="conv"), name="y")
        tf.io.write_file(str(tmp_path / "written"), "by the model")
    (tmp_path / "m.pb").write_bytes(graph.as_graph_def().SerializeToString())
    words = ["calibration", "--model", str(tmp_path / "m.pb"), "--save_path", "out/net", "--outputs", "y:0"]
    words += ["--input_shape", "x:10,6,6,2", "--data_dir", f"{bins}/", "--data_types", "float32"]
    assert main(words) == 2
    assert "WriteFile" in capsys.readouterr().err
    assert main([*words, "--trust-model"]) == 0
    assert main(["convert", *words[1:7]]) == 2
    assert "WriteFile" in capsys.readouterr().err
    assert main(["convert", *words[1:7], "--trust-model"]) == 2
    assert "has no FakeQuant operator" in capsys.readouterr().err
    assert not (tmp_path / "written").exists()


def test_raw_data_is_calibrated_with_all_its_files(
    files: Files, bins: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["calibration", "--model", str(files.model), "--save_path", "out/net", "--outputs", "fc:0"]
    words += ["--input_shape", "x:10,6,6,2", "--data_dir", f"{bins}/", "--data_types", "float32"]
    assert main(words) == 0
    folder = Path("out").absolute()
    assert capsys.readouterr().out == (
        f"config  out/net_config.json\nrecord  out/net_record.txt\nmodel   {folder}/net_quantized.pb\n"
        f"mapping {folder}/net_quant.json\n"
    )
    assert json.loads(Path("out/net_config.json").read_text())["batch_num"] == 2
    record = load_record(Path("out/net_record.txt"))
    assert list(record) == ["conv1", "conv2", "fc"]
    assert main(["check", "out/net_quantized.pb"]) == 0

    # The same two batches, by an evaluator: the same record.
    again = ["calibration", f"--model={files.model}", "--save_path=again/net", "--outputs=fc:0"]
    assert main([*again, f"--evaluator={evaluator(files)}", "--batch_num=2"]) == 0
    assert load_record(Path("again/net_record.txt")) == record


def test_a_calibration_config_says_what_is_quantized_and_how(files: Files, bins: Path) -> None:
    Path("c.cfg").write_text("batch_num: 1 skip_layers: 'conv2'")
    words = ["calibration", "--model", str(files.model), "--save_path", "net", "--outputs", "fc:0"]
    words += ["--input_shape=x:10,6,6,2", f"--data_dir={bins}", "--data_type=float32", "--calibration_config=c.cfg"]
    assert main([*words, "--without-simulation"]) == 0
    assert list(load_record(Path("net_record.txt"))) == ["conv1", "fc"]
    assert json.loads(Path("net_config.json").read_text())["batch_num"] == 1


def call(files: Files, name: str, *words: str) -> int:
    raw = ["--input_shape=x:10,6,6,2", "--data_dir=bins", "--data_types=float32"]
    return main(["calibration", f"--model={files.model}", "--outputs=fc:0", f"--save_path={name}", *raw, *words])


def test_calls_with_different_save_paths_leave_each_others_files_alone(files: Files, bins: Path) -> None:
    for name in ("config.json", "record.txt"):
        Path(name).write_text("of another tool")
    assert call(files, "one") == 0
    made = {path: path.read_bytes() for path in Path.cwd().iterdir() if path.is_file()}
    assert {path.name for path in made} >= {"one_config.json", "one_record.txt", "one_quantized.pb", "one_quant.json"}
    assert call(files, "two", "--batch_num=1") == 0
    assert {path: path.read_bytes() for path in made} == made
    assert call(files, "one", "--batch_num=1") == 0  # its own, which it replaces
    assert Path("one_record.txt").read_bytes() == Path("two_record.txt").read_bytes()


@pytest.mark.parametrize("name", ["net_config.json", "net_record.txt"])
def test_a_config_or_record_of_another_is_not_overwritten(
    files: Files, bins: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    Path(name).write_text("mine")
    Path("net_quantized.pb").write_text("mine")
    assert call(files, "net") == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"{name}: is there already, and not with a config, a record and a model of this save_path; give" in said
    assert {path.name for path in Path.cwd().glob("net_*")} == {name, "net_quantized.pb"}
    assert {path.read_text() for path in Path.cwd().glob("net_*")} == {"mine"}


def test_where_a_call_fails_config_and_record_are_what_they_were(files: Files, bins: Path) -> None:
    words = ["calibration", f"--model={files.model}", "--outputs=fc:0", "--save_path=net", "--batch_num=3"]
    failing = [*words, f"--evaluator={evaluator(files)}"]  # which has two batches
    assert main(failing) == 2
    assert not list(Path.cwd().glob("net*"))
    assert call(files, "net") == 0
    made = {path: path.read_bytes() for path in Path.cwd().glob("net*")}
    assert main(failing) == 2
    assert {path: path.read_bytes() for path in Path.cwd().glob("net*")} == made


def test_an_evaluator_made_for_amct_runs_unchanged(files: Files, bins: Path) -> None:
    """It reads data as AMCT's command line does, and has names of TensorFlow 1; the graph is the default one."""
    Path("amct_evaluator.py").write_text("""
import amct_tensorflow.common.cmd_line_utils.data_handler as data_handler
import tensorflow as tf

class Evaluator():
    def calibration(self, graph, outputs):
        with tf.Session(config=tf.ConfigProto(allow_soft_placement=True)) as session:
            session.run(tf.global_variables_initializer())
            for batch in data_handler.load_data({'x:0': [10, 6, 6, 2]}, ['./bins'], ['float32'], 2):
                session.run(outputs, feed_dict=batch)

evaluator = Evaluator()
""")
    words = ["calibration", "--model", str(files.model), "--outputs=fc:0", "--save_path=own", "--batch_num=2"]
    assert main([*words, "--evaluator=amct_evaluator.py"]) == 0
    assert call(files, "raw") == 0
    assert Path("own_record.txt").read_bytes() == Path("raw_record.txt").read_bytes()


MODEL = ["--model", "{model}", "--save_path", "net", "--outputs", "fc:0"]
RAW = ["--input_shape", "x:10,6,6,2", "--data_dir", "bins", "--data_types", "float32"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*MODEL], "--input_shape, --data_dir, --data_types: are missing; give all three, or an --evaluator"),
        ([*MODEL, *RAW[:4]], "--data_types: is missing; give all three"),
        (
            [*MODEL, *RAW[:2], "--evaluator", "{evaluator}"],
            "--evaluator: excludes --input_shape; give the evaluator, or the data, not both",
        ),
        ([*MODEL[:4], *RAW], "the following arguments are required: --outputs"),
        ([*MODEL, *RAW, "--batch_num", "3"], "bins: holds 2 files, but batch_num is 3; give more files"),
        ([*MODEL, *RAW, "--batch_num", "0"], "batch_num must be greater than zero, got 0"),
        (
            [*MODEL, *RAW, "--batch_num", "2", "--calibration_config", "c.cfg"],
            "--batch_num: is 2, but c.cfg says 1; give it in one of the two",
        ),
        ([*MODEL[:4], "--outputs", "fcc:0", *RAW], "fcc: no such output in the graph; did you mean 'fc'"),
        ([*MODEL, "--input_shape", "y:10,6,6,2", *RAW[2:]], "the graph has no input 'y'"),
        (["--model", "none.pb", *MODEL[2:], *RAW], "none.pb: there is no such file"),
        ([*MODEL, "--evaluator", "none.py"], "there is no file none.py"),
        ([*MODEL, "--evaluator", "{evaluator}", "--batch_num", "3"], "waiting for conv1, conv2, fc: 2 of 3 passes"),
    ],
)
def test_unusable_input_ends_with_a_sentence(
    files: Files, bins: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    Path("c.cfg").write_text("batch_num: 1")
    given = {"{model}": str(files.model), "{evaluator}": evaluator(files)}
    assert main(["calibration", *(given.get(word, word) for word in words)]) == 2
    captured = capsys.readouterr()
    assert message in " ".join(captured.err.split())
    assert "Traceback" not in captured.err
    assert captured.out == ""
