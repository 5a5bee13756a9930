"""What a real search leaves for its report, checked against plain sessions and NumPy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import Tiny

import autoquant
from autoquant.array import Array
from autoquant.reports import writer
from autoquant.reports.run_files import RunFiles, RunReader
from autoquant.reports.view import report_view
from autoquant.tuning.events import Event, Finished, TrialEnded, Warned
from autoquant.tuning.phases import load_phases
from autoquant.tuning.study.run_folder import CHANGES, RunFolder


@pytest.fixture(scope="module")
def searched(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> RunFiles:
    """A run of two trials, of which the second one, per channel, is scored on everything."""
    folder = tmp_path_factory.mktemp("written") / "run"
    options: dict[str, Any] = {"tolerance": 0.5, "max_trials": 3, "certify": "none", "space": "quick"}
    autoquant.search(tiny.model, tiny.evaluation, calibration=tiny.calibration, run=folder, **options)
    return RunReader(RunFolder(folder)).read()


def classes_of(graph: Path, x: Array) -> Array:
    """The classes that a frozen graph gives, in a plain session of TensorFlow."""
    import tensorflow as tf

    definition = tf.compat.v1.GraphDef.FromString(graph.read_bytes())
    with tf.Graph().as_default() as opened:
        tf.import_graph_def(definition, name="")
        with tf.compat.v1.Session(graph=opened) as session:
            scores: Array = session.run("scores:0", {"image:0": x})
            classes: Array = scores.argmax(axis=1)
            return classes


def test_the_layers_are_told_in_order_with_their_cost(searched: RunFiles, tiny: Tiny) -> None:
    overview = searched.overview
    assert overview is not None
    assert [one.name for one in overview.layers] == ["conv", "depthwise", "dense"]
    assert [one.op for one in overview.layers] == ["Conv2D", "DepthwiseConv2dNative", "MatMul"]
    shapes = [tiny.weights[one.name].shape for one in overview.layers]
    assert [one.weight_shape for one in overview.layers] == shapes
    # By hand: outputs of 8x8 pixels, of 3x3 (no padding, stride 2), and one.
    pixels = [64, 9, 1]
    assert [one.cost for one in overview.layers] == [
        count * int(np.prod(shape)) for count, shape in zip(pixels, shapes, strict=True)
    ]
    assert overview.float_bytes == tiny.model.stat().st_size
    assert overview.terms == (searched.trials.terms if searched.trials else None)


def test_the_samples_that_changed_are_those_that_plain_sessions_tell_apart(searched: RunFiles, tiny: Tiny) -> None:
    with np.load(tiny.evaluation) as data:
        x, y = data["x"], np.asarray(data["y"]).reshape(-1)
    before = classes_of(tiny.model, x)
    after = classes_of(next(searched.folder.best.glob("*.pb")), x)
    changes = searched.changes
    assert changes is not None
    assert changes.samples == len(y)
    worse, better = (before == y) & (after != y), (before != y) & (after == y)
    assert abs(changes.worse - int(worse.sum())) <= 1  # another engine scored them
    assert abs(changes.better - int(better.sum())) <= 1
    for one in changes.changed:
        assert (one.label, one.before) == (y[one.sample], before[one.sample])


def test_a_page_is_there_and_says_what_was_found(searched: RunFiles) -> None:
    page = searched.folder.report.read_text(encoding="utf-8")
    assert searched.best is not None
    assert f"{searched.best.int8_layers} of 3 layers run in INT8" in page
    assert "Going on" not in page
    phases = load_phases(searched.folder.phases)
    assert {"trials", "baseline", "opening the model"} <= phases.seconds.keys()
    assert phases.samples["trials"] == searched.trials.samples if searched.trials else False
    result = json.loads(searched.folder.result.read_text())
    assert sum(phases.seconds.values()) == pytest.approx(result["seconds"], rel=0.2, abs=0.5)


def test_only_the_best_trial_says_which_samples_changed(searched: RunFiles) -> None:
    assert searched.best is not None
    having = [path.parent.name for path in searched.folder.path.glob(f"trials/*/{CHANGES}")]
    assert having == [searched.folder.trial(searched.best.number).name]


def test_a_run_of_an_earlier_version_has_a_page_that_says_what_is_missing(searched: RunFiles, tmp_path: Path) -> None:
    import shutil

    old = tmp_path / "old"
    shutil.copytree(searched.folder.path, old, symlinks=True)
    for file in (old / "overview.json", old / "phases.json", *old.glob(f"trials/*/{CHANGES}")):
        file.unlink()
    view = report_view(RunReader(RunFolder(old)).read())
    assert "earlier version" in view["samples"]["missing"]
    assert "earlier version" in " ".join(view["layers"]["notes"])
    assert "earlier version" in " ".join(view["effort"]["notes"])


def test_trouble_with_a_report_is_said_once_and_ends_nothing(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(folder: RunFolder) -> Any:
        raise KeyError("a bug in a template")

    monkeypatch.setattr(writer, "page_writer", broken)
    heard: list[Event] = []
    options: dict[str, Any] = {"tolerance": 0.5, "max_trials": 2, "certify": "none", "space": "quick"}
    result = autoquant.search(
        tiny.model,
        tiny.evaluation,
        calibration=tiny.calibration,
        run=tmp_path / "run",
        listener=heard.append,
        **options,
    )
    assert result.best is not None
    assert any(isinstance(event, TrialEnded) for event in heard)
    assert isinstance(heard[-1], Finished)
    told = [event.text for event in heard if isinstance(event, Warned) and "report.html" in event.text]
    assert told == ["report.html could not be written: KeyError: 'a bug in a template'"]
    assert not (tmp_path / "run" / "report.html").exists()
