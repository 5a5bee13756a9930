"""`autoquant.quantize` on target litert: what the file holds and computes, and configs of another target."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import Tiny

import autoquant
from autoquant.cli.main import main
from autoquant.errors import PlanError, UsageError
from autoquant.evaluation.engines.table import open_engine
from autoquant.formats.config_json import load_config
from autoquant.formats.record_text import load_record
from autoquant.model.open import open_model
from autoquant.targets.table import open_target

CONFIG = {
    "batch_num": 4,
    "activation_offset": True,
    "autoquant": {"activation_quant_params": {name: {"act_algo": "minmax"} for name in ("conv", "dense")}},
    "conv": {"weight_quant_params": {"wts_algo": "arq_quantize", "channel_wise": True}},
    "depthwise": {"quant_enable": False},
    "dense": {"weight_quant_params": {"wts_algo": "octav", "channel_wise": False}},
}
"""All 64 calibration samples in batches of 16."""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    return path


def opened(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    (given,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(given["index"], [64, 8, 8, 2])
    interpreter.allocate_tensors()
    return interpreter


def test_the_file_holds_what_the_config_says(tiny: Tiny, config: Path, tmp_path: Path) -> None:
    made = autoquant.quantize(tiny.model, config, tiny.calibration, tmp_path / "out", target="litert", batch_size=16)
    assert (made.model.name, made.mapping) == ("tiny_int8.tflite", None)
    assert {path.name for path in made.folder.iterdir()} == {"tiny_int8.tflite", "config.json", "record.txt"}
    assert load_config(made.config) == replace(load_config(config), float_operators=frozenset())
    record = load_record(made.record)
    assert set(record) == {"conv", "dense"}
    images = np.load(tiny.calibration)["x"].astype(np.float64)
    np.testing.assert_allclose(record["conv"].activation.scale, (images.max() - images.min()) / 255, rtol=1e-6)
    largest = np.abs(tiny.weights["conv"].astype(np.float64)).max(axis=(0, 1, 2))
    np.testing.assert_allclose(record["conv"].scale_w, largest / 127, rtol=1e-6)
    (clipped,) = record["dense"].scale_w
    assert clipped < np.abs(tiny.weights["dense"]).max() / 127


def test_the_file_computes_nearly_what_the_model_does(
    tiny: Tiny, config: Path, regression: Path, tmp_path: Path
) -> None:
    """Symmetric noise of a half step at each of a few hundred products is far below a tenth of the outputs' spread."""
    made = autoquant.quantize(tiny.model, config, tiny.calibration, tmp_path / "out", target="litert", batch_size=16)
    interpreter, known = opened(made.model), np.load(regression)
    images = np.zeros((64, 8, 8, 2), np.float32)
    images[:60] = known["x"]
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(given["index"], images)
    interpreter.invoke()
    scores = interpreter.get_tensor(result["index"])[:60]
    assert 0 < np.abs(scores - known["y"]).mean() < 0.1 * known["y"].std()


@pytest.mark.parametrize(("io", "dtype"), [("float32", np.float32), ("int8", np.int8)])
def test_type_of_inputs_and_outputs(tiny: Tiny, config: Path, tmp_path: Path, io: str, dtype: type) -> None:
    out = tmp_path / "out"
    made = autoquant.quantize(tiny.model, config, tiny.calibration, out, target="litert", io=io, batch_size=16)
    interpreter = opened(made.model)
    ends = (*interpreter.get_input_details(), *interpreter.get_output_details())
    assert [end["dtype"] for end in ends] == [dtype, dtype]


