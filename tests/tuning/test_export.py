"""Plans taken out of runs for another target, and scored there; copies are tested in tests/test_api.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from finished_runs import SPACE, finished_runs
from plain_lite import lite_outputs
from tiny_model import Tiny

import autoquant
from autoquant.cli.main import main
from autoquant.errors import PlanError, RunError, UsageError
from autoquant.formats.config_json import load_config
from autoquant.formats.record_text import load_record
from autoquant.tuning.result import SearchResult


@pytest.fixture(scope="module")
def runs(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, SearchResult]:
    """A run of each target, with the same space, scored on all samples, as exports are."""
    return finished_runs(tiny, tmp_path_factory.mktemp("runs"), tolerance=0.5, certify="none")


def lite_top1(path: Path, data: Path) -> float:
    """Top-1 by a plain interpreter."""
    stored = np.load(data)
    return float(np.mean(lite_outputs(path, stored["x"]).argmax(axis=1) == stored["y"]))


def graph_top1(path: Path, data: Path) -> float:
    """Top-1 in a plain session."""
    import tensorflow as tf

    stored = np.load(data)
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(tf.compat.v1.GraphDef.FromString(path.read_bytes()), name="")
        with tf.compat.v1.Session(graph=graph) as session:
            scores = session.run("scores:0", {"image:0": stored["x"]})
    return float(np.mean(scores.argmax(axis=1) == stored["y"]))


PLAIN = {"litert": lite_top1, "tensorflow": graph_top1}


@pytest.mark.parametrize(("found", "wanted"), [("litert", "tensorflow"), ("tensorflow", "litert")])
def test_the_other_target_gets_the_same_plan_and_a_score_of_its_own(
    runs: dict[str, SearchResult], tiny: Tiny, tmp_path: Path, found: str, wanted: str
) -> None:
    run = runs[found]
    made = autoquant.export(run.run, tmp_path / "out", target=wanted)
    told = made.transferred
    assert made.model.suffix == {"litert": ".tflite", "tensorflow": ".pb"}[wanted]
    assert told is not None
    assert told.score == PLAIN[wanted](made.model, tiny.evaluation)
    assert (told.target, told.engine, told.samples) == (wanted, wanted, 200)
    assert told.drop == pytest.approx(told.baseline - told.score)
    assert told.met
    stored = json.loads((tmp_path / "out" / "score.json").read_text())
    assert stored["score"] == told.score
    assert stored["found_with"]["score"] == run.score == made.score
    assert stored["found_with"]["target"] == found
    plan = load_config(made.config)
    assert run.best is not None
    assert set(plan.int8) == set(run.best.plan.int8)
    assert {name: one.activation for name, one in plan.int8.items()} == {
        name: one.activation for name, one in run.best.plan.int8.items()
    }
    assert set(load_record(made.record)) == set(plan.int8)


def test_differences_between_targets_are_told(runs: dict[str, SearchResult], tmp_path: Path) -> None:
    """AMCT gives a MatMul one scale; LiteRT one per channel."""
    made = autoquant.export(runs["litert"].run, tmp_path / "out", target="tensorflow")
    assert made.transferred is not None
    assert made.transferred.changes == ("dense: one scale for its weight, not one per channel",)
    assert not load_config(made.config).int8["dense"].channel_wise


def test_the_run_s_own_target_is_a_copy(runs: dict[str, SearchResult], tmp_path: Path) -> None:
    for target, run in runs.items():
        made = autoquant.export(run.run, tmp_path / target, target=target)
        assert made.transferred is None
        assert run.model is not None
        assert made.model.read_bytes() == run.model.read_bytes()


def test_a_deleted_tflite_is_built_again(
    runs: dict[str, SearchResult], tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is within the tolerance or not, as a copy is."""
    run = runs["litert"]
    assert run.model is not None
    kept = run.model.read_bytes()
    run.model.unlink()
    try:
        made = autoquant.export(run.run, tmp_path / "out")
        monkeypatch.setattr("autoquant.tuning.transfer.within", lambda loss, allowed: False)
        assert main(["export", str(run.run), "--to", str(tmp_path / "again")]) == 0
    finally:
        run.model.write_bytes(kept)
    assert made.model.read_bytes() == kept
    assert made.transferred is not None
    assert made.transferred.score == run.score


