"""The flow that AMCT documents, in a process of its own, as its scripts switch TensorFlow 2 off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tiny_model import Tiny

from autoquant.formats.record_text import load_record

SCRIPT = Path(__file__).parent / "template.py"


def test_a_script_made_for_amct_quantizes_and_keeps_the_accuracy(tiny: Tiny, tmp_path: Path) -> None:
    words = [sys.executable, str(SCRIPT), str(tiny.model), str(tiny.evaluation), "scores:0", "./outputs/tiny"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(words, check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    original, quantized = map(float, done.stdout.split())
    assert 0.85 < original < 0.95
    assert abs(quantized - original) <= 0.02
    made = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert made == {
        "amct_log/amct_tensorflow.log",
        "outputs/config.json",
        "outputs/record.txt",
        "outputs/tiny_quantized.pb",
        "outputs/tiny_quant.json",
    }
    assert json.loads((tmp_path / "outputs/config.json").read_text())["batch_num"] == 2
    assert list(load_record(tmp_path / "outputs/record.txt")) == ["conv", "depthwise", "dense"]
    log = (tmp_path / "amct_log/amct_tensorflow.log").read_text()
    assert "3 layers wait for the data of batch_num=2 runs: ./outputs/record.txt" in log
    assert "INFO - [autoquant]: 3 layers are in INT8" in log
    assert log in done.stderr
