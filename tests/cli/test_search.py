from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_files import Files

from autoquant.cli.main import main
from autoquant.evaluation.latency import latency

KEYS = {
    "version", "verdict", "baseline", "score", "drop", "max_drop", "metric", "int8_layers", "layers", "int8_share",
    "int16_layers", "int16_share", "trials", "best_trial", "evaluated_samples", "seconds", "ended", "model", "run",
    "share_of", "warnings", "objective", "qdq_ops", "latency", "verification", "score_tensorflow", "certificate",
    "uncertified", "search_samples", "front", "pareto", "shipped", "min_baseline", "device",
}  # fmt: skip


NOT_STREAMED = "every trial is scored on all samples: the metric 'mse' has no bounds, and 80 samples prove nothing then"


def search(files: Files, *more: str) -> list[str]:
    """A search with mse: the labels are the model's own outputs, so only tolerances above 0 can be met."""
    words = ["search", str(files.model), "--data", str(files.data), "--calibration", str(files.calibration)]
    return [*words, "--metric", "mse", "--space", "quick", "--run", "run", *more]


def test_met_with_json_prints_one_object(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(search(files, "--tolerance", "100", "--certify", "none", "--json", "--plain")) == 0
    captured = capsys.readouterr()
    facts = json.loads(captured.out)
    assert facts.keys() == KEYS
    assert facts["verdict"] == "met, not certified"
    assert (facts["certificate"], facts["uncertified"]) == (None, "no certificate was requested (--certify none)")
    assert facts["int8_layers"] == 3
    assert facts["layers"] == 3
    assert facts["trials"] == 1
    assert facts["search_samples"] == 80
    assert Path(facts["model"]).is_file()
    assert "trial 0: met; INT8 3/3, " in captured.err


def test_too_few_samples_to_certify_end_with_3(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(search(files, "--tolerance", "100", "--plain")) == 3
    captured = capsys.readouterr()
    assert re.match(r"met +mse .* with 3 of 3 layers in INT8, within 100\.0000 of FP32; not certified\n", captured.out)
    why = (
        "a certificate takes at least 100 samples that the search does not see, and half of the 80 evaluation samples "
        "are 40: give 200, or others with --certify"
    )
    assert f"\nholdout  none: {why}\n" in captured.out
    assert f"data: 80 samples for the search, no holdout: {why}\n" in captured.err
    assert json.loads(Path("run/result.json").read_text())["uncertified"] == why


@pytest.fixture
def others(files: Files) -> Path:
    """Samples that are none of the data, with the numbers of their groups: what is small is in one, the rest in two."""
    x = np.concatenate([np.load(files.data)["x"] * np.float32(scale) for scale in (0.5, 0.6, 0.7, 0.8, 0.9)])
    means = np.abs(outputs(files.model, x)).mean(axis=1)
    np.savez("others.npz", x=x, y=outputs(files.model, x), size=np.searchsorted(np.quantile(means, [0.3, 0.6]), means))
    return Path("others.npz")


def test_certified_on_data_of_its_own(files: Files, others: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"tolerance": 100, "certify": others, "confidence": 0.9, "guard": "size", "guard-tolerance": 50}
    words = [str(word) for option, value in options.items() for word in (f"--{option}", value)]
    assert main(search(files, *words, "--plain")) == 0
    captured = capsys.readouterr()
    certified = r"certified +3 of 3 layers in INT8, and with 90% confidence the drop is at most (\d\.\d+)\n"
    found = re.match(certified, captured.out)
    assert found
    assert re.search(r"^holdout +400 samples that the search has not seen$", captured.out, re.MULTILINE)
    assert re.search(r"^guard +3 groups, max drop 50\.0000 each:$", captured.out, re.MULTILINE)
    assert "data: 80 samples for the search, 400 holdout\n" in captured.err

    stored = json.loads(Path("run/result.json").read_text())
    claim = stored["certificate"]
    assert claim == json.loads(Path("run/best/certificate.json").read_text())
    assert (stored["verdict"], stored["search_samples"]) == (claim["verdict"], 80) == ("certified", 80)
    assert claim["samples"] == 400
    assert claim["confidence"] == 0.9
    assert claim["max_drop"] == 100.0
    assert claim["guard_max_drop"] == 50.0
    assert float(found[1]) == pytest.approx(claim["upper_bound"], abs=5e-5)
    part = np.load(others)
    error = np.square(outputs(Path(stored["model"]), part["x"]).astype(np.float64) - part["y"]).mean(axis=1)
    assert claim["drop"] == pytest.approx(error.mean(), rel=1e-5)
    assert sorted((group["label"], group["samples"]) for group in claim["guard"]) == [
        ("0", 120),
        ("1", 120),
        ("2", 160),
    ]
    for group in claim["guard"]:
        assert group["drop"] == pytest.approx(error[part["size"] == int(group["label"])].mean(), rel=1e-5)


def test_missed_on_data_of_its_own(files: Files, others: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Samples eight times as large: what is within the tolerance on the others is not on these."""
    part = np.load(others)
    np.savez("large.npz", x=8 * part["x"], y=outputs(files.model, 8 * part["x"]))
    assert main(search(files, "--tolerance", "1", "--certify", "large.npz", "--json", "--quiet")) == 1
    facts = json.loads(capsys.readouterr().out)
    assert (facts["verdict"], facts["certificate"]["verdict"]) == ("missed", "missed")
    assert facts["drop"] < 1 < facts["certificate"]["drop"]


def test_a_certificate_can_be_had_later(files: Files, others: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(search(files, "--tolerance", "100", "--quiet")) == 3
    assert main(["resume", "run", "--certify", str(others), "--quiet"]) == 0
    assert capsys.readouterr().out.splitlines()[2].startswith("certified  3 of 3 layers in INT8, and with 95% ")


def test_samples_that_are_shared_are_refused_unless_that_is_allowed(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = search(files, "--tolerance", "100", "--certify", str(files.data), "--quiet")
    assert main(shared) == 2
    message = capsys.readouterr().err
    assert "80 of 80 samples for" in message
    assert "--allow-overlap" in message
    assert not Path("run").exists()
    assert main([*shared, "--allow-overlap", "--json"]) == 3
    captured = capsys.readouterr()
    assert "warning: calibration and search may share samples" in captured.err
    facts = json.loads(captured.out)
    assert facts["certificate"] is None
    assert facts["uncertified"] == (
        "80 of 80 samples to certify are evaluation or calibration data too, and the 0 left are too few; "
        "give other data with --certify"
    )


def test_missed_then_resumed_exported_and_applied(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(search(files, "--tolerance", "0", "--max-trials", "2")) == 1
    captured = capsys.readouterr()
    assert re.match(r"missed +best is mse ", captured.out)
    assert ": accept no drop\n" in captured.out
    for label in ("costly", "try", "next", "model", "report"):
        assert f"\n{label} " in captured.out
    assert "loading TensorFlow" in captured.err

    assert main(["resume", "run", "--max-trials", "3", "--json", "--quiet"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["trials"] == 3
    assert captured.err == f"warning: {NOT_STREAMED}\n"

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
    again, out = outputs(Path("again/tiny_quantized.pb"), images), outputs(Path("out/tiny_quantized.pb"), images)
    # The search calibrated on LiteRT: its scales may differ in the last digit.
    np.testing.assert_allclose(again, out, rtol=0, atol=1e-5 * np.abs(out).max())


def outputs(model: Path, images: np.ndarray) -> Any:
    import tensorflow as tf

    graph_def = tf.compat.v1.GraphDef.FromString(model.read_bytes())
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        tf.graph_util.import_graph_def(graph_def, name="")
        return session.run("fc:0", {"x:0": images})


def test_quiet_prints_verdict_and_model(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(search(files, "--tolerance", "100", "--certify", "none", "--quiet", "--keep-models", "all")) == 0
    captured = capsys.readouterr()
    verdict, model = captured.out.splitlines()
    assert verdict.startswith("met    mse ")
    assert model == "model  run/best/tiny_quantized.pb"
    assert captured.err == f"warning: {NOT_STREAMED}\n"


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


@pytest.fixture
def sigint_heard() -> Iterator[None]:
    """SIGINT is Ctrl-C, also where pytest was started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("sigint_heard")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_interrupted_in_the_second_trial(
    files: Files, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(f"stop_{name}.py").write_text(METRIC.format(file="run/trials/0001/record.txt", signal=name))
    words = search(files, "--tolerance", "0", "--max-trials", "5", "--metric", f"stop_{name}:mean")
    assert main(words) == 130
    captured = capsys.readouterr()
    assert re.search(r"^ended +interrupted$", captured.out, re.MULTILINE)
    assert re.search(r"^next +autoquant resume run$", captured.out, re.MULTILINE)
    assert "Traceback" not in captured.err
    assert json.loads(Path("run/result.json").read_text())["trials"] == 1


@pytest.mark.usefixtures("sigint_heard")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_interrupted_while_latency_is_measured(
    files: Files, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends at once, the result of the trials is written, and going on measures it."""
    timed, calls = latency._timed, list[Callable[[], None]]()

    def interrupting(call: Callable[[], None], clock: Callable[[], float]) -> float:
        calls.append(call)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.Signals[name])
        return timed(call, clock)

    monkeypatch.setattr(latency, "_timed", interrupting)
    words = search(files, "--tolerance", "9", "--max-trials", "1", "--target", "litert")
    assert main([*words, "--plain"]) == 130
    captured = capsys.readouterr()
    assert len(calls) == 5
    phases = Path("run/phases.json").read_text()
    assert "latency" in phases
    assert "reference kernels" not in phases
    assert re.search(r"^met.*\n(.*\n)*ended +interrupted$", captured.out, re.MULTILINE)
    assert "Traceback" not in captured.err
    written = json.loads(Path("run/result.json").read_text())
    assert (written["verdict"], written["ended"], written["latency"]) == ("met, not certified", "interrupted", None)
    assert main(["resume", "run", "--quiet"]) == 3
    written = json.loads(Path("run/result.json").read_text())
    assert written["ended"] != "interrupted"
    assert written["latency"]["rounds"] > 5
    assert len(written["all_trials"]) == 1


def test_interrupted_before_the_first_trial(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
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
            "quik: is neither a file nor a preset; did you mean 'quick'?",
        ),
        ("search {model} --data {data} --tolerance 1% --max-trials 0", "--max-trials: must be at least 1, got 0"),
        ("search {model} --data {data} --tolerance 1% --timeout 0", "--timeout: must be above 0"),
        ("search {model} --data {calibration} --tolerance 1%", "has no labels"),
        ("search {model} --data {data} --tolerance 1% --run taken", "taken: exists already"),
        ("search {model} --data {data} --tolerance 1% --certify nowhere.npz", "nowhere.npz: there is no such file"),
        (
            "search {model} --data {data} --tolerance 1% --certify {calibration} --metric mse",
            "has no labels",
        ),
        (
            "search {model} --data {data} --tolerance 1% --confidence 1",
            "--confidence: must be above 0 and below 1, got 1; for example 0.95",
        ),
        (
            "search {model} --data {data} --tolerance 1% --error-rate 0",
            "--error-rate: must be above 0 and below 1, got 0; for example 0.05",
        ),
        ("search {model} --data {data} --tolerance 1% --error-rate nan", "--error-rate: must be above 0 and below 1"),
        ("search {model} --data {data} --tolerance 1% --sampler gided", "unknown 'gided'; did you mean 'guided'?"),
        (
            "search {model} --data {data} --tolerance 1% --guard-tolerance 5%",
            "--guard-tolerance: needs a guard; give --guard class as well",
        ),
        (
            "search {model} --data {data} --tolerance 1% --metric mse --guard camera",
            "has no array 'camera' with one value for each of its 80 samples",
        ),
        (
            "search {model} --data {data} --tolerance 1% --metric auc --guard class",
            "'auc' has no value for each sample",
        ),
        (
            "search {model} --data {data} --tolerance 1% --guard class --certify none",
            "--guard class: guards groups on the holdout, and --certify none leaves no holdout",
        ),
        ("resume nowhere", "nowhere: is not a run"),
        ("export nowhere --to x", "nowhere: is not a run"),
        ("inspect nowhere.pb", "nowhere.pb: there is no such file"),
        ("demo --run taken", "taken: exists already"),
    ],
)
def test_bad_input_is_one_line_on_standard_error(
    files: Files, words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("taken").mkdir()
    Path("taken/file").touch()
    given = words.format(model=files.model, data=files.data, calibration=files.calibration).split()
    assert main([*given, *(["--json"] if given[0] not in ("export",) else [])]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    last = captured.err.splitlines()[-1]
    assert last.startswith("autoquant: error: ")
    assert message in last
