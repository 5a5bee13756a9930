"""Searches, plans and exports for a device: what is saved keeps to its profile, and the run knows it."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plain_lite import lite_outputs
from tiny_model import Tiny

import autoquant
from autoquant.errors import ModelError, PlanError, UsageError
from autoquant.formats.config_json import load_config
from autoquant.model.litert import flatbuffer
from autoquant.targets.profiles.profile import DOCUMENTATION
from autoquant.targets.profiles.table import PROFILES
from autoquant.tuning.certification.certificate import Verdict
from autoquant.tuning.events import Event, Warned
from autoquant.tuning.result import SearchResult

STRICT = ("edgetpu", "esp32-s3", "esp32-p4", "ethos-u-vela3")
"""Profiles that narrow most."""


def searched(tiny: Tiny, run: Path, name: str, **options: Any) -> SearchResult:
    given: dict[str, Any] = {"calibration": tiny.calibration, "tolerance": 0.5, "max_trials": 1, "certify": "none"}
    given |= {"target": "litert", "profile": name, "io": PROFILES[name].io[0], "batch_size": 50} if name else {}
    return autoquant.search(tiny.model, tiny.evaluation, run=run, **{**given, **options})


@pytest.fixture(scope="module")
def runs(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, SearchResult]:
    folder = tmp_path_factory.mktemp("devices")
    plain = searched(tiny, folder / "plain", "", target="litert")
    return {"": plain, **{name: searched(tiny, folder / name, name) for name in STRICT}}


def scales_of(path: Path) -> list[float]:
    tensors = flatbuffer.read(path.read_bytes()).subgraphs[0].tensors
    given = (tensor.quantization for tensor in tensors if flatbuffer.type_name(tensor) == "INT8")
    return [float(scale) for one in given if one is not None for scale in one.scale]


@pytest.mark.parametrize("name", STRICT)
def test_the_best_keeps_to_the_profile(runs: dict[str, SearchResult], tiny: Tiny, name: str) -> None:
    result = runs[name]
    assert result.verdict is Verdict.MET and result.model is not None and result.device is not None
    assert (result.device.profile, result.device.violations) == (name, ())
    assert result.device.checked == DOCUMENTATION
    facts = json.loads((result.run / "result.json").read_text())["device"]
    assert facts == result.device.facts()
    assert tomllib.loads((result.run / "run.toml").read_text())["request"]["profile"] == name
    stored = np.load(tiny.evaluation)
    if PROFILES[name].io[0] == "float32":
        scores = np.concatenate([lite_outputs(result.model, stored["x"][i : i + 1]) for i in range(200)])
        assert np.mean(scores.argmax(axis=1) == stored["y"]) == pytest.approx(result.score, abs=1e-12)
    if PROFILES[name].power_of_two:
        assert all(np.frexp(scale)[0] == 0.5 for scale in scales_of(result.model))


def test_without_a_profile_nothing_is_said_of_one(runs: dict[str, SearchResult]) -> None:
    assert runs[""].device is None
    assert json.loads((runs[""].run / "result.json").read_text())["device"] is None
    assert "profile" not in tomllib.loads((runs[""].run / "run.toml").read_text())["request"]


@pytest.mark.parametrize("name", ["esp32-s3", "edgetpu"])
def test_every_trial_of_a_wide_space_keeps_to_it(tiny: Tiny, tmp_path: Path, name: str) -> None:
    """Searched for more than it can give, so that all that follows a miss runs as well."""
    options: dict[str, Any] = {"tolerance": 0.0001, "space": "thorough", "max_trials": 6, "keep_all_models": True}
    result = searched(tiny, tmp_path / "run", name, **options)
    files = sorted((tmp_path / "run").rglob("*_int8.tflite"))
    assert len(files) > 1 and result.device is not None
    for file in files:
        assert autoquant.check_device(file, name).violations == (), file


def test_the_report_and_the_summary_say_it(runs: dict[str, SearchResult]) -> None:
    from autoquant.cli.summary import summary

    said = [what for _, what in summary(runs["esp32-s3"])]
    assert "Espressif ESP32-S3, by ESP-DL: the file keeps to profile esp32-s3" in said
    assert f"the profile was checked {DOCUMENTATION}" in said
    assert not any("profile" in what for _, what in summary(runs[""]))
    page = (runs["esp32-s3"].run / "report.html").read_text(encoding="utf-8")
    assert f"profile esp32-s3, checked {DOCUMENTATION}" in page


def test_a_resumed_search_has_the_same_profile(tiny: Tiny, tmp_path: Path) -> None:
    first = searched(tiny, tmp_path / "run", "esp32-s3", tolerance=0.0001)
    again = autoquant.resume(first.run, max_trials=3)
    assert again.device is not None and again.device.violations == ()
    assert len(again.trials) > len(first.trials)
    for trial in again.trials:
        assert not any(one.asymmetric or one.channel_wise or not one.power_of_two for one in trial.plan.int8.values())


def test_what_breaks_the_profile_is_warned_of(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from autoquant.targets.profiles import check

    broken = (check.Violation("y", "is wrong"),)
    monkeypatch.setattr(check, "violations", lambda content, profile: broken)
    seen: list[Event] = []
    result = searched(tiny, tmp_path / "run", "esp32-s3", listener=seen.append)
    assert result.device is not None and result.device.violations == broken
    told = [event.text for event in seen if isinstance(event, Warned)]
    assert "the file breaks profile esp32-s3: y: is wrong" in told


def test_a_plan_of_another_device_is_refused(runs: dict[str, SearchResult], tiny: Tiny, tmp_path: Path) -> None:
    config = runs[""].run / "best" / "config.json"
    for name, rule in (("esp32-s3", "must"), ("ethos-u-vela3", "channel_wise must be false for layer type MatMul")):
        with pytest.raises(PlanError, match=rf"{rule}.* on profile {name}") as caught:
            autoquant.quantize(tiny.model, config, tiny.calibration, tmp_path / "out", target="litert", profile=name)
        assert not (tmp_path / "out").exists()
        assert f"`autoquant export RUN --target litert --profile {name}` makes it fit" in str(caught.value)


def test_a_layer_in_float_is_refused_where_nothing_may_be(
    runs: dict[str, SearchResult], tiny: Tiny, tmp_path: Path
) -> None:
    config = json.loads((runs["edgetpu"].run / "best" / "config.json").read_text())
    config["conv"]["quant_enable"] = False
    (tmp_path / "config.json").write_text(json.dumps(config))
    options: dict[str, Any] = {"target": "litert", "profile": "edgetpu", "io": "int8"}
    with pytest.raises(PlanError, match="conv: stays in float, but profile edgetpu leaves nothing in float"):
        autoquant.quantize(tiny.model, tmp_path / "config.json", tiny.calibration, tmp_path / "out", **options)


@pytest.mark.parametrize("name", STRICT)
def test_the_plan_of_a_run_for_the_device_is_taken(
    runs: dict[str, SearchResult], tiny: Tiny, name: str, tmp_path: Path
) -> None:
    config = runs[name].run / "best" / "config.json"
    options: dict[str, Any] = {"target": "litert", "profile": name, "io": PROFILES[name].io[0]}
    made = autoquant.quantize(tiny.model, config, tiny.calibration, tmp_path / "out", **options)
    assert autoquant.check_device(made.model, name).violations == ()
    assert load_config(made.config).int8.keys() == load_config(config).int8.keys()


@pytest.mark.parametrize("name", STRICT)
def test_exported_for_a_device(runs: dict[str, SearchResult], name: str, tmp_path: Path) -> None:
    """The plan of a run without a profile, as far as the device can have it, is scored there."""
    made = autoquant.export(runs[""].run, tmp_path / "out", profile=name, io=PROFILES[name].io[0])
    assert autoquant.check_device(made.model, name).violations == ()
    assert made.transferred is not None


def test_exported_as_it_is(runs: dict[str, SearchResult], tmp_path: Path) -> None:
    made = autoquant.export(runs["esp32-s3"].run, tmp_path / "out")
    assert runs["esp32-s3"].model is not None
    assert made.model.read_bytes() == runs["esp32-s3"].model.read_bytes()
    again = autoquant.export(runs["esp32-s3"].run, tmp_path / "again", profile="esp32-s3")
    assert again.model.read_bytes() == made.model.read_bytes()
    with pytest.raises(UsageError, match="unknown 'esp32-s4'"):
        autoquant.export(runs["esp32-s3"].run, tmp_path / "none", profile="esp32-s4")


def test_a_model_that_no_plan_fits_is_refused_before_anything(lite_case: Path, tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"profile esp32-s3 has no operator for, .*TRANSPOSE_CONV"):
        autoquant.search(
            lite_case, tiny.evaluation, target="litert", profile="esp32-s3", tolerance="1%", run=tmp_path / "run"
        )
    assert not (tmp_path / "run").exists()


@pytest.fixture
def lite_case(tmp_path: Path) -> Path:
    """A network with an operator that ESP-DL does not have: `image` (?, 8, 8, 2) -> `scores` (?, 3)."""
    import tensorflow as tf

    rng = np.random.default_rng(4)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 2), name="image")
        kernel = tf.constant(rng.normal(size=(2, 2, 3, 2)).astype(np.float32))
        wide = tf.nn.conv2d_transpose(x, kernel, (tf.shape(x)[0], 16, 16, 3), 2, "SAME")
        tf.reduce_mean(wide, axis=(1, 2), name="scores")
    path = tmp_path / "wide.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path
