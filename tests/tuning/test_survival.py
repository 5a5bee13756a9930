"""A search survives interruptions, kills at any moment and full disks, and refuses to go on with other data."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_model import Tiny

import autoquant
from autoquant.errors import DataError, RunError, UsageError
from autoquant.formats.config_json import config_text
from autoquant.model.litert.convert import convert
from autoquant.model.open import open_model
from autoquant.tuning import costly_layers, events
from autoquant.tuning.events import Event
from autoquant.tuning.result import CostlyLayers, Ended
from autoquant.tuning.study.run_folder import RunFolder
from autoquant.tuning.study.trial import State, Trial

SPACE = """
[global]
batch_num = [2, 1]
[layer]
quant_enable = [true, false]
act_algo = ["ifmr", "minmax"]
"""


class Died(BaseException):
    """The process is gone: nobody catches this, nothing is cleaned up."""


def test_ctrl_c_leaves_everything_in_order(hopeless: dict[str, Any]) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, events.TrialStarted) and event.number == 3:
            raise KeyboardInterrupt

    result = autoquant.search(**hopeless, listener=interrupt)
    assert result.ended is Ended.INTERRUPTED
    assert [trial.number for trial in result.trials] == [0, 1, 2]
    assert json.loads((hopeless["run"] / "result.json").read_text())["ended"] == "interrupted"
    resumed = autoquant.resume(hopeless["run"])
    assert resumed.ended is Ended.TRIALS
    assert resumed.trials[:3] == result.trials


MOMENTS = {
    ("tensorflow", "tpe"): (
        *("Opened", "baseline", "BaselineScored", "DataSplit", "Warned", "calibration", "Calibrated"),
        *("TrialStarted 0", "trial 0", "TrialEnded 0", "trial 2", "TrialStarted 4", "trial 4", "TrialEnded 4"),
        *("costly layers", "best model in TensorFlow", "Finished"),
    ),
    ("litert", "tpe"): ("TrialStarted 0", "TrialEnded 0", "trial 4", "costly layers", "latency", "reference kernels"),
    ("tensorflow", "guided"): (
        *("TrialStarted 0", "TrialEnded 0", "TrialStarted 2", "TrialEnded 2", "sensitivity of layers"),
        *("TrialStarted 4", "TrialEnded 4"),
    ),
}
"""When the process dies: before the trials, at the first, at a middle one, at the last, and behind them."""


@pytest.mark.parametrize(("target", "sampler"), MOMENTS)
def test_dying_at_any_moment_loses_nothing_finished(
    hopeless: dict[str, Any], tmp_path: Path, target: str, sampler: str
) -> None:
    """At events of every kind in turn the process dies; going on gives the trials of a run left alone."""
    heard: list[events.Event] = []
    hopeless |= {"max_trials": 5, "sampler": sampler}
    whole = autoquant.search(**hopeless, listener=heard.append)
    assert len(whole.trials) == 5
    names = [_name(event) for event in heard]
    moments = [names.index(name) for name in MOMENTS[target, sampler]]  # the first of them: progress is in the middle
    if (target, sampler) == ("tensorflow", "tpe"):
        assert {type(heard[moment]) for moment in moments} == set(map(type, heard)) == KINDS
    for moment in moments:
        options = {**hopeless, "run": tmp_path / f"died{moment}"}
        with pytest.raises(Died):
            autoquant.search(**options, listener=_dies_at(names[moment]))
        assert (options["run"] / "run.toml").is_file()
        seen = _finished(heard[:moment])
        if seen:
            assert (options["run"] / "best" / FILES[target]).is_file()
        enough = min(seen + 2, 5) if sampler == "tpe" else 5  # trials of the other depend on the budget
        resumed = autoquant.resume(options["run"], max_trials=enough)
        wanted = whole.trials[:enough]
        assert list(map(outcome, resumed.trials)) == list(map(outcome, wanted))
        assert [trial.number for trial in resumed.trials] == [trial.number for trial in wanted]


FILES = {"tensorflow": "tiny_quantized.pb", "litert": "tiny_int8.tflite"}
KINDS = set(get_args(events.Event)) - {events.Resumed, events.WorkersSeen, events.WorkerEnded}


def _name(event: events.Event) -> str:
    """What it is, and of which trial; of progress, what goes on."""
    if isinstance(event, events.Progress):
        return event.what
    number = event.trial.number if isinstance(event, events.TrialEnded) else getattr(event, "number", "")
    return f"{type(event).__name__} {number}".strip()


def outcome(trial: Trial) -> tuple[str, float | None]:
    return config_text(trial.plan), trial.score


def _dies_at(name: str) -> Callable[..., None]:
    """At the first event of this name: how many of a kind there are may depend on time."""

    def listener(event: Event) -> None:
        if _name(event) == name:
            raise Died

    return listener


def _finished(heard: list[Event]) -> int:
    return sum(isinstance(event, events.TrialEnded) for event in heard)


KILLED = """
import os, signal, sys
import autoquant
from autoquant.tuning import events
from autoquant.tuning.study.run_folder import RunFolder

