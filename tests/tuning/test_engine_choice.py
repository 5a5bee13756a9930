"""Which engine a search runs on, what it says of that, and that it stays with it."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from tiny_model import Tiny

import autoquant
from autoquant.errors import RunError, TrialError, UsageError
from autoquant.evaluation.engines.engine import Runner
from autoquant.evaluation.engines.fake_quant import FakeQuantEngine
from autoquant.tuning import events
from autoquant.tuning.certification.certificate import Verdict
from autoquant.tuning.result import Ended

CHEAP = {"tolerance": "20%", "batch_size": 50, "max_trials": 2}


class Search:
    """A search in a folder of its own, and what was told."""

    def __init__(self, tiny: Any, run: Path) -> None:
        self.tiny, self.run = tiny, run
        self.heard: list[events.Event] = []

    def __call__(self, **options: Any) -> autoquant.SearchResult:
        given = {"calibration": self.tiny.calibration, **CHEAP, **options}
        model, data = given.pop("model", self.tiny.model), given.pop("data", self.tiny.evaluation)
        return autoquant.search(model, data, run=self.run, listener=self.heard.append, **given)

    @property
    def engine(self) -> dict[str, Any]:
        """The table in run.toml."""
        table: dict[str, Any] = tomllib.loads((self.run / "run.toml").read_text())["engine"]
        return table

    @property
    def score(self) -> dict[str, Any]:
        """The best trial's score.json."""
        facts: dict[str, Any] = json.loads((self.run / "best" / "score.json").read_text())
        return facts

    @property
    def baselines(self) -> int:
        return sum(isinstance(event, events.BaselineScored) for event in self.heard)


@pytest.fixture
def searched(tiny: Tiny, tmp_path: Path) -> Search:
    return Search(tiny, tmp_path / "run")


@pytest.fixture
def far_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """What quantized graphs give on LiteRT is half of what it should be."""

    class Half:
        def __init__(self, runner: Runner) -> None:
            self.runner = runner

        def __call__(self, inputs: Any) -> Any:
            return {name: array / 2 for name, array in self.runner(inputs).items()}

        def close(self) -> None:
            self.runner.close()

    honest = FakeQuantEngine.open_file
    monkeypatch.setattr(FakeQuantEngine, "open_file", lambda self, path, graph: Half(honest(self, path, graph)))


@pytest.fixture
def refused(tiny: Tiny, tmp_path: Path) -> Path:
    """The tiny model with an operator behind it that LiteRT does not have."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        graph_def = tf.compat.v1.GraphDef.FromString(tiny.model.read_bytes())
        (scores,) = tf.graph_util.import_graph_def(graph_def, name="", return_elements=["scores:0"])
        positive = tf.nn.sigmoid(scores)
        tf.raw_ops.Igamma(a=positive, x=positive, name="strange")
    path = tmp_path / "strange.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


@pytest.mark.parametrize("engine", ["auto", "litert"])
def test_litert_scores_and_its_figures_are_kept(searched: Search, engine: str) -> None:
    result = searched(engine=engine)
    assert result.warnings == ()
    assert searched.engine["name"] == "litert"
    assert searched.engine["version"].startswith("litert ")
    assert (searched.engine["float_samples"], searched.engine["float_agreement"]) == (200, 1.0)
    assert searched.engine["float_difference"] < 1e-5
    assert (searched.engine["int8_samples"], searched.engine["int8_agreement"]) == (200, 1.0)
    assert searched.engine["int8_difference"] < 0.25
    assert (searched.score["engine"], searched.baselines) == ("litert", 1)


def test_tensorflow_computes_a_sample_once_for_each_model_that_is_compared(
    searched: Search, far_off: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the FP32 model, the INT8 one, and that one nudged, which is what it takes to find that LiteRT is far off."""
    from autoquant.evaluation.engines.tensorflow import TensorFlowRunner

    rows, run = list[int](), TensorFlowRunner.__call__

    def counted(runner: TensorFlowRunner, inputs: Any) -> Any:
        rows.append(len(next(iter(inputs.values()))))
        return run(runner, inputs)

    def stopped(*given: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TensorFlowRunner, "__call__", counted)
    monkeypatch.setattr("autoquant.tuning.prepare.score_baseline", stopped)
    with pytest.raises(KeyboardInterrupt):
        searched()
    assert sum(rows) == 3 * 200 + 2, "and one more of the first two for the size of an output"


