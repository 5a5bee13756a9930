"""Runs whose files were damaged, lost or moved, and runs whose metric or calibration is another one now."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from plain_lite import lite_outputs
from tiny_model import Tiny

import autoquant
from autoquant.errors import RunError, UsageError
from autoquant.tuning.certification.certificate import Verdict, read_holdout_log
from autoquant.tuning.result import SearchResult
from autoquant.tuning.study.run_folder import CHANGES, RunFolder
from autoquant.tuning.study.trial import Trial

METRIC = """
import numpy as np

def metric(outputs, labels):
    return (np.abs(outputs - labels).max(axis=1) < 0.08) * float({factor})

metric.bounds = (0, {factor})
"""
TARGETS = {"tensorflow": "20%", "litert": "45%"}
"""And a tolerance for each, that neither the first trials nor only the last are within."""
ADDED = ("score_tensorflow", "verification")
"""What is added to the score.json of the best trial at last."""
SPACE = '[layer]\nquant_enable = [true, false]\nact_algo = ["ifmr", "minmax"]\n'


def outputs_of(model: Path, images: NDArray[Any]) -> NDArray[Any]:
    """Those of a graph, by plain TensorFlow."""
    import tensorflow as tf

    graph_def = tf.compat.v1.GraphDef.FromString(model.read_bytes())
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(graph_def, name="")
        return np.asarray(session.run("scores:0", {"image:0": images}))


OUTPUTS = {"tensorflow": outputs_of, "litert": lite_outputs}


@pytest.fixture(scope="module")
def options(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("options")
    for name, text in (("mine.py", METRIC.format(factor=1)), ("space.toml", SPACE)):
        (folder / name).write_text(text)
    shutil.copy(tiny.model, folder / "model.pb")
    shutil.copy(tiny.calibration, folder / "calibration.npz")
    images = np.load(tiny.evaluation)["x"]
    np.savez(folder / "data.npz", x=images, y=outputs_of(tiny.model, images))
    return {
        "model": folder / "model.pb",
        "data": folder / "data.npz",
        "calibration": folder / "calibration.npz",
        "metric": f"{folder / 'mine.py'}:metric",
        "space": folder / "space.toml",
        "sampler": "tpe",
        "max_trials": 4,
        "run": folder / "run",
    }


@pytest.fixture(scope="module")
def runs(options: dict[str, Any]) -> dict[str, SearchResult]:
    """A certified run of each target, whose best trial is neither the first nor the last."""
    found = {}
    for target, tolerance in TARGETS.items():
        place = options["run"] / target
        result = found[target] = autoquant.search(**{**options, "target": target, "tolerance": tolerance, "run": place})
        assert (result.verdict, len(result.trials), result.best and result.best.number) == (Verdict.CERTIFIED, 4, 2)
    return found


@pytest.fixture
def whole(runs: dict[str, SearchResult], target: str) -> SearchResult:
    """The run of a target."""
    return runs[target]


@pytest.fixture
def run(whole: SearchResult, tmp_path: Path) -> Path:
    """A copy of it, to damage."""
    return shutil.copytree(whole.run, tmp_path / "copy", symlinks=True)


def untimed(result: SearchResult) -> list[Trial]:
    return [replace(trial, seconds={}) for trial in result.trials]


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zeros(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


REBUILT = {
    "tensorflow": [
        *("study.journal", "space.toml", "splits.npz", "baseline.npz", "statistics.npz", "result.json"),
        *("best/config.json", "best/record.txt", "best/score.json", "best/certificate.json"),
        *("best/model_quantized.pb", "best/model_quant.json"),
    ],
    "litert": [
        *("study.journal", "splits.npz", "baseline.npz", "statistics.npz"),
        *("best/record.txt", "best/score.json", "best/certificate.json", "best/model_int8.tflite"),
    ],
}
"""Files of a run, the best trial's among them, that a search can go on without."""


@pytest.mark.parametrize("damage", [Path.unlink, truncated, zeros], ids=["deleted", "cut", "zeros"])
@pytest.mark.parametrize(("target", "name"), [(target, name) for target in REBUILT for name in REBUILT[target]])
def test_every_file_of_a_run_is_rebuilt(
    run: Path, whole: SearchResult, name: str, damage: Callable[[Path], None]
) -> None:
    damage(run / name)
    again = autoquant.resume(run)
    assert untimed(again) == untimed(whole)
    assert (again.verdict, again.best and again.best.number) == (whole.verdict, whole.best and whole.best.number)
    assert again.certificate == whole.certificate
    original = whole.run / name
    if name.endswith((".pb", ".tflite", ".txt", ".toml", "config.json", "quant.json", "certificate.json")):
        assert (run / name).read_bytes() == original.read_bytes()
    elif name.endswith("score.json"):
        found, wanted = (json.loads(path.read_text()) for path in (run / name, original))
        assert {key: value for key, value in found.items() if key not in ADDED} == {
            key: value for key, value in wanted.items() if key not in ADDED
        }
    assert autoquant.explain(run).run.trials