started = []

def kill(event):
    if isinstance(event, events.TrialStarted):
        started.append(event.number)
    if isinstance(event, events.Progress) and len(started) == 4 and event.done > 20:
        os.kill(os.getpid(), signal.SIGKILL)

model, data, calibration, space, run = sys.argv[1:]
autoquant.search(model, data, calibration=calibration, metric="mse", tolerance=0, space=space, target="litert",
                 max_trials=6, batch_size=20, sampler="tpe", run=run, listener=kill)
"""


@pytest.mark.parametrize(
    ("target", "phase", "never"),
    [
        ("tensorflow", "costly layers", "latency"),
        ("tensorflow", "best model in TensorFlow", "certification"),
        ("litert", "costly layers", "latency"),
        ("litert", "latency", "reference kernels"),
        ("litert", "reference kernels", "certification"),
    ],
)
def test_ctrl_c_after_the_trials_ends_it_at_once(hopeless: dict[str, Any], phase: str, never: str) -> None:
    """The result stands, and is written; what would follow does not begin."""
    heard: list[str] = []

    def interrupt(event: Event) -> None:
        heard.append(_name(event))
        if heard[-1] == phase:
            raise KeyboardInterrupt

    result = autoquant.search(**{**hopeless, "max_trials": 2}, listener=interrupt)
    assert result.ended is Ended.INTERRUPTED
    assert heard[-1] == "Finished"
    assert never not in heard[heard.index(phase) :]
    assert json.loads((hopeless["run"] / "result.json").read_text())["ended"] == "interrupted"
    assert autoquant.resume(hopeless["run"]).ended is Ended.TRIALS


@pytest.mark.parametrize("target", ["litert"])  # tests/faults kills both
def test_kill_9(hopeless: dict[str, Any], tmp_path: Path) -> None:
    """Of a .tflite, for which the process that is killed need not load TensorFlow."""
    content = convert(open_model(hopeless["model"]).graph).content
    hopeless["model"] = tmp_path / "tiny.tflite"
    hopeless["model"].write_bytes(content)
    names = ("model", "data", "calibration", "space", "run")
    arguments = [str(hopeless[name]) for name in names]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    # What a kill in the middle of a write to the journal leaves: a line without its end, and the journal's lock.
    with (hopeless["run"] / "study.journal").open("a") as journal:
        journal.write('{"op_code": 8, "worker')
    (hopeless["run"] / "study.journal.lock").symlink_to("study.journal")
    resumed = autoquant.resume(hopeless["run"])
    alone = autoquant.search(**{**hopeless, "run": hopeless["run"].parent / "alone", "max_trials": 6})
    assert [trial.number for trial in resumed.trials] == [trial.number for trial in alone.trials]
    assert list(map(outcome, resumed.trials)) == list(map(outcome, alone.trials))
    assert resumed.best is not None
    assert alone.best is not None
    assert resumed.best.number == alone.best.number


@pytest.mark.parametrize("target", FILES)
def test_resume_goes_on_with_a_larger_budget(hopeless: dict[str, Any]) -> None:
    first = autoquant.search(**{**hopeless, "max_trials": 3})
    more = autoquant.resume(hopeless["run"], max_trials=5)
    assert more.trials[:3] == first.trials
    assert len(more.trials) == 5
    assert more.evaluated_samples == 300


def test_resume_refuses_another_model_or_other_data(tiny: Tiny, hopeless: dict[str, Any], tmp_path: Path) -> None:
    model, data = tmp_path / "model.pb", tmp_path / "data.npz"
    model.write_bytes(tiny.model.read_bytes())
    data.write_bytes(hopeless["data"].read_bytes())
    autoquant.search(**{**hopeless, "model": model, "data": data, "max_trials": 1})
    stored = np.load(hopeless["data"])
    np.savez(data, x=stored["x"] + 1, y=stored["y"])
    with pytest.raises(RunError, match=r"the data \(.*data.npz\) is not what the run was started with"):
        autoquant.resume(hopeless["run"])
    np.savez(data, x=stored["x"], y=stored["y"])
    content = bytearray(model.read_bytes())
    position = content.find(np.float32(tiny.weights["dense"][0, 0]).tobytes())
    content[position] ^= 1
    model.write_bytes(bytes(content))
    with pytest.raises(RunError, match=r"the model \(.*model.pb\) is not what the run was started with"):
        autoquant.resume(hopeless["run"])


@pytest.mark.parametrize(
    "changed",
    [{"tolerance": 1.0}, {"outputs": ("dense",)}, {"batch_size": 10}, {"seed": 1}],
    ids=str,
)
def test_resume_refuses_what_makes_trials_incomparable(hopeless: dict[str, Any], changed: dict[str, Any]) -> None:
    first = autoquant.search(**{**hopeless, "max_trials": 2})
    with pytest.raises(UsageError, match="cannot change when a run is resumed"):
        autoquant.resume(hopeless["run"], **changed)
    assert first.model is not None
    assert first.model.is_file()


def test_resume_refuses_another_metric(hopeless: dict[str, Any]) -> None:
    autoquant.search(**{**hopeless, "max_trials": 1})
    with pytest.raises(RunError, match=r"the metric \(psnr\) is not what the run .*--accept-changed metric"):
        autoquant.resume(hopeless["run"], metric="psnr")


def test_resume_refuses_a_metric_that_was_edited(hopeless: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def metric(outputs, labels):\n    return -abs(outputs - labels).max(axis=1)\n")
    autoquant.search(**{**hopeless, "metric": f"{file}:metric", "max_trials": 1})
    score = autoquant.resume(hopeless["run"], max_trials=2).trials[1].score
    assert score is not None
    assert score < 0
    file.write_text("def metric(outputs, labels):\n    return 100 - abs(outputs - labels).max(axis=1)\n")
    with pytest.raises(RunError, match=r"the metric \(.*mine.py:metric\) is not what the run was started with"):
        autoquant.resume(hopeless["run"], max_trials=3)


def test_resume_from_another_folder(hopeless: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A metric and a preprocessing in a file beside the user, called by their relative names; presets' names stay."""
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "def metric(outputs, labels):\n    return -abs(outputs - labels).max(axis=1)\n"
        "def prepare(x):\n    return x * np.float32(1)\n"
    )
    (tmp_path / "mse").mkdir()
    monkeypatch.chdir(tmp_path)
    own = {"metric": "mine.py:metric", "preprocess": "mine.py:prepare", "max_trials": 1}
    autoquant.search(**{**hopeless, **own})
    autoquant.search(**{**hopeless, "max_trials": 1, "run": tmp_path / "preset"})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(autoquant.resume(hopeless["run"], max_trials=2).trials) == 2
    assert len(autoquant.resume(tmp_path / "preset", max_trials=2).trials) == 2