def test_the_best_model_is_scored_once_more_in_tensorflow(searched: Search, tiny: Tiny) -> None:
    import tensorflow as tf

    result = searched(certify="none")
    stored = np.load(tiny.evaluation)
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(tf.compat.v1.GraphDef.FromString(result.model.read_bytes()), name="")
        with tf.compat.v1.Session(graph=graph) as session:
            scores = session.run("scores:0", {"image:0": stored["x"]})
    want = float((scores.argmax(axis=1) == stored["y"]).mean())
    assert result.score_tensorflow == pytest.approx(want, abs=1e-12)
    assert searched.score["score_tensorflow"] == result.score_tensorflow
    assert json.loads((searched.run / "result.json").read_text())["score_tensorflow"] == result.score_tensorflow


def test_a_best_model_that_is_certified_is_scored_there_for_that(searched: Search) -> None:
    """On the holdout; the samples of the search are not run once more."""
    result = searched()
    assert result.certificate is not None
    assert result.certificate.origin.engine.startswith("tensorflow ")
    assert result.score_tensorflow is None and "score_tensorflow" not in searched.score


def test_tensorflow_scores_where_it_is_asked_for(searched: Search) -> None:
    result = searched(engine="tensorflow")
    assert searched.engine["name"] == searched.score["engine"] == "tensorflow"
    assert result.score_tensorflow is None and "score_tensorflow" not in searched.score
    assert result.warnings == ()


def test_an_operator_that_litert_does_not_have(searched: Search, refused: Path) -> None:
    result = searched(model=refused, metric="agreement", tolerance="50%")
    assert searched.engine["name"] == "tensorflow"
    assert "Igamma" in searched.engine["reason"]
    assert len(result.warnings) == 1
    assert result.warnings[0].startswith("scored in TensorFlow, not on LiteRT, which is faster: ")
    assert "Igamma" in result.warnings[0]
    assert searched.score["engine"] == "tensorflow"


def test_asked_for_litert_where_it_does_not_have_an_operator(searched: Search, refused: Path) -> None:
    with pytest.raises(
        UsageError, match=r"--engine litert: cannot be used for this model: .*Igamma.*--engine tensorflow"
    ):
        searched(model=refused, engine="litert")
    assert not searched.run.exists()


def test_a_first_int8_model_that_differs(searched: Search, far_off: None) -> None:
    """The FP32 model, which does not differ, is calibrated once, on LiteRT, and scored once, in TensorFlow."""
    result = searched()
    assert searched.engine["name"] == searched.score["engine"] == "tensorflow"
    assert searched.engine["int8_difference"] > 0.25 and searched.engine["float_difference"] < 1e-5
    assert searched.engine["calibrates"] == "litert"
    calibrated = sum(isinstance(event, events.Calibrated) for event in searched.heard)
    assert (searched.baselines, calibrated) == (1, 1)
    assert "the first INT8 model's outputs differ on LiteRT: 100.00% of 200 samples agree" in result.warnings[0]


def test_asked_for_litert_where_it_differs(searched: Search, far_off: None) -> None:
    with pytest.raises(UsageError, match=r"the first INT8 model's outputs differ on LiteRT: .* outputs differ by"):
        searched(engine="litert")
    assert not searched.run.exists()