@pytest.mark.parametrize(
    ("change", "target", "message"),
    [
        (
            {},
            "tensorflow",
            r"\$\.dense: weights by octav are not possible for layer type MatMul .*; set wts_algo to arq",
        ),
        (
            {"conv": {"weight_quant_params": {"num_bits": 6}}},
            "litert",
            r"\$\.conv: weights of 6 bits are not possible on this target; set num_bits to 8",
        ),
    ],
)
def test_a_config_of_another_target_is_told_so(
    tiny: Tiny, tmp_path: Path, change: dict[str, Any], target: str, message: str
) -> None:
    (tmp_path / "c.json").write_text(json.dumps({**CONFIG, **change}))
    with pytest.raises(PlanError, match=message) as caught:
        autoquant.quantize(tiny.model, tmp_path / "c.json", tiny.calibration, tmp_path / "out", target=target)
    assert caught.value.hint.endswith(
        f"`autoquant export RUN --target {target}` makes it fit if it was made for another target"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("tensorflow")
def test_targets_and_types_that_there_are_not(config: Path, tmp_path: Path) -> None:
    wrong: list[dict[str, Any]] = [{"target": "tflite"}, {"io": "int8"}, {"target": "litert", "io": "uint8"}]
    for options in wrong:
        with pytest.raises(UsageError, match=r"^--(target|io)"):
            autoquant.quantize("absent.pb", config, "absent.npz", tmp_path / "out", **options)
    with pytest.raises(UsageError, match=r"absent\.tflite: is a \.tflite"):
        autoquant.quantize("absent.tflite", config, "absent.npz", tmp_path / "out")


WITHOUT = (
    "import sys; sys.modules['tensorflow'] = None; from autoquant.cli.main import main; sys.exit(main(sys.argv[1:]))"
)
"""Runs a command in a process in which nobody can import TensorFlow."""


def test_a_tflite_is_quantized_where_there_is_no_tensorflow(tiny: Tiny, tmp_path: Path) -> None:
    from autoquant.model.litert.convert import convert

    (tmp_path / "tiny.tflite").write_bytes(convert(open_model(tiny.model).graph).content)
    layers = open_target("litert").survey(open_model(tmp_path / "tiny.tflite"), {}).by_name
    assert [layer.op for layer in layers.values()] == ["Conv2D", "DepthwiseConv2dNative", "MatMul"]
    (tmp_path / "c.json").write_text(json.dumps({name: {} for name in layers}))
    words = "quantize tiny.tflite --config c.json --to out --target litert --batch-size 16 --calibration"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", WITHOUT, *words.split(), str(tiny.calibration)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[2:] == ["model   out/tiny_int8.tflite"]
    assert set(load_record(tmp_path / "out/record.txt")) == set(layers)


@pytest.mark.parametrize("kind", ["analytic", "empirical"])
@pytest.mark.parametrize("target", ["litert", "tensorflow"])
def test_biases_are_corrected_and_nothing_else_is_changed(tiny: Tiny, tmp_path: Path, target: str, kind: str) -> None:
    """The record is that of the plain plan, the mean of the scores nearer to that of the float model."""
    layers = {"conv": {}, "depthwise": {}, "dense": {"weight_quant_params": {"channel_wise": False}}}
    made = {}
    for correction in ("none", kind):
        config = tmp_path / f"{correction}.json"
        config.write_text(json.dumps({"batch_num": 4, "autoquant": {"bias_correction": correction}, **layers}))
        out = tmp_path / correction
        made[correction] = autoquant.quantize(tiny.model, config, tiny.calibration, out, target=target, batch_size=16)
    assert made["none"].record.read_bytes() == made[kind].record.read_bytes()
    assert load_config(made[kind].config).bias_correction == kind
    model = open_target(target).lowered(open_model(tiny.model))
    engine = open_engine(target)
    images = {"image": np.load(tiny.calibration)["x"]}
    reference = engine.open_graph(model.program)(images)["scores"].mean(axis=0)
    errors = {
        correction: np.abs(engine.open_file(one.model, model.program)(images)["scores"].mean(axis=0) - reference).max()
        for correction, one in made.items()
    }
    assert errors[kind] != errors["none"]
    assert kind == "analytic" or errors[kind] < errors["none"]
    if target == "tensorflow":
        assert autoquant.check(made[kind].model).layers == {"Conv2D": 1, "DepthwiseConv2dNative": 1, "MatMul": 1}


@pytest.mark.parametrize("target", ["tensorflow", "litert"])
def test_what_was_made_is_scored_beside_the_float_model(
    tiny: Tiny, config: Path, tmp_path: Path, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(config.read_text().replace("octav", "arq_quantize"))  # which both targets have
    options: dict[str, Any] = {"target": target, "batch_size": 16}
    made = autoquant.quantize(
        tiny.model, config, tiny.calibration, tmp_path / "out", data=tiny.evaluation, tolerance="50%", **options
    )
    alone = autoquant.evaluate(tiny.model, made.model, data=tiny.evaluation, tolerance="50%", batch_size=16)
    assert made.evaluation == alone
    with pytest.raises(UsageError, match="--tolerance: is of a score, and nothing is scored"):
        autoquant.quantize(tiny.model, config, tiny.calibration, tmp_path / "out", tolerance="1%", **options)
    words = ["quantize", str(tiny.model), "--config", str(config), "--calibration", str(tiny.calibration)]
    words += ["--target", target, "--batch-size", "16", "--to", str(tmp_path / "cli")]
    assert main([*words, "--data", str(tiny.evaluation), "--metric", "agreement", "--tolerance", "0"]) in (0, 1)
    shown = capsys.readouterr().out
    assert "model   " in shown and "agreement" in shown and "bounds of the true drop" in shown
    assert main([*words, "--metric", "agreement", "--tolerance", "0"]) == 2
    assert "give --data to score it on" in capsys.readouterr().err