@pytest.mark.parametrize("target", TARGETS)
def test_the_folder_of_the_best_trial_is_rebuilt(run: Path, whole: SearchResult) -> None:
    folder = (run / "best").resolve()
    shutil.rmtree(folder)
    again = autoquant.resume(run)
    assert untimed(again) == untimed(whole)
    names = {path.name for path in folder.iterdir()}
    kept = {path.name for path in (whole.run / "best").resolve().iterdir()}
    assert names == kept - {CHANGES}  # which only scoring could say; a report does without


def test_a_lost_log_of_the_holdout_does_not_open_it_again(run: Path) -> None:
    """What is left of it are the certificates."""
    (run / "holdout_log.json").unlink()
    score = run / "best" / "score.json"
    number = json.loads(score.read_text())["number"]
    assert [one.trial for one in read_holdout_log(RunFolder(run))] == [number]


@pytest.mark.parametrize("name", ["run.toml", "holdout_log.json"])
@pytest.mark.parametrize("damage", [truncated, zeros], ids=["cut", "zeros"])
def test_what_cannot_be_rebuilt_is_named(run: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(run / name)
    with pytest.raises(RunError, match=name.replace(".", r"\.")):
        autoquant.resume(run)


def test_explain_leaves_out_what_is_damaged(run: Path, whole: SearchResult) -> None:
    (run / "trials" / "0001" / "score.json").write_text("{")
    found = autoquant.explain(run)
    assert [trial.number for trial in found.run.trials] == [0, 2, 3]
    (told,) = found.facts()["damaged"]
    assert "0001/score.json" in told
    assert "`autoquant resume`" in told


@pytest.mark.parametrize("target", TARGETS)
def test_model_data_and_run_were_moved(options: dict[str, Any], whole: SearchResult, tmp_path: Path) -> None:
    places = {}
    for name in ("model", "data", "calibration"):
        places[name] = tmp_path / options[name].name
        shutil.copy(options[name], places[name])
    mine = shutil.copy(options["metric"].removesuffix(":metric"), tmp_path)
    run = shutil.copytree(whole.run, tmp_path / "elsewhere", symlinks=True)
    text = (run / "run.toml").read_text().replace(str(options["model"].parent), "/nowhere")
    (run / "run.toml").write_text(text)
    out = autoquant.export(run, tmp_path / "out", trial=1, target="litert", **places, metric=f"{mine}:metric")
    assert out.model.is_file()
    with pytest.raises(RunError, match=r"the data .* is not what the run was started with"):
        other = tmp_path / "other.npz"
        stored = np.load(options["data"])
        np.savez(other, x=stored["x"] + 1, y=stored["y"])
        autoquant.resume(run, **{**places, "data": other, "metric": f"{mine}:metric"})
    more = autoquant.resume(run, **places, metric=f"{mine}:metric", max_trials=5)
    assert untimed(more)[:4] == untimed(whole)
    assert len(autoquant.resume(run, max_trials=6).trials) == 6  # the new places are remembered


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("what", ["metric", "calibration"])
def test_what_changed_is_accepted_and_all_trials_are_scored_again(
    options: dict[str, Any], whole: SearchResult, run: Path, tmp_path: Path, what: str, target: str
) -> None:
    text = (run / "run.toml").read_text()
    if what == "metric":
        (tmp_path / "mine.py").write_text(METRIC.format(factor=100))
        changed: dict[str, Any] = {"metric": f"{tmp_path / 'mine.py'}:metric"}
    else:
        np.savez(tmp_path / "mended.npz", x=np.load(options["calibration"])["x"][5:])
        changed = {"calibration": tmp_path / "mended.npz"}
    before = {path.name: path.read_bytes() for path in run.glob("trials/*/score.json")}
    with pytest.raises(RunError, match=rf"the {what} .*; --accept-changed {what} scores all trials again"):
        autoquant.resume(run, **changed)
    assert (run / "run.toml").read_text() == text
    again = autoquant.resume(run, **changed, accept_changed=[what])
    assert [trial.plan for trial in again.trials] == [trial.plan for trial in whole.trials]
    assert again.model is not None
    stored, search = np.load(options["data"]), np.load(run / "splits.npz")["search"]
    close = np.abs(OUTPUTS[target](again.model, stored["x"][search]) - stored["y"][search]).max(axis=1) < 0.08
    assert again.score == pytest.approx(close.mean() * (100 if what == "metric" else 1))
    assert all(trial.number > 3 for trial in again.trials)
    assert again.uncertified.startswith("the holdout was used for trial")
    assert {path.name: path.read_bytes() for path in run.glob("superseded/*/score.json")} == before
    assert any(f"the {what} changed: " in text for text in again.warnings)
    assert [trial.number for trial in autoquant.explain(run).run.trials] == [t.number for t in again.trials]
    assert untimed(autoquant.resume(run)) == untimed(again)


def test_other_things_that_changed_are_not_accepted(run: Path) -> None:
    with pytest.raises(UsageError, match="--accept-changed: unknown 'data'; it can be metric, calibration"):
        autoquant.resume(run, accept_changed=["data"])
