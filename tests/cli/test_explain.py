from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_files import Files

import autoquant
from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.cli.explain import text
from autoquant.cli.main import main
from autoquant.reports.explanation import Explanation, FloatLayer, Reason, RunTrials, explain_trials
from autoquant.reports.plan_changes import LAYER_SETTINGS, PLAN_SETTINGS
from autoquant.reports.wording import reasons
from autoquant.tuning.certification.certificate import Certificate, Origin, Verdict
from autoquant.tuning.study.space import QUANT_ENABLE, SETTING_WORDS
from autoquant.tuning.study.trial import State, Terms, Trial

SPACE = """
[global]
channel_wise = [true, false]
[layer]
quant_enable = [true, false]
act_algo = ["ifmr", "minmax"]
"""
TERMS = Terms("top1", 0.75, 0.125, "litert", "litert", "macs")
ALL = Plan({"conv1": LayerPlan(), "conv2": LayerPlan(), "fc": LayerPlan(channel_wise=False)})
BALANCED = Plan({**ALL.layers, "conv1": LayerPlan(dmq=0.5), "conv2": LayerPlan(dmq=0.5)})
BEST = Plan({**BALANCED.layers, "conv2": None})


@pytest.fixture(scope="module")
def searched(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that went through its whole budget."""
    folder = tmp_path_factory.mktemp("explain_trials")
    (folder / "space.toml").write_text(SPACE)
    options: dict[str, Any] = {
        "metric": "mse",
        "tolerance": 0.0,
        "space": folder / "space.toml",
        "max_trials": 6,
        "sampler": "tpe",
    }
    autoquant.search(files.model, files.data, calibration=files.calibration, run=folder / "run", **options)
    return folder / "run"


@pytest.fixture
def found(trial: Callable[..., Trial]) -> Explanation:
    """A run in which balancing and a layer in float were what helped."""
    trials = [
        replace(trial(0, drop=None, failure=""), plan=ALL, state=State.STOPPED, drop=0.5, low=0.25, high=0.7),
        replace(trial(1, drop=0.1875), plan=BALANCED, int8_share=1.0),
        replace(trial(2, drop=0.0625, why="conv2 in float"), plan=BEST),
        trial(3, drop=None, failure="fc: overflow"),
    ]
    judged = [replace(one, within=one.drop == 0.0625) for one in trials]
    divergences = ((2.5,), (0.25,), (0.0125,), ())
    trials = [
        replace(one, divergence_samples=64 if known else 0, divergences=known)
        for one, known in zip(judged, divergences, strict=True)
    ]
    certificate = Certificate(
        verdict=Verdict.MET,
        metric="top1",
        baseline=0.875,
        score=0.8125,
        drop=0.0625,
        upper_bound=0.1875,
        max_drop=0.125,
        confidence=0.95,
        samples=80,
        method="exact paired (trinomial)",
        origin=Origin("litert", "XNNPACK", "a" * 64, "b" * 64, "c" * 64),
        suspicious=False,
    )
    return explain_trials(RunTrials(Path("my run"), TERMS, tuple(trials), trials[2], 1, certificate))


def test_the_screen_shows_cost_effects_and_why_layers_are_in_float(found: Any) -> None:
    assert [line.rstrip() for line in text(found, columns=None).splitlines()] == [
        "run       my run (litert): FP32 top1 0.7500, max drop 0.1250",
        "best      trial 2 (conv2 in float): top1 0.6875, drop 0.0625, within tolerance",
        "holdout   met, not certified: drop 0.0625 on 80 samples, at most 0.1875 with 95.0% confidence",
        "INT8      2 of 3 layers, 62.5% of the model's work",
        "settings  1 batch, ifmr, per-channel (1), per-tensor (1), dmq 0.5 (1), no dmq (1)",
        "effort    4 trials (1 stopped, 2 done, 1 failed, 1 unfinished), 320 samples evaluated; quantize 2.0s, "
        "score 5.0s",
        "",
        "effect of settings  instead of   divergence               drop                    gain  trials",
        "dmq 0.5             no dmq      2.5 -> 0.25  ~0.5000 -> 0.1875  0.3125 (0.062 to 0.51)    0, 1",
        "",
        "effect of float layers  share in INT8        divergence              drop    gain  trials",
        "conv2                   100.0% -> 62.5%  0.25 -> 0.0125  0.1875 -> 0.0625  0.1250    1, 2",
        "",
        "divergence: mean divergence of outputs from FP32's, over the same 64 samples in both trials",
        "~: estimated, as the trial was stopped early; an interval in brackets holds at the run's error rate",
        "",
        "why 1 layer of the best plan is in float",
        "  conv2",
        "    trial 1, which has it in INT8 and is otherwise the same: drop 0.1875, not within tolerance",
    ]


@pytest.mark.parametrize("columns", [60, 80, 95, 120])
def test_it_fits_the_screen(found: Explanation, columns: int) -> None:
    lines = text(found, columns=columns).splitlines()
    assert max(map(len, lines)) <= columns
    assert "~0.5000 -> 0.1875" in " ".join(" ".join(lines).split())


def floats(*groups: tuple[str, Reason, dict[str, Any]]) -> tuple[FloatLayer, ...]:
    """Float layers, each group for one reason."""
    return tuple(FloatLayer(name, why, **facts) for names, why, facts in groups for name in names)


@pytest.mark.parametrize(
    ("names", "why", "facts", "told"),
    [
        ("x", Reason.NEVER, {}, "no trial had it in INT8"),
        ("xy", Reason.NEVER, {}, "no trial had them in INT8"),
        ("x", Reason.UNTRIED, {}, "no trial had it in INT8 beside most of these INT8 layers and with a verdict"),
        ("x", Reason.FAILED, {"trial": 3}, "trial 3 failed because of it: fc: overflow"),
        (
            "x",
            Reason.NOT_WITHIN,
            {"trial": 0, "same_settings": True},
            "trial 0, which has it in INT8 and is otherwise the same: drop ~0.5000 (0.25 to 0.7), not within tolerance",
        ),
        (
            "xy",
            Reason.NOT_WITHIN,
            {"trial": 1, "same_settings": True, "int8_only_in_trial": ("y", "z")},
            "trial 1, with them and 1 more layer in INT8: drop 0.1875, not within tolerance",
        ),
        (
            "x",
            Reason.NOT_WITHIN,
            {"trial": 1, "int8_only_in_best": ("a", "b")},
            "trial 1, with it in INT8, without 2 of these, with other settings: drop 0.1875, not within tolerance",
        ),
        (
            "x",
            Reason.NO_BETTER,
            {"trial": 2, "same_settings": True},
            "trial 2, which has it in INT8 and is otherwise the same: drop 0.0625, within tolerance; "
            "but macs 37.5% of the float model's, not 37.5%",
        ),
    ],
)
def test_reasons_in_words(found: Explanation, names: str, why: Reason, facts: dict[str, Any], told: str) -> None:
    known = {**facts, "trial": found.run.trials[facts["trial"]]} if facts else {}
    shown = [*reasons(replace(found, float_layers=floats((names, why, known))))]
    assert shown[1:] == [f"  {', '.join(names)}", f"    {told}"]


def test_rows_beyond_one_screen_are_counted(found: Explanation) -> None:
    many = replace(
        found,
        settings=found.settings * 11,
        float_layers=floats(
            *((f"{n}", Reason.NOT_WITHIN, {"trial": replace(found.run.trials[1], number=n)}) for n in range(9))
        ),
    )
    shown = text(many, columns=None).splitlines()
    assert "... and 3 more, which --json lists" in shown
    assert shown[-1] == "  ... and 1 more layer, which --json lists"
    assert len(shown) <= 50


def test_another_objective_is_shown_in_place_of_the_share(found: Explanation) -> None:
    latency = replace(found, run=replace(found.run, terms=replace(TERMS, objective_name="latency")))
    shown = text(latency, columns=None).splitlines()
    assert "INT8      2 of 3 layers, 62.5% of the model's work; latency 37.5% of the float model's" in shown
    assert any(line.startswith("effect of float layers  latency ") for line in shown)


def test_a_run_in_which_everything_failed(trial: Callable[..., Trial]) -> None:
    failed = trial(0, drop=None, failure="out of memory")
    shown = text(explain_trials(RunTrials(Path("my run"), TERMS, (failed,), None)), columns=None).splitlines()
    assert [" ".join(line.split()) for line in shown] == [
        "run my run (litert): FP32 top1 0.7500, max drop 0.1250",
        "best none, as no trial finished; the last one failed: out of memory",
        "effort 1 trial (1 failed), 80 samples evaluated; quantize 0.5s, score 1.2s",
    ]


def test_every_setting_of_layers_has_its_words() -> None:
    assert set(LAYER_SETTINGS) <= SETTING_WORDS.keys() <= {*LAYER_SETTINGS, *PLAN_SETTINGS, QUANT_ENABLE}


def test_a_real_run_from_the_command_line(searched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", str(searched)]) == 0
    shown = capsys.readouterr().out
    assert "per-channel" in shown
    assert "per-tensor" in shown
    assert main(["explain", str(searched), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    stored = {int(file.parent.name): json.loads(file.read_text()) for file in searched.glob("trials/*/score.json")}
    result = json.loads((searched / "result.json").read_text())
    assert (told["best"]["number"], told["trials"]) == (result["best_trial"], result["trials"])
    assert told["evaluated_samples"] == result["evaluated_samples"]
    changed = [one for one in told["settings"] if [c["setting"] for c in one["changes"]] == ["channel_wise"]]
    assert changed
    for one in told["settings"]:
        before, after = (stored[one[which]["number"]] for which in ("before", "after"))
        assert one["divergence"]["before"] == before["divergence"]
        assert one["gain"]["estimate"] == pytest.approx(before["drop"] - after["drop"])


def test_from_python(searched: Path) -> None:
    found = autoquant.explain(searched)
    assert found.run.terms.metric == "mse"
    assert found.run.best in found.run.trials


def test_neither_tensorflow_nor_optuna_is_waited_for(searched: Path, python: Callable[..., Any]) -> None:
    code = f"""
import sys
from autoquant.cli.main import main
code = main(["explain", {str(searched)!r}]) or main(["explain", {str(searched)!r}, "--json"])
heavy = {{"tensorflow", "keras", "optuna", "scipy", "sklearn", "ai_edge_litert", "litert_quantizer"}}
sys.exit(",".join(heavy & set(sys.modules)) or code)
"""
    done = python("-c", code)
    assert (done.returncode, done.stderr) == (0, "")


def test_unexplainable_trials_are_errors(tmp_path: Path, searched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "nowhere"]) == 2
    assert "nowhere: is not a run" in capsys.readouterr().err
    score = searched / "trials/0001/score.json"
    kept = score.read_text()
    score.write_text(kept[:100])
    try:
        assert main(["explain", str(searched)]) == 0
    finally:
        score.write_text(kept)
    assert f"left out  {score}: is not valid JSON" in capsys.readouterr().out