def test_a_larger_budget_is_remembered(hopeless: dict[str, Any]) -> None:
    """A resumed run that is interrupted goes on with the budget it was last given."""

    def interrupt(event: Event) -> None:
        if isinstance(event, events.TrialEnded) and event.trials == 3:
            raise KeyboardInterrupt

    autoquant.search(**{**hopeless, "max_trials": 1})
    autoquant.resume(hopeless["run"], max_trials=5, listener=interrupt)
    assert len(autoquant.resume(hopeless["run"]).trials) == 5


def test_data_that_cannot_be_read_any_more_ends_the_search_and_spoils_no_plan(hopeless: dict[str, Any]) -> None:
    stored = np.load(hopeless["data"])
    broken: list[Any] = []

    def batches() -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        for start in range(0, 60, 20):
            if broken and start == 20:
                raise OSError("stale handle")
            yield stored["x"][start : start + 20], stored["y"][start : start + 20]

    def break_it(event: Event) -> None:
        if isinstance(event, events.TrialStarted) and event.number == 1:
            broken.append(True)

    with pytest.raises(DataError, match=r"stale handle.*finished trials are kept, and `autoquant resume"):
        autoquant.search(**{**hopeless, "data": batches, "cache": 0, "max_trials": 3}, listener=break_it)
    broken.clear()
    resumed = autoquant.resume(hopeless["run"], data=batches)
    assert {trial.state for trial in resumed.trials} == {State.DONE}
    assert len({config_text(trial.plan) for trial in resumed.trials}) == 3


