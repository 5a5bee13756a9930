"""Whole searches on a tiny model: what they find and leave on disk, and what they say to bad input."""

from __future__ import annotations

import errno
import json
import math
import os
import re
from pathlib import Path
from typing import Any, Never

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_model import Tiny

import autoquant
from autoquant.errors import BudgetError, DataError, ModelError, RunError, SpaceError, UserFunctionError
from autoquant.evaluation.engines.tensorflow import TensorFlowEngine
from autoquant.formats.config_json import load_config
from autoquant.formats.record_text import load_record
from autoquant.tuning import events
from autoquant.tuning.certification.certificate import Verdict
from autoquant.tuning.events import Event
from autoquant.tuning.finalize import CLOSEST
from autoquant.tuning.result import Ended
from autoquant.tuning.study.trial import State


def plain_classes(path: Path, images: NDArray[Any]) -> Any:
    """The classes that a saved .pb gives images in a plain session, without any of our code."""
    import tensorflow as tf

    graph_def = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(graph_def, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            return session.run("scores:0", {"image:0": images}).argmax(axis=1)


def plain_top1(path: Path, data: Path) -> float:
    """Top-1 of it."""
    stored = np.load(data)
    return float((plain_classes(path, stored["x"]) == stored["y"]).mean())


def test_tolerance_met(tiny: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options: dict[str, Any] = {"calibration": tiny.calibration, "tolerance": "5%", "batch_size": 32, "certify": "none"}
    result = autoquant.search(tiny.model, tiny.evaluation, **options, run=run)
    assert result.verdict is Verdict.MET
    assert (result.certificate, result.declined, result.search_samples) == (None, True, 200)
    assert result.best is not None
    assert (result.best.int8_layers, result.best.int8_share, result.layers) == (3, 1.0, 3)
    assert result.model == run / "best" / "tiny_quantized.pb"
    assert plain_top1(result.model, tiny.evaluation) == pytest.approx(result.score, abs=1e-12)
    assert plain_top1(tiny.model, tiny.evaluation) == pytest.approx(result.baseline, abs=1e-12)
    assert load_config(run / "best" / "config.json") == result.best.plan
    assert set(load_record(run / "best" / "record.txt")) == {"conv", "depthwise", "dense"}
    score = json.loads((run / "best" / "score.json").read_text())
    assert (score["score"], score["samples"], score["state"]) == (result.score, 200, "done")
    stored = json.loads((run / "result.json").read_text())
    assert stored["verdict"] == "met, not certified"
    assert stored["evaluated_samples"] == 200 * len(result.trials)


def test_tolerance_missed_keeps_the_best_effort(hopeless: dict[str, Any]) -> None:
    result = autoquant.search(**hopeless)
    assert result.verdict is Verdict.MISSED
    assert result.ended is Ended.TRIALS
    assert result.best is not None
    assert len(result.trials) == 7
    assert result.drop == min(trial.drop for trial in result.trials if trial.drop is not None)
    assert result.model is not None
    assert result.model.is_file()
    assert result.costly.how.startswith("measured on 60 samples")
    assert {name for name, _ in result.costly.layers} <= set(result.best.plan.int8)


def test_the_layers_that_cost_the_most_are_those_that_were_predicted_to(hopeless: dict[str, Any]) -> None:
    result = autoquant.search(**hopeless | {"sampler": "guided", "max_trials": 5})
    assert result.best is not None
    assert result.costly.how == "predicted on calibration samples"
    assert {name for name, _ in result.costly.layers} == set(result.best.plan.int8)
    values = [value for _, value in result.costly.layers]
    assert values == sorted(values, reverse=True)
    assert values[-1] > 0
    stored = json.loads((result.run / "result.json").read_text())["costly_layers"]
    assert [(one["layer"], one["divergence"]) for one in stored] == list(result.costly.layers)


def losing(tiny: Tiny) -> dict[str, NDArray[Any]]:
    """Where no sample of these may be lost, all trials are screened out: what INT8 makes different is mostly wrong."""
    rng = np.random.default_rng(5)
    images = rng.normal(size=(1500, 8, 8, 2)).astype(np.float32)
    found = plain_classes(tiny.model, images)
    return {"x": images, "y": np.where(rng.random(1500) < 0.1, (found + 1) % 3, found)}


def test_ctrl_c_while_the_closest_is_scored_leaves_what_is_known(hopeless: dict[str, Any], tiny: Tiny) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, events.Progress) and event.what.endswith("all samples"):
            raise KeyboardInterrupt

    options = {**hopeless, "data": losing(tiny), "metric": "top1", "tolerance": 1e-4, "max_trials": 2}
    cut = autoquant.search(**options, listener=interrupt)
    assert cut.best is not None
    assert (cut.ended, cut.verdict, cut.best.state) == (Ended.INTERRUPTED, Verdict.MISSED, State.STOPPED)
    assert cut.model is not None
    assert cut.model.is_file()
    whole = autoquant.resume(cut.run, data=options["data"])
    assert whole.best is not None
    assert (whole.ended, whole.best.state) == (Ended.TRIALS, State.DONE)


def test_of_what_was_stopped_early_the_closest_is_scored_on_everything(hopeless: dict[str, Any], tiny: Tiny) -> None:
    data = losing(tiny)
    images = data["x"]
    result = autoquant.search(**{**hopeless, "data": data, "metric": "top1", "tolerance": 1e-4})
    assert result.best is not None
    assert (result.verdict, result.best.state) == (Verdict.MISSED, State.DONE)
    assert result.model is not None
    assert result.score == (plain_classes(result.model, images) == data["y"]).mean()
    scored = [trial for trial in result.trials if trial.state is State.DONE]
    assert 1 <= len(scored) <= CLOSEST
    assert result.best in scored
    assert result.drop == min(trial.drop for trial in scored if trial.drop is not None)
    others = [trial for trial in result.trials if trial not in scored]
    assert others and all(trial.undecided and trial.samples < 500 for trial in others)
    assert result.evaluated_samples > 1500 * len(scored)
    stored = json.loads((result.run / "best" / "score.json").read_text())
    assert (stored["score"], stored["undecided"]) == (result.score, False)


def test_only_the_best_model_is_kept(hopeless: dict[str, Any]) -> None:
    result = autoquant.search(**hopeless)
    models = sorted(path.parent.name for path in hopeless["run"].glob("trials/*/*.pb"))
    assert result.best is not None
    assert models == [f"{result.best.number:04d}"]
    kept = autoquant.search(**{**hopeless, "run": hopeless["run"].parent / "all", "keep_all_models": True})
    assert len(list(kept.run.glob("trials/*/*.pb"))) == 7


def test_calibration_is_split_off_the_data(tiny: Tiny, tmp_path: Path) -> None:
    heard: list[Any] = []
    options: dict[str, Any] = {"tolerance": "50%", "batch_size": 20, "certify": "none", "listener": heard.append}
    result = autoquant.search(tiny.model, tiny.evaluation, run=tmp_path / "run", **options)
    opened = next(event for event in heard if isinstance(event, events.Opened))
    assert (opened.samples, opened.calibration_samples) == (160, 40)
    assert result.evaluated_samples == 160


def test_arrays_and_functions(tiny: Tiny, tmp_path: Path) -> None:
    stored = np.load(tiny.evaluation)

    def margin(outputs: NDArray[Any], labels: NDArray[Any]) -> Any:
        return np.take_along_axis(outputs, labels[:, None], axis=1)[:, 0] - outputs.mean(axis=1)

    result = autoquant.search(
        tiny.model, (stored["x"], stored["y"]), metric=margin, tolerance="20%", run=tmp_path / "run"
    )
    assert result.verdict is Verdict.MET
    with pytest.raises(RunError, match=r"data was in memory .* autoquant.resume\(run, data="):
        autoquant.resume(result.run)
    again = autoquant.resume(result.run, data=(stored["x"], stored["y"]), metric=margin)
    assert again.score == result.score
    with pytest.raises(RunError, match="the data"):
        autoquant.resume(result.run, data=(stored["x"][::-1], stored["y"]), metric=margin)


def test_stop_on_target(hopeless: dict[str, Any]) -> None:
    result = autoquant.search(**{**hopeless, "tolerance": 1e6, "stop_on_target": True, "space": "thorough"})
    assert len(result.trials) == 1


def test_stops_at_the_first_trial_within_tolerance(hopeless: dict[str, Any], tmp_path: Path) -> None:
    """Only a plan with a float layer is within tolerance; the search ends there, though more could be gained."""
    space = tmp_path / "float_first.toml"
    space.write_text('[layer]\nquant_enable = [true, false]\nact_algo = ["minmax", "ifmr"]')
    full = autoquant.search(**{**hopeless, "space": space, "max_trials": 12})
    errors = sorted(trial.drop for trial in full.trials if trial.drop is not None)
    between = (errors[0] + errors[1]) / 2
    stopped = autoquant.search(
        **{
            **hopeless,
            "space": space,
            "max_trials": 12,
            "tolerance": between,
            "stop_on_target": True,
            "run": tmp_path / "stopped",
        }
    )
    assert stopped.verdict is Verdict.MET
    assert stopped.best is not None
    assert stopped.trials[-1].number == stopped.best.number
    assert stopped.ended is Ended.TARGET


def test_data_used_for_both_is_refused_or_told(tiny: Tiny, tmp_path: Path) -> None:
    options: dict[str, Any] = {"metric": "agreement", "tolerance": "20%", "max_trials": 1}
    with pytest.raises(DataError, match=r"all 200 samples for calibration are for evaluation too; .*--allow-overlap"):
        autoquant.search(tiny.model, tiny.evaluation, calibration=tiny.evaluation, run=tmp_path / "same", **options)
    assert not (tmp_path / "same").exists()
    with pytest.raises(DataError, match=r"64 of 64 samples for the holdout are for calibration too"):
        autoquant.search(
            tiny.model,
            tiny.evaluation,
            calibration=tiny.calibration,
            certify=tiny.calibration,
            run=tmp_path / "same",
            **options,
        )
    allowed: dict[str, Any] = {**options, "allow_overlap": True}
    told = autoquant.search(
        tiny.model, tiny.evaluation, calibration=tiny.evaluation, run=tmp_path / "same", **allowed
    ).warnings
    assert told == ("calibration and search may share samples: these flatter the score, and certify nothing",)
    apart: dict[str, Any] = {**options, "calibration": tiny.calibration, "run": tmp_path / "apart"}
    assert autoquant.search(tiny.model, tiny.evaluation, **apart).warnings == ()


def test_calibration_samples_that_are_evaluated_are_left_out_and_counted(tiny: Tiny, tmp_path: Path) -> None:
    own, others = np.load(tiny.calibration)["x"], np.load(tiny.evaluation)["x"]
    mixed = np.concatenate([own, others[:3]])
    options: dict[str, Any] = {"metric": "agreement", "tolerance": "20%", "max_trials": 1}
    found = autoquant.search(tiny.model, tiny.evaluation, calibration=(mixed, None), run=tmp_path / "mixed", **options)
    assert found.warnings == ("data: 3 of 67 calibration samples left out: evaluation has them too",)
    alone = autoquant.search(tiny.model, tiny.evaluation, calibration=(own, None), run=tmp_path / "own", **options)
    assert found.model is not None and alone.model is not None
    assert found.model.read_bytes() == alone.model.read_bytes()
    assert autoquant.resume(found.run, calibration=(mixed, None), max_trials=2).trials[0] == found.trials[0]


@pytest.mark.parametrize(("tolerance", "meant"), [(1, "; did you mean 1%?"), ("100%", "")])
def test_a_tolerance_that_cannot_fail_is_told(tiny: Tiny, tmp_path: Path, tolerance: int | str, meant: str) -> None:
    result = autoquant.search(
        tiny.model, tiny.evaluation, calibration=tiny.calibration, tolerance=tolerance, run=tmp_path / "run"
    )
    assert result.warnings == (f"tolerance {tolerance} is as large as the baseline score{meant}",)
    assert json.loads((result.run / "result.json").read_text())["warnings"] == list(result.warnings)


def test_a_baseline_of_zero_is_no_baseline(tiny: Tiny, tmp_path: Path) -> None:
    images = np.load(tiny.evaluation)["x"]
    model = autoquant.inspect(tiny.model).model
    predicted = TensorFlowEngine().open_graph(model.graph)({"image": images})["scores"].argmax(axis=1)
    # Always wrong, and not by one, which would be a label offset.
    ends = predicted != 1
    data = (images[ends], 2 - predicted[ends])
    with pytest.raises(DataError, match="the FP32 model's score is 0: there is no accuracy to keep"):
        autoquant.search(tiny.model, data, tolerance="1%", run=tmp_path / "run")


def test_zero_is_a_good_score_of_other_metrics(regression: Path, tiny: Tiny, tmp_path: Path) -> None:
    """A user's metric whose best score is 0."""

    def closeness(outputs: NDArray[Any], labels: NDArray[Any]) -> Any:
        return -np.round(np.abs(outputs - labels).max(axis=1), 3)

    options: dict[str, Any] = {
        "calibration": tiny.calibration,
        "metric": closeness,
        "tolerance": 100,
        "certify": "none",
    }
    result = autoquant.search(tiny.model, regression, run=tmp_path / "run", **options)
    assert (result.baseline, result.verdict) == (0.0, Verdict.MET)
    (warning,) = result.warnings
    assert re.match("every trial is scored on all samples: the metric '.*closeness' has no bounds", warning)


@pytest.mark.parametrize(
    "phase",
    [
        "opening the model",
        "reading the data",
        "lowering the model for tensorflow",
        "LiteRT beside TensorFlow",
        "baseline",
        "objective macs",
        "choosing a plan",
        "calibration",
        "building trial 0",
        "trial 0",
    ],
)
def test_before_there_is_a_trial_the_time_is_over(hopeless: dict[str, Any], phase: str) -> None:
    """By a clock on which it goes by as soon as the phase begins: the error names it, and what is done is of use."""
    now = [0.0]

    def take_long(event: Event) -> None:
        if isinstance(event, events.Progress) and event.what == phase:
            now[0] = 1000.0

    with pytest.raises(BudgetError) as caught:
        autoquant.search(**hopeless, timeout=900.0, clock=lambda: now[0], listener=take_long)
    assert caught.value.exit_code == 1
    run = Path(hopeless["run"])
    assert caught.value.where == str(run)
    assert f"was over before the first trial ended: '{phase}' took 1000.0 of 1000.0 s" in caught.value.what
    if phase in ("opening the model", "reading the data", "lowering the model for tensorflow"):
        assert not run.exists()
    else:
        assert f"`autoquant resume {run} --timeout 2000s` goes on" in caught.value.hint
        assert len(autoquant.resume(run, timeout=math.inf, max_trials=2).trials) == 2


def test_a_trial_does_not_begin_where_it_cannot_end_in_time(hopeless: dict[str, Any]) -> None:
    """By a clock that only trials move: each takes 10 s, and 25 s hold two of them."""
    now = [0.0]

    def work(event: Event) -> None:
        if isinstance(event, events.TrialStarted):
            now[0] += 10.0

    result = autoquant.search(**hopeless, timeout=25.0, clock=lambda: now[0], listener=work)
    assert result.ended is Ended.TIMEOUT
    assert 2 <= len(result.trials) <= 3


NO_TIME = "--timeout leaves no time"


@pytest.mark.parametrize(
    ("phase", "trials", "warned"),
    [
        ("sensitivity of layers", range(8), f"{NO_TIME} to measure the sensitivity of layers"),
        ("trial 1", range(1, 2), f"the costliest layers were not looked for: {NO_TIME}"),
        ("building trial 1", range(1, 2), f"the best model was not scored in TensorFlow: {NO_TIME}"),
        ("best model in TensorFlow", range(2, 8), f"the best model was not scored in TensorFlow: {NO_TIME}"),
    ],
)
def test_each_phase_ends_when_the_time_is_over(
    hopeless: dict[str, Any], phase: str, trials: range, warned: str
) -> None:
    """By a clock on which all that remains goes by as soon as the phase begins; there is a result all the same."""
    now = [0.0]

    def take_long(event: Event) -> None:
        if isinstance(event, events.Progress) and event.what == phase:
            now[0] = 1000.0

    options = {**hopeless, "sampler": "guided", "max_trials": 5, "certify": "none"}
    result = autoquant.search(**options, timeout=900.0, clock=lambda: now[0], listener=take_long)
    assert len(result.trials) in trials
    assert warned in result.warnings
    assert result.model is not None and result.model.is_file()


@pytest.mark.parametrize("times", [1, 2])
def test_a_metric_that_raises_fails_no_trial(hopeless: dict[str, Any], times: int) -> None:
    """It is called once more; then the search ends, and goes on later as if nothing had been."""
    calls: list[int] = []

    def touchy(outputs: NDArray[Any], labels: NDArray[Any]) -> Any:
        calls.append(len(outputs))
        if 5 <= len(calls) < 5 + times:  # three batches of the baseline, then the second of the first trial
            raise ConnectionError("the database is away")
        return np.square(outputs - labels).mean(axis=1)

    vars(touchy)["higher_is_better"] = False
    options = {**hopeless, "metric": touchy, "max_trials": 3}
    if times == 1:
        result = autoquant.search(**options)
    else:
        with pytest.raises(UserFunctionError, match=r"the database is away.*`autoquant resume .*` goes on"):
            autoquant.search(**options)
        result = autoquant.resume(hopeless["run"], metric=touchy)
    assert [(trial.number, trial.state) for trial in result.trials] == [(n, State.DONE) for n in range(3)]


def test_ten_failures_in_a_row_end_it(tiny: Tiny, hopeless: dict[str, Any], tmp_path: Path) -> None:
    images, data = (np.load(path)["x"] * np.float32(1e10) for path in (tiny.calibration, hopeless["data"]))
    labels = np.load(hopeless["data"])["y"]  # no legal scale for the first layer's input
    space = tmp_path / "failing.toml"
    space.write_text('[layer]\nact_algo = ["minmax", "ifmr"]\nasymmetric = [true, false]')
    changed = {"data": (data, labels), "calibration": (images, None), "space": space, "max_trials": 50}
    result = autoquant.search(**{**hopeless, **changed})
    assert result.verdict is Verdict.MISSED
    assert result.best is None
    assert result.model is None
    assert result.ended is Ended.FAILURES
    assert len(result.trials) == 10
    assert all(trial.failure.startswith("conv: calculate scale failed") for trial in result.trials)
    assert all(trial.state is State.FAILED and sum(trial.seconds.values()) > 0 for trial in result.trials)
    score = json.loads((hopeless["run"] / "trials" / "0000" / "score.json").read_text())
    assert score["state"] == "failed"
    assert "leave the layer in float" in score["failure"]


def with_huge_weights(tiny: Tiny, folder: Path) -> Path:
    """The tiny model with a last layer that has no legal scale."""
    weights, model = tiny.weights["dense"], folder / "huge.pb"
    model.write_bytes(tiny.model.read_bytes().replace(weights.tobytes(), (weights * np.float32(1e10)).tobytes()))
    return model


def test_a_failed_trial_does_not_end_it(tiny: Tiny, hopeless: dict[str, Any], tmp_path: Path) -> None:
    """The last layer's weights are too large for a legal scale; plans that leave it in float work out."""
    result = autoquant.search(**{**hopeless, "model": with_huge_weights(tiny, tmp_path), "max_trials": 25})
    failed = [trial for trial in result.trials if trial.state is State.FAILED]
    assert failed
    assert all("dense: weight scale" in trial.failure and "dense" in trial.plan.int8 for trial in failed)
    assert len(failed) < len(result.trials) == 25
    assert result.best is not None
    assert "dense" not in result.best.plan.int8


def test_a_layer_that_no_setting_cures_is_left_in_float(tiny: Tiny, hopeless: dict[str, Any], tmp_path: Path) -> None:
    """More starting points than failures in a row would end it; each is tried again without the layer at fault."""
    space = tmp_path / "many.toml"
    space.write_text("""
[layer]
quant_enable = [true, false]
act_algo = ["ifmr", "minmax", "percentile"]
asymmetric = [true, false]
channel_wise = [true, false]
[layer.percentile]
fraction = [0.99, 0.98, 0.97, 0.96, 0.95, 0.94, 0.93]
""")
    changed = {"model": with_huge_weights(tiny, tmp_path), "space": space, "max_trials": 15}
    result = autoquant.search(**{**hopeless, **changed})
    states = [trial.state for trial in result.trials]
    assert states == [State.FAILED] * 11 + [State.DONE] * 4
    assert {trial.at_fault for trial in result.trials[:11]} == {"dense"}
    assert result.trials[11].why == "as trial 0, with dense in float"
    assert {name for name, settings in result.trials[11].plan.layers.items() if settings is None} == {"dense"}
    assert result.ended is Ended.TRIALS


def test_a_run_folder_that_exists(hopeless: dict[str, Any]) -> None:
    hopeless["run"].mkdir()
    (hopeless["run"] / "mine.txt").write_text("precious")
    with pytest.raises(RunError, match=r"exists already; `autoquant resume .*run` goes on with it"):
        autoquant.search(**hopeless)
    assert (hopeless["run"] / "mine.txt").read_text() == "precious"


def test_a_run_folder_that_cannot_be_made(hopeless: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        autoquant.search(**{**hopeless, "run": tmp_path / "file" / "run"})


def test_a_read_only_disk(hopeless: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *args: Any, **options: Any) -> Never:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(RunError, match=r"run: cannot be written \(Read-only file system\); free the disk, or choose"):
        autoquant.search(**hopeless)


def test_a_mistake_leaves_no_folder_behind(tiny: Tiny, hopeless: dict[str, Any]) -> None:
    stored = np.load(tiny.evaluation)
    with pytest.raises(DataError, match="--label-offset"):
        autoquant.search(tiny.model, (stored["x"], stored["y"] + 1), tolerance="1%", run=hopeless["run"])
    assert not hopeless["run"].exists()


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"model": "absent.pb"}, ModelError, "absent.pb"),
        ({"outputs": ("score",)}, ModelError, "did you mean 'scores'"),
        ({"data": "absent.npz"}, DataError, "no such file"),
        ({"space": "quik"}, SpaceError, "quick"),
        ({"metric": "top1", "data": (np.zeros((4, 8, 8, 2), np.float32), None)}, DataError, "labels"),
        ({"calibration": (np.zeros((0, 8, 8, 2), np.float32), None)}, DataError, "empty"),
        (
            {"data": (np.zeros((4, 9, 8, 2), np.float32), None)},
            DataError,
            r"takes \(batch, 8, 8, 2\), the data has \(batch, 9, 8, 2\)",
        ),
        ({"data": (np.full((4, 8, 8, 2), np.nan, np.float32), None), "metric": "agreement"}, DataError, "NaN"),
    ],
    ids=["model", "output", "data", "space", "labels", "empty", "shape", "nan"],
)
def test_bad_input_says_where_and_what(
    hopeless: dict[str, Any], changed: dict[str, Any], error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        autoquant.search(**{**hopeless, **changed})
    assert not hopeless["run"].exists()
