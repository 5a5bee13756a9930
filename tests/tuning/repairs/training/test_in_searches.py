"""Training as a setting of searches and of config.json, from a space file to a model built again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import Tiny

import autoquant
from autoquant.errors import ModelError
from autoquant.formats.config_json import load_config
from autoquant.model.litert.convert import convert
from autoquant.model.open import open_model
from autoquant.targets.table import TARGETS
from autoquant.tuning.events import Progress, Warned
from autoquant.tuning.repairs.training import trainer


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "STEPS", 24)
    monkeypatch.setattr(trainer, "SAMPLES", 16)
    monkeypatch.setattr(trainer, "EVERY", 3)
    monkeypatch.setattr(trainer, "RATE", 0.02)


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_a_search_trains_and_makes_a_lost_model_again(
    tiny: Tiny, regression: Path, tmp_path: Path, target: str
) -> None:
    """The same bytes, from what the run kept; `quantize` gives them from config.json and the same data."""
    space = tmp_path / "space.toml"
    space.write_text("[global]\nbatch_num = 2\nchannel_wise = false\ntraining = [true, false]")
    run, told = tmp_path / "run", list[Any]()
    autoquant.search(
        tiny.model,
        regression,
        calibration=tiny.calibration,
        max_trials=2,
        run=run,
        listener=told.append,
        metric="mse",
        tolerance=0.0,
        batch_size=20,
        space=space,
        target=target,
        sampler="tpe",
    )
    steps = [one.done for one in told if isinstance(one, Progress) and one.what == "training" and one.total == 24]
    assert steps == list(range(25))  # and only once, though several parts of the search build this plan
    trials = json.loads((run / "result.json").read_text())["all_trials"]
    assert [trial["why"].rpartition(": ")[2] for trial in trials] == ["trained", "not trained"]
    assert len({trial["score"] for trial in trials}) == 2
    assert "train" in trials[0]["seconds"] and "train" not in trials[1]["seconds"]
    configs = [load_config(run / "trials" / f"000{number}" / "config.json") for number in (0, 1)]
    assert [plan.training for plan in configs] == [True, False]
    made = autoquant.export(run, tmp_path / "out", trial=0)
    content = made.model.read_bytes()
    folder = run / "trials" / "0000"
    (was,) = (path for path in [*folder.iterdir(), made.model] if path.name == made.model.name)
    assert was.read_bytes() == content
    again = autoquant.quantize(
        tiny.model, folder / "config.json", tiny.calibration, to=tmp_path / "again", target=target, batch_size=20
    )
    assert again.model.read_bytes() == content


def test_a_search_leaves_training_out_where_it_is_not_possible(
    tiny: Tiny, regression: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With one warning; without a search it is an error."""
    monkeypatch.setattr(trainer, "FUNCTIONS", {})
    space, told = tmp_path / "space.toml", list[Any]()
    space.write_text("[global]\ntraining = [true, false]")
    result = autoquant.search(
        tiny.model,
        regression,
        calibration=tiny.calibration,
        max_trials=2,
        run=tmp_path / "run",
        listener=told.append,
        metric="mse",
        tolerance=1000.0,
        space=space,
        target="litert",
    )
    warned = [one.text for one in told if isinstance(one, Warned) and "training" in one.text]
    assert warned == [f"training is left out: {trainer.NO_GRADIENT} (CONV_2D)"]
    assert result.verdict == "met, not certified"
    config = json.loads((tmp_path / "run" / "best" / "config.json").read_text())
    assert "training" not in config.get("autoquant", {})
    config["autoquant"] = {**config.get("autoquant", {}), "training": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"CONV_2D: training does not know .*; set training to false"):
        autoquant.quantize(tiny.model, tmp_path / "config.json", tiny.calibration, to=tmp_path / "out", target="litert")


def test_a_tflite_is_trained_too(tiny: Tiny, tmp_path: Path) -> None:
    """Its operators have gradients in TensorFlow, wherever the file is from."""
    lite = tmp_path / "net.tflite"
    lite.write_bytes(convert(open_model(tiny.model).graph).content)
    coarse = {"weight_quant_params": {"num_bits": 8, "wts_algo": "arq_quantize", "channel_wise": False}}
    config = dict.fromkeys(autoquant.inspect(lite, target="litert").survey.by_name, coarse)
    made = {}
    for training in (False, True):
        path = tmp_path / f"{training}.json"
        path.write_text(json.dumps({**config, "autoquant": {"training": training}}))
        made[training] = autoquant.quantize(lite, path, tiny.calibration, to=tmp_path / str(training), target="litert")
    contents = [np.frombuffer(one.model.read_bytes(), np.uint8) for one in made.values()]
    assert len(contents[0]) != len(contents[1]) or (contents[0] != contents[1]).any()