def test_a_folder_holds_one_model_and_its_own_score(runs: dict[str, SearchResult], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    autoquant.export(runs["tensorflow"].run, folder, target="litert")
    record = (folder / "record.txt").read_bytes()
    with pytest.raises(RunError, match=r"holds the record of another model than tiny_quantized.pb; give another"):
        autoquant.export(runs["tensorflow"].run, folder)
    assert (folder / "record.txt").read_bytes() == record
    autoquant.export(runs["litert"].run, folder)  # a copy, scored in the run
    model = runs["litert"].model
    assert model is not None
    assert (folder / "tiny_int8.tflite").read_bytes() == model.read_bytes()
    assert not (folder / "score.json").exists()


def test_a_graph_for_converters_is_scored_all_the_same(runs: dict[str, SearchResult], tmp_path: Path) -> None:
    import tensorflow as tf

    made = autoquant.export(runs["litert"].run, tmp_path / "out", target="tensorflow", simulation=False)
    graph = tf.compat.v1.GraphDef.FromString(made.model.read_bytes())
    assert not graph.library.function
    assert any(node.op == "AscendQuant" for node in graph.node)
    assert made.transferred is not None
    assert made.transferred.score > 0.5
    autoquant.check(made.model)


def test_integers_at_the_ends(runs: dict[str, SearchResult], tiny: Tiny, tmp_path: Path) -> None:
    made = autoquant.export(runs["litert"].run, tmp_path / "out", io="int8")
    interpreter = Interpreter(model_path=str(made.model))
    assert interpreter.get_input_details()[0]["dtype"] == np.int8
    assert interpreter.get_output_details()[0]["dtype"] == np.int8
    assert made.transferred is not None
    assert made.transferred.score == pytest.approx(runs["litert"].score, abs=0.02)


def test_on_the_command_line(runs: dict[str, SearchResult], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = runs["tensorflow"]
    assert main(["export", str(run.run), "--to", str(tmp_path / "out"), "--target", "litert"]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = json.loads((tmp_path / "out" / "score.json").read_text())
    (score,) = (line for line in lines if line.startswith("score"))
    assert f"top1 {told['score']:.4f} (litert; FP32 {told['baseline']:.4f}" in score
    assert f"top1 {run.score:.4f} (" in next(line for line in lines if line.startswith("run "))
    assert str(tmp_path / "out" / "tiny_int8.tflite") in next(line for line in lines if line.startswith("model"))


def test_a_plan_that_misses_there_ends_with_1(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tolerance that the other target cannot keep: its scores differ by what rounding does."""
    monkeypatch.setattr("autoquant.tuning.transfer.within", lambda loss, allowed: False)
    (tmp_path / "space.toml").write_text(SPACE)
    run = autoquant.search(
        tiny.model,
        tiny.evaluation,
        calibration=tiny.calibration,
        tolerance=0.5,
        max_trials=1,
        space=tmp_path / "space.toml",
        run=tmp_path / "run",
    )
    assert main(["export", str(run.run), "--to", str(tmp_path / "out"), "--target", "litert"]) == 1


def refused(run: SearchResult, folder: Path, **options: Any) -> str:
    with pytest.raises((UsageError, RunError, PlanError)) as caught:
        autoquant.export(run.run, folder, **options)
    assert not list(folder.glob("*.tflite")) + list(folder.glob("*.pb"))
    return str(caught.value)


def test_exports_that_are_refused(runs: dict[str, SearchResult], tmp_path: Path) -> None:
    assert "unknown 'litter'" in refused(runs["litert"], tmp_path, target="litter")
    assert "--io int8" in refused(runs["tensorflow"], tmp_path, io="int8")
    assert "--without-simulation: is for graphs" in refused(runs["litert"], tmp_path, simulation=False)


def test_data_in_memory_is_asked_for_again(tiny: Tiny, tmp_path: Path) -> None:
    stored, other = np.load(tiny.evaluation), np.load(tiny.calibration)
    data: dict[str, Any] = {"data": (stored["x"], stored["y"]), "calibration": (other["x"], other["y"])}
    run = autoquant.search(tiny.model, **data, tolerance=0.5, max_trials=1, run=tmp_path / "run")
    assert "autoquant.export(run, data=...)" in refused(run, tmp_path / "out", target="litert")
    transferred = autoquant.export(run.run, tmp_path / "out", target="litert", **data).transferred
    assert transferred is not None
    assert transferred.met
    less = {**data, "data": (stored["x"][:50], stored["y"][:50])}
    assert "data" in refused(run, tmp_path / "less", target="litert", **less)


def test_another_model_in_its_place(tiny: Tiny, tmp_path: Path) -> None:
    model = tmp_path / "tiny.pb"
    model.write_bytes(tiny.model.read_bytes())
    options: dict[str, Any] = {"calibration": tiny.calibration, "tolerance": 0.5, "max_trials": 1}
    run = autoquant.search(model, tiny.evaluation, run=tmp_path / "run", **options)
    import tensorflow as tf

    graph_def = tf.compat.v1.GraphDef.FromString(model.read_bytes())
    graph_def.versions.min_consumer = 1
    model.write_bytes(graph_def.SerializeToString())
    assert "is not what the run was started with" in refused(run, tmp_path / "out", target="litert")


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "is not valid JSON"), ('{"version": 0}', "version"), ('{"version": 1}', "number: is missing")],
)
def test_a_damaged_score_is_refused(runs: dict[str, SearchResult], tmp_path: Path, text: str, words: str) -> None:
    shutil.copytree(runs["tensorflow"].run, tmp_path / "run", symlinks=True)
    (tmp_path / "run" / "best" / "score.json").write_text(text)
    with pytest.raises(RunError, match=words):
        autoquant.export(tmp_path / "run", tmp_path / "out")


def test_a_trial_that_was_stopped_early_is_exported_without_a_score(
    runs: dict[str, SearchResult], tmp_path: Path
) -> None:
    shutil.copytree(runs["tensorflow"].run, tmp_path / "run", symlinks=True)
    path = tmp_path / "run" / "best" / "score.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "state": "stopped", "score": None, "within": None}))
    made = autoquant.export(tmp_path / "run", tmp_path / "out")
    assert made.score is None
    assert made.model.is_file()