@pytest.mark.parametrize("target", FILES)
def test_an_interruption_while_best_moves(hopeless: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The result never names a model that is not that trial's."""
    point = RunFolder.point_best
    calls = []

    def interrupted(self: RunFolder, number: int) -> None:
        calls.append(number)
        if len(calls) == 2:
            raise KeyboardInterrupt
        point(self, number)

    monkeypatch.setattr(RunFolder, "point_best", interrupted)
    result = autoquant.search(**hopeless)
    assert result.ended is Ended.INTERRUPTED
    assert result.best is not None
    assert (hopeless["run"] / "best").readlink().name == f"{result.best.number:04d}"
    assert result.model is not None
    assert result.model.is_file()


@pytest.mark.parametrize("target", FILES)
def test_a_copy_without_links_goes_on(hopeless: dict[str, Any], tmp_path: Path) -> None:
    """As an upload of artifacts makes it."""
    first = autoquant.search(**{**hopeless, "max_trials": 2})
    copy = shutil.copytree(hopeless["run"], tmp_path / "copy")
    assert not (copy / "best").is_symlink()
    made = autoquant.export(copy, tmp_path / "out")
    assert first.best is not None
    assert first.model is not None
    assert (made.trial, made.model.read_bytes()) == (first.best.number, first.model.read_bytes())
    assert len(autoquant.resume(copy, max_trials=3).trials) == 3


def test_a_search_that_died_before_its_first_trial(hopeless: dict[str, Any]) -> None:
    hopeless["run"].mkdir()
    for name in (".lock", "space.toml", ".run.toml.123.tmp"):
        (hopeless["run"] / name).write_text("")
    assert len(autoquant.search(**{**hopeless, "max_trials": 1}).trials) == 1


def test_warnings_of_the_baseline_outlive_a_resume(tiny: Tiny, tmp_path: Path) -> None:
    stored = np.load(tiny.evaluation)
    labels = np.where(np.arange(200) % 5 == 0, 1, 0)
    first = autoquant.search(tiny.model, (stored["x"], labels), tolerance="1%", max_trials=1, run=tmp_path / "run")
    assert len(first.warnings) == 1
    assert autoquant.resume(first.run, data=(stored["x"], labels)).warnings == first.warnings


def test_a_best_model_that_somebody_deleted_is_built_again(hopeless: dict[str, Any]) -> None:
    first = autoquant.search(**{**hopeless, "max_trials": 2})
    assert first.model is not None
    content = first.model.read_bytes()
    first.model.unlink()
    again = autoquant.resume(hopeless["run"])
    assert again.model is not None
    assert again.model.read_bytes() == content


def test_files_of_the_users_own_are_left_alone(hopeless: dict[str, Any]) -> None:
    autoquant.search(**{**hopeless, "max_trials": 2})
    notes = [hopeless["run"] / "trials" / "notes.txt", hopeless["run"] / "trials" / "0000" / "notes.txt"]
    for file in notes:
        file.write_text("mine")
    autoquant.resume(hopeless["run"], max_trials=4)
    assert all(file.read_text() == "mine" for file in notes)


@pytest.mark.parametrize("target", FILES)
def test_interruptions_are_not_the_plans_fault(hopeless: dict[str, Any]) -> None:
    """However often a trial is interrupted, it is begun again; the first plan is the most important of all."""

    def interrupt(event: Event) -> None:
        if isinstance(event, events.TrialStarted):
            raise KeyboardInterrupt

    autoquant.search(**{**hopeless, "max_trials": 6}, listener=interrupt)
    for _ in range(5):
        autoquant.resume(hopeless["run"], listener=interrupt)
    resumed = autoquant.resume(hopeless["run"])
    alone = autoquant.search(**{**hopeless, "run": hopeless["run"].parent / "alone", "max_trials": 5})
    assert set(map(outcome, alone.trials)) <= set(map(outcome, resumed.trials))


def test_the_result_is_told_even_if_costly_layers_cannot_be_found(
    hopeless: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trials are over and the verdict is known: a full disk now must not take it away."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(costly_layers, "_measured", full)
    heard: list[Any] = []
    result = autoquant.search(**{**hopeless, "max_trials": 2}, listener=heard.append)
    assert (result.ended, result.costly) == (Ended.TRIALS, CostlyLayers())
    assert any(isinstance(event, events.Warned) and "No space left" in event.text for event in heard)
    assert json.loads((hopeless["run"] / "result.json").read_text())["trials"] == 2


def test_two_searches_that_start_at_once(hopeless: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Both find no folder; one gets the lock, and the other leaves everything as it is."""
    monkeypatch.setattr(RunFolder, "refuse_existing", lambda self: None)

    def start_another(event: Event) -> None:
        if isinstance(event, events.BaselineScored):
            with pytest.raises(RunError, match="another process is working on it"):
                autoquant.search(**hopeless)

    result = autoquant.search(**{**hopeless, "max_trials": 2}, listener=start_another)
    assert len(result.trials) == 2
    assert result.model is not None
    assert result.model.is_file()


def test_resume_with_another_model_blames_the_model(tiny: Tiny, hopeless: dict[str, Any], tmp_path: Path) -> None:
    """Though the data does not fit that model either."""
    import tensorflow as tf

    model = tmp_path / "model.pb"
    model.write_bytes(tiny.model.read_bytes())
    autoquant.search(**{**hopeless, "model": model, "max_trials": 1})
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 3), name="feature")
        tf.linalg.matmul(x, tf.ones((3, 2)), name="scores")
    model.write_bytes(graph.as_graph_def().SerializeToString())
    with pytest.raises(RunError, match=r"the model \(.*model\.pb\) is not what the run was started with"):
        autoquant.resume(hopeless["run"])


def test_a_folder_of_the_users_outlives_a_failed_start(tiny: Tiny, hopeless: dict[str, Any]) -> None:
    hopeless["run"].mkdir()
    stored = np.load(tiny.evaluation)
    with pytest.raises(DataError, match="--label-offset"):
        autoquant.search(tiny.model, (stored["x"], stored["y"] + 1), tolerance="1%", run=hopeless["run"])
    assert list(hopeless["run"].iterdir()) == []


def test_one_process_at_a_time(hopeless: dict[str, Any]) -> None:
    def resume_inside(event: Event) -> None:
        if isinstance(event, events.TrialStarted):
            with pytest.raises(RunError, match="another process is working on it"):
                autoquant.resume(hopeless["run"])

    autoquant.search(**{**hopeless, "max_trials": 1}, listener=resume_inside)


@pytest.mark.parametrize("target", FILES)
def test_a_full_disk_says_so_and_keeps_what_was_finished(hopeless: dict[str, Any]) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(event: Event) -> None:
        if isinstance(event, events.TrialStarted) and event.number == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))

    try:
        with pytest.raises(RunError, match=r"cannot be written .*finished trials are kept, and `autoquant resume"):
            autoquant.search(**hopeless, listener=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    resumed = autoquant.resume(hopeless["run"])
    assert len(resumed.trials) == 7
    assert [trial.number for trial in resumed.trials][:2] == [0, 1]
