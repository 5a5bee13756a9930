"""What jobs that nobody watches decide by: the baseline, the speed, the models that are kept, the samples lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from tiny_model import Tiny

import autoquant
from autoquant.cli.main import main
from autoquant.errors import BaselineError, RunError, UsageError
from autoquant.evaluation.latency.latency import Latency, ModelTime, Spread
from autoquant.formats.config_json import load_config
from autoquant.model.open import open_model
from autoquant.tuning.certification.certificate import Verdict
from autoquant.tuning.events import Event, Progress
from autoquant.tuning.study.run_folder import RunFolder
from autoquant.tuning.study.trial import State


def options(tiny: Tiny, **more: Any) -> dict[str, Any]:
    plain = {"model": tiny.model, "data": tiny.evaluation, "calibration": tiny.calibration, "certify": "none"}
    return {**plain, "tolerance": "50%", "max_trials": 1, **more}


@pytest.mark.parametrize("target", ["tensorflow", "litert"])
def test_a_baseline_that_is_too_bad_is_not_searched(tiny: Tiny, tmp_path: Path, target: str) -> None:
    heard: list[Event] = []
    run = tmp_path / "run"
    with pytest.raises(BaselineError, match=r"tiny: scores top1 0\.9.*, worse than --min-baseline 0\.99") as e:
        autoquant.search(**options(tiny, min_baseline=0.99, target=target, run=run, listener=heard.append))
    assert e.value.exit_code == 4 and not run.exists()
    assert not any(isinstance(one, Progress) and one.what.startswith("sensitivity") for one in heard)
    result = autoquant.search(**options(tiny, min_baseline=0.5, target=target, run=run))
    assert result.min_baseline == 0.5 and result.verdict is Verdict.MET
    assert autoquant.resume(run, max_trials=2).min_baseline == 0.5, "run.toml keeps it"
    with pytest.raises(BaselineError):
        autoquant.resume(run, min_baseline=0.99)
    assert autoquant.resume(run, min_baseline=0.6).best == result.best, "nothing of the run was lost"


def test_an_error_is_too_bad_where_it_is_large(tiny: Tiny, regression: Path, tmp_path: Path) -> None:
    """`regression` has the FP32 outputs as labels, with noise."""
    plain = options(tiny, data=regression, metric="mse", tolerance=10.0)
    with pytest.raises(BaselineError, match="worse than --min-baseline 0:"):
        autoquant.search(**plain, min_baseline=0, run=tmp_path / "bad")
    assert autoquant.search(**plain, min_baseline=1e9, run=tmp_path / "good").model is not None


def latency(*quartiles: float) -> Latency:
    speed = Spread(quartiles[1], quartiles[0], quartiles[2])
    seconds = Spread(1.0, 1.0, 1.0)
    return Latency(1, 1, 3, (ModelTime("FP32", seconds, Spread(1.0, 1.0, 1.0)), ModelTime("INT8", seconds, speed)))


@pytest.mark.parametrize(
    ("measured", "tolerance", "what", "why"),
    [
        (latency(1.5, 2.0, 2.5), "50%", "int8", "2.00 times the speed of float here (1.50 to 2.50), at least 1.5"),
        (latency(1.4, 2.0, 2.5), "50%", "float", "2.00 times the speed of float here (1.40 to 2.50), not 1.5"),
        (None, "50%", "float", "that INT8 is 1.5 times as fast could not be measured"),
        (latency(3.0, 3.0, 3.0), 0.0, "float", "INT8 misses the tolerance"),
    ],
    ids=["fast", "slow", "not measured", "missed"],
)
def test_float_is_shipped_unless_int8_is_fast(
    tiny: Tiny,
    regression: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    measured: Latency | None,
    tolerance: Any,
    what: str,
    why: str,
) -> None:
    monkeypatch.setattr("autoquant.tuning.finalize.run_latency", lambda *_: measured)
    run = tmp_path / "run"
    missed = {"data": regression, "metric": "mse"} if tolerance == 0.0 else {}
    plain = {**options(tiny, target="litert", min_speedup=1.5, run=run), "tolerance": tolerance, **missed}
    result = autoquant.search(**plain)
    assert result.shipped is not None and why in result.shipped.why
    assert (result.shipped.what, result.shipped.model.is_file()) == (what, True)
    facts = json.loads((run / "result.json").read_text(encoding="utf-8"))["shipped"]
    assert facts == result.shipped.facts()
    made = autoquant.export(run, tmp_path / "out")
    assert made.model.name == ("tiny_float.tflite" if what == "float" else "tiny_int8.tflite")
    assert made.model.read_bytes() == result.shipped.model.read_bytes()
    assert bool(load_config(made.config).int8) == (what == "int8")
    assert any("the float model is shipped" in text for text in result.warnings) == (what == "float")
    assert autoquant.export(run, tmp_path / "int8", trial=0).model.name == "tiny_int8.tflite"
    if what == "float":
        open_model(made.model)  # which refuses what is quantized
        same = autoquant.evaluate(tiny.model, made.model, data=tiny.evaluation)
        assert same.models[1].score == same.models[0].score
        again = autoquant.resume(run, min_speedup=0.001 if measured else 1.5)
        assert again.shipped is not None
        fast = measured is not None and tolerance != 0.0
        assert (again.shipped.what, (run / "float").exists()) == (("int8", False) if fast else ("float", True))


def test_a_float_model_that_was_changed_is_not_exported(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoquant.tuning.finalize.run_latency", lambda *_: None)
    result = autoquant.search(**options(tiny, target="litert", min_speedup=2, run=tmp_path / "run"))
    assert result.shipped is not None
    result.shipped.model.write_bytes(b"other")
    with pytest.raises(RunError, match=r"tiny_float\.tflite: is not the file that the search wrote"):
        autoquant.export(tmp_path / "run", tmp_path / "out")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"min_speedup": 1.5}, "--min-speedup 1.5: is measured on this machine, for which --target tensorflow saves"),
        ({"min_speedup": 0, "target": "litert"}, "--min-speedup: must be above 0"),
        ({"min_speedup": float("nan"), "target": "litert"}, "--min-speedup: must be above 0"),
        ({"min_baseline": float("inf")}, "--min-baseline: must be a number"),
        ({"keep_models": 0}, "--keep-models: must be at least 1"),
    ],
)
def test_what_is_asked_wrongly(tiny: Tiny, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        autoquant.search(**options(tiny, **given))


def models_in(run: Path) -> set[int]:
    return {number for number, folder in RunFolder(run).trials().items() if (folder / "tiny_quantized.pb").is_file()}


def test_so_many_models_of_the_front_are_kept(hopeless: dict[str, Any]) -> None:
    """The search goes through its budget, and misses."""
    kept = autoquant.search(**{**hopeless, "max_trials": 25}, keep_models=2)
    run = hopeless["run"]
    numbers = [trial.number for trial in kept.pareto]
    assert len(numbers) > 2 and kept.best is not None and kept.keep_models == 2
    assert models_in(run) < set(numbers) and len(models_in(run)) == 2
    assert kept.best.number in models_in(run)
    front = json.loads((run / "result.json").read_text(encoding="utf-8"))["pareto"]
    assert [one["trial"] for one in front] == numbers
    assert {one["trial"] for one in front if one["model"]} == models_in(run)
    assert all(Path(one["model"]).is_file() for one in front if one["model"])
    done = [trial for trial in kept.trials if trial.state is State.DONE]
    assert {trial.number for trial in kept.pareto} <= {trial.number for trial in done}
    assert all((RunFolder(run).trial(number) / "changes.json").is_file() for number in models_in(run))
    again = autoquant.resume(run, keep_models=len(numbers))
    assert models_in(run) == {trial.number for trial in again.pareto}, "what was deleted is built again"
    assert autoquant.resume(run, keep_models=1).keep_models == 1
    assert models_in(run) == {kept.best.number}


def test_lost_samples_are_named(tiny: Tiny, tmp_path: Path) -> None:
    arrays = dict(np.load(tiny.evaluation))
    names = np.array([f"image-{number:03d}.png" for number in range(200)])
    np.savez(tmp_path / "named.npz", **arrays, filename=names)
    space = tmp_path / "space.toml"
    space.write_text('[global]\nchannel_wise = [false]\nbatch_num = [1]\n[layer]\nact_algo = ["minmax"]\n')
    given = options(tiny, data=tmp_path / "named.npz", space=space, run=tmp_path / "run", metric="top1")
    result = autoquant.search(**given)
    assert result.model is not None and result.best is not None
    found = autoquant.evaluate(tiny.model, result.model, data=tmp_path / "named.npz")
    facts = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))["lost_samples"]
    assert [one["id"] for one in facts] == [f"image-{one['sample']:03d}.png" for one in facts]
    assert {one["sample"] for one in facts} == {one.sample for one in found.models[1].lost}
    assert len(result.lost) == len(facts)


def cases(file: Path) -> dict[str, str]:
    """Name of each test case -> what is inside it that says that it did not pass."""
    found = ElementTree.parse(file).getroot().iter("testcase")
    return {str(one.get("name")): " ".join(part.tag for part in one if part.tag != "system-out") for one in found}


def test_junit_from_the_first_error_to_the_last_resume(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "out.xml"
    words = ["--data", str(tiny.evaluation), "--calibration", str(tiny.calibration), "--junit", "out.xml", "--quiet"]
    assert main(["search", "none.pb", *words, "--tolerance", "1%"]) == 2
    assert cases(file) == {"input": "error"}
    words = ["search", str(tiny.model), *words, "--tolerance", "50%", "--run", "run", "--max-trials", "1"]
    assert main([*words, "--min-baseline", "0.99"]) == 4
    assert cases(file) == {"baseline": "failure"}
    assert main([*words, "--guard", "class"]) in (0, 1, 3)
    assert {"baseline", "tolerance", "certificate", "guard 0", "guard 1", "guard 2"} == set(cases(file))
    file.unlink()
    assert main(["resume", "run", "--quiet"]) in (0, 1, 3)
    assert set(cases(file)) >= {"baseline", "tolerance", "certificate"}, "run.toml keeps it"
    assert main(["resume", "run", "--quiet", "--junit", "other.xml"]) in (0, 1, 3)
    assert set(cases(tmp_path / "other.xml")) >= {"baseline", "tolerance", "certificate"}
    capsys.readouterr()
    given = ["evaluate", str(tiny.model), "run", "--data", str(tiny.evaluation), "--junit", "out.xml"]
    assert main([*given, "--tolerance", "50%", "--certify", "release"]) == 0
    assert cases(file) == {"tiny.pb: score": "", "run: tolerance": "", "run: certificate": ""}
    assert main([*given, "--metric", "nothing"]) == 2
    assert cases(file) == {"input": "error"}


def test_models_that_are_kept_are_scored_on_all_samples(tiny: Tiny, tmp_path: Path) -> None:
    """Trials that are stopped early are the rule; the front is of true scores, of the models that are kept."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2000, 8, 8, 2)).astype(np.float32)
    labels = rng.integers(0, 3, 2000)
    space = tmp_path / "space.toml"
    choices = '[layer]\nquant_enable = [true, false]\nact_algo = ["minmax"]\n'
    space.write_text(f"[global]\nchannel_wise = [false]\nbatch_num = [1]\n{choices}")
    given = options(tiny, data=(images, labels), space=space, sampler="random", max_trials=8, metric="agreement")
    plain = {**given, "tolerance": 0.0005, "keep_models": 3, "run": tmp_path / "run"}
    result = autoquant.search(**plain)
    assert any(trial.state is State.STOPPED for trial in result.trials)
    models = models_in(tmp_path / "run")
    scored = {trial.number: trial for trial in result.trials}
    assert all(scored[number].state is State.DONE for number in models) and len(models) > 1
    for number in models:
        file = RunFolder(tmp_path / "run").trial(number) / "tiny_quantized.pb"
        found = autoquant.evaluate(tiny.model, file, data=(images, labels), metric="agreement")
        assert found.models[1].score == pytest.approx(scored[number].score)
