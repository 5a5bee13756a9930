import json
from pathlib import Path

import numpy as np
import pytest

from autoquant.cli.main import main

KEYS = {
    "version", "verdict", "baseline", "score", "drop", "tolerance", "metric", "int8_layers", "layers", "int8_share",
    "trials", "best_trial", "evaluated_samples", "seconds", "ended", "model", "run", "share_of", "warnings",
    "objective", "boundaries", "latency", "verification", "score_tensorflow",
}  # fmt: skip


def search(files, *more: str) -> list[str]:
    """A search with mse: the labels are the model's own outputs, so only tolerances above 0 can be met."""
    words = ["search", str(files.model), "--data", str(files.data), "--calibration", str(files.calibration)]
    return [*words, "--metric", "mse", "--space", "quick", "--run", "run", *more]


def test_met_with_json_prints_one_object(files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(search(files, "--tolerance", "100", "--json", "--plain")) == 0
    captured = capsys.readouterr()
    facts = json.loads(captured.out)
    assert facts.keys() == KEYS
    assert (facts["verdict"], facts["int8_layers"], facts["layers"], facts["trials"]) == ("met", 3, 3, 1)
    assert Path(facts["model"]).is_file()
    assert "trial 0: mse" in captured.err


def test_missed_then_resumed_exported_and_applied(files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(search(files, "--tolerance", "0", "--max-trials", "2")) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("missed  best is mse ")
    assert "above the allowed ceiling of 0.0000" in captured.out
    for label in ("costly", "try", "next", "model", "report"):
        assert f"\n{label} " in captured.out
    assert "loading TensorFlow" in captured.err

    assert main(["resume", "run", "--max-trials", "3", "--json", "--quiet"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["trials"] == 3
    assert captured.err == ""

    assert main(["export", "run", "--to", "out"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "config  out/config.json",
        "record  out/record.txt",
        "model   out/tiny_quantized.pb",
        "mapping out/tiny_quant.json",
    ]
    words = ["quantize", str(files.model), "--config", "out/config.json", "--calibration", str(files.calibration)]
    assert main([*words, "--to", "again"]) == 0
    assert "model   again/tiny_quantized.pb\n" in capsys.readouterr().out
    images = np.load(files.data)["x"]
    np.testing.assert_array_equal(
        outputs(Path("again/tiny_quantized.pb"), images), outputs(Path("out/tiny_quantized.pb"), images)
    )


def outputs(model: Path, images: np.ndarray) -> np.ndarray:
    import tensorflow as tf

    graph_def = tf.compat.v1.GraphDef.FromString(model.read_bytes())
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        tf.graph_util.import_graph_def(graph_def, name="")
        return session.run("fc:0", {"x:0": images})


def test_quiet_prints_verdict_and_model(files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(search(files, "--tolerance", "100", "--quiet", "--keep-models", "all")) == 0
    captured = capsys.readouterr()
    verdict, model = captured.out.splitlines()
    assert verdict.startswith("met    mse ")
    assert model == "model  run/best/tiny_quantized.pb"
    assert captured.err == ""


METRIC = """
import os, signal
from pathlib import Path
import numpy as np

def mean(outputs, labels):
    if Path({file!r}).exists():
        os.kill(os.getpid(), signal.{signal})
    return np.abs(np.asarray(outputs) - np.asarray(labels)).mean(axis=-1)

mean.higher_is_better = False
"""


@pytest.mark.parametrize("signal", ["SIGINT", "SIGTERM"])
def test_interrupted_in_the_second_trial(files, signal: str, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(f"stop_{signal}.py").write_text(METRIC.format(file="run/trials/0001/record.txt", signal=signal))
    words = search(files, "--tolerance", "0", "--max-trials", "5", "--metric", f"stop_{signal}:mean")
    assert main(words) == 130
    captured = capsys.readouterr()
    assert "ended   interrupted\n" in captured.out
    assert "next    autoquant resume run\n" in captured.out
    assert "Traceback" not in captured.err
    assert json.loads(Path("run/result.json").read_text())["trials"] == 1


def test_interrupted_before_the_first_trial(files, capsys: pytest.CaptureFixture[str]) -> None:
    Path("stop_at_once.py").write_text(METRIC.format(file=".", signal="SIGTERM"))
    assert main(search(files, "--tolerance", "0", "--metric", "stop_at_once:mean", "--json")) == 130
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("autoquant: interrupted\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("search {model} --data nowhere.npz --tolerance 1%", "nowhere.npz: there is no such file"),
        ("search nowhere.pb --data {data} --tolerance 1%", "nowhere.pb: there is no such file"),
        (
            "search {model} --data {data} --tolerance 1% --space quik",
            "quik: is no file and no preset; did you mean 'quick'?",
        ),
        ("search {model} --data {data} --tolerance 1% --max-trials 0", "--max-trials: must be at least 1, got 0"),
        ("search {model} --data {data} --tolerance 1% --timeout 0", "--timeout: must be above 0"),
        ("search {model} --data {calibration} --tolerance 1%", "has no labels"),
        ("search {model} --data {data} --tolerance 1% --run taken", "taken: exists already"),
        ("resume nowhere", "nowhere: is no run"),
        ("export nowhere --to x", "nowhere: is no run"),
        ("inspect nowhere.pb", "nowhere.pb: there is no such file"),
        ("demo --run taken", "taken: exists already"),
    ],
)
def test_bad_input_is_one_line_on_standard_error(files, words: str, message: str, capsys) -> None:
    Path("taken").mkdir()
    Path("taken/file").touch()
    given = words.format(model=files.model, data=files.data, calibration=files.calibration).split()
    assert main([*given, *(["--json"] if given[0] not in ("export",) else [])]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    last = captured.err.splitlines()[-1]
    assert last.startswith("autoquant: error: ")
    assert message in last