def test_an_fp32_model_that_differs(searched: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = FakeQuantEngine.open_graph

    def open_another(self: FakeQuantEngine, graph: Any, fetches: Any = None) -> Runner:
        runner = honest(self, graph, fetches)
        monkeypatch.setattr(
            type(runner), "_run", lambda self, feeds, viewed: [np.zeros((len(feeds[0]), 3), np.float32)]
        )
        return runner

    monkeypatch.setattr(FakeQuantEngine, "open_graph", open_another)
    result = searched()
    assert searched.engine["name"] == "tensorflow"
    assert "the FP32 model's outputs differ on LiteRT: " in result.warnings[0]


def test_a_layer_that_cannot_be_fake_quantized(searched: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = FakeQuantEngine.of

    def without_conv(graph: Any, layers: Any) -> FakeQuantEngine:
        made = honest(graph, layers)
        return replace(made, reasons={"conv": "it is gone"})

    monkeypatch.setattr(FakeQuantEngine, "of", without_conv)
    result = searched()
    assert searched.engine["name"] == "tensorflow"
    assert "conv: cannot be fake-quantized on LiteRT: it is gone" in result.warnings[0]


def test_a_layer_that_stays_in_float_need_not_be_fake_quantized(
    searched: Search, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    honest = FakeQuantEngine.of

    def without_conv(graph: Any, layers: Any) -> FakeQuantEngine:
        return replace(honest(graph, layers), reasons={"conv": "it is gone"})

    monkeypatch.setattr(FakeQuantEngine, "of", without_conv)
    space = tmp_path / "space.toml"
    space.write_text('[[override]]\nlayers = ["conv"]\nquant_enable = [false]\n')
    assert searched(space=space).warnings == ()
    assert searched.engine["name"] == "litert"


def test_a_run_goes_on_with_its_engine(searched: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    searched(tolerance=0.0, max_trials=1, space="thorough")
    before = searched.engine
    monkeypatch.setattr("autoquant.tuning.engine_choice.compare", None)  # once was enough
    result = autoquant.resume(searched.run, max_trials=2)
    assert len(result.trials) == 2
    assert searched.engine == before
    assert result.score_tensorflow is not None


def test_a_run_that_fell_back_goes_on_so(searched: Search, far_off: None) -> None:
    searched(tolerance=0.0, max_trials=1, space="thorough")
    before = searched.engine
    result = autoquant.resume(searched.run, max_trials=2)
    assert searched.engine == before
    assert {trial["engine"] for trial in _scores(searched.run)} == {"tensorflow"}
    assert result.warnings[0].startswith("scored in TensorFlow")


def test_a_run_on_litert_does_not_go_on_elsewhere(searched: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    searched(tolerance=0.0, max_trials=1, space="thorough")
    reasons = {"dense": "it is gone"}
    monkeypatch.setattr(
        FakeQuantEngine, "of", lambda graph, layers: FakeQuantEngine(graph, cast("Any", None), {}, {}, reasons, {}, {})
    )
    with pytest.raises(RunError, match="was started on LiteRT, which does not run the model any more: dense"):
        autoquant.resume(searched.run, max_trials=2)


def test_another_verdict_in_tensorflow_is_told(searched: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoquant.tuning.finalize.score_in_runtime", lambda *_: 0.25)
    result = searched(certify="none")
    assert result.verdict is Verdict.MET
    assert result.score_tensorflow == 0.25
    assert "in TensorFlow the best model scores 0.25, which is not within tolerance; it scores " in result.warnings[0]
    assert "the verdict is 'met, not certified'" in result.warnings[0]


def test_a_best_model_that_tensorflow_does_not_run_is_told(searched: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> float:
        raise TrialError("TensorFlow", "out of memory")

    monkeypatch.setattr("autoquant.tuning.finalize.score_in_runtime", fail)
    result = searched(certify="none")
    assert result.score_tensorflow is None
    assert result.warnings == ("the best model cannot be scored in TensorFlow: TensorFlow: out of memory",)


def test_an_interruption_while_it_is_scored_there(searched: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr("autoquant.tuning.finalize.score_in_runtime", interrupt)
    result = searched(certify="none")
    assert result.ended is Ended.INTERRUPTED and result.score_tensorflow is None


def test_two_starts_that_do_not_work_out_are_passed_over(searched: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    """The INT8 model that is compared is of the first plan that can be made."""
    from autoquant.targets.tensorflow import GraphCompiler

    honest, calls = GraphCompiler.compile, iter(range(100))

    def compile_(self: GraphCompiler, *args: Any, **options: Any) -> Any:
        if next(calls) < 2:
            raise TrialError("conv", "no")
        return honest(self, *args, **options)

    monkeypatch.setattr(GraphCompiler, "compile", compile_)
    searched(space="thorough")
    assert searched.engine["int8_samples"] == 200


def _scores(run: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(run.glob("trials/*/score.json"))]
