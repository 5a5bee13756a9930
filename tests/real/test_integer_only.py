"""A real network without any operator in float: its score by a plain interpreter, its types by the file alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from super_resolution import FP32, OUTPUT, images, psnr

import autoquant
from autoquant.tuning import verification

SPACE = """
[global]
equalize = true
weight_rounding = "gptq"
bias_correction = "analytic"
[layer]
act_algo = "ifmr"
[[override]]
layers = ["conv6", "conv7", "conv8"]
activation_bits = 16
"""


def test_super_resolution(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven PReLUs as small operators, and DEPTH_TO_SPACE; three layers with 16 bits, five with 8, one trial."""
    monkeypatch.setattr(verification, "SAMPLES", 1)  # the reference kernels take seconds for an image
    folder = real_data / "super_resolution"
    set5 = images(folder / "set5")
    (tmp_path / "space.toml").write_text(SPACE)
    result = autoquant.search(
        folder / "FSRCNN_x3.pb",
        set5,
        calibration=images(folder / "set14"),
        metric=psnr,
        outputs=(OUTPUT,),
        batch_size=1,
        tolerance=1.5,  # plain INT8 loses 1.75
        max_trials=1,
        target="litert",
        integer_only=True,
        space=tmp_path / "space.toml",
        run=tmp_path / "run",
    )
    assert result.baseline == pytest.approx(FP32, abs=0.01)
    assert result.model is not None and result.best is not None
    assert result.best.meets(result.max_drop)
    assert (result.best.int8_layers, result.best.int16_layers, result.layers) == (5, 3, 8)
    interpreter = Interpreter(model_path=str(result.model))
    scores = []
    for x, y in set5():
        interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], x.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
        interpreter.invoke()
        scores.append(psnr(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]), y))
    assert float(np.mean(scores)) == pytest.approx(result.score, abs=1e-4)
    types = {
        (op["op_name"], np.dtype(kind).name)
        for op in interpreter._get_ops_details()
        if op["op_name"] != "DELEGATE"
        for kind in (*op["operand_types"], *op["result_types"])
    }
    assert {name for name, kind in types if kind == "float32"} == {"QUANTIZE", "DEQUANTIZE"}
