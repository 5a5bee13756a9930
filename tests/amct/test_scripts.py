"""Scripts after the call sequences that AMCT documents run unchanged, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import Tiny

from autoquant.formats.record_text import load_record

SCRIPTS = Path(__file__).parent / "scripts"
F = np.float32
ALL = "import json, sys; from autoquant.amct.script import main; [main(words) for words in json.loads(sys.argv[1])]"
"""Runs scripts one after the other in one process, as TensorFlow takes seconds to load."""


def python(*words: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, *words], check=False, capture_output=True, text=True, env=environment)


def test_a_calibration_script_quantizes_and_keeps_the_accuracy(tiny: Tiny, tmp_path: Path) -> None:
    script = SCRIPTS / "calibration.py"
    done = python("-m", "autoquant.amct", script, tiny.model, tiny.evaluation, "scores:0", "./outputs/tiny")
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


@pytest.fixture
def trained(built: Callable[[Callable[[], Any]], Any]) -> Path:
    """A frozen .pb, `x` (batch, 8, 8, 2) -> `y` (batch, 8, 8, 3), that was trained for INT8."""
    import tensorflow as tf

    def write() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 2), name="x")
        x = tf.quantization.fake_quant_with_min_max_vars(x, F(-2.0), F(2.0))
        weight = np.random.default_rng(2).normal(size=(3, 3, 2, 3)).astype(F)
        weight = tf.quantization.fake_quant_with_min_max_vars(weight, F(-3.0), F(3.0), narrow_range=True)
        tf.identity(tf.nn.conv2d(x, weight, 1, "SAME", name="conv"), name="y")

    path = Path("trained.pb")
    path.write_bytes(built(write).as_graph_def().SerializeToString())
    return path


def own_record(weights: dict[str, Any]) -> str:
    """The record of the layer `conv`, with scales of one's own."""
    scale = np.abs(weights["conv"]).max() / 127
    values = f"scale_d: {4 / 255} offset_d: 0 scale_w: {scale} offset_w: 0"
    return f'record {{ key: "conv" value {{ {values} }} }}'


def test_scripts_for_accuracy_own_scales_and_trained_models(tiny: Tiny, trained: Path) -> None:
    """The first has names that TensorFlow 2 has no more, and imports the graph under the default prefix."""
    Path("own.txt").write_text(own_record(tiny.weights))
    words: list[Sequence[str | Path]] = [
        [SCRIPTS / "accuracy_based.py", tiny.model, tiny.evaluation, "auto"],
        [SCRIPTS / "convert_model.py", tiny.model, "own.txt", trained, "converted"],
    ]
    done = python("-c", ALL, json.dumps(words, default=str))
    assert done.returncode == 0, done.stderr
    own, qat = map(float, done.stdout.split())
    assert 0 < own < 0.05
    assert qat < 1e-5  # FakeQuant has the same grid
    auto = {path.name for path in Path("auto").iterdir()}
    assert {"record.txt", "tiny_quantized.pb", "tiny_quant.json"} < auto
    assert all(name.startswith("import/") for name in json.loads(Path("auto/config.json").read_text()) if "/" in name)
    assert list(load_record(Path("auto/record.txt"))) == ["conv", "depthwise", "dense"]
    assert "WARNING - [autoquant]: [sample]: begins" in Path("amct_log/amct_tensorflow.log").read_text()


SAME = [
    "import sys, neighbour, __main__; print(sys.argv, __name__, __file__, sys.path[0], neighbour, __main__.sys)",
    "raise ValueError('one')",
    "def f():\n    try:\n        1 / 0\n    except ArithmeticError as e:\n        raise OSError from e\nf()",
    "import atexit, sys\natexit.register(print, 'end')\nsys.exit('bye')",
    "raise SystemExit(7)",
    "raise KeyboardInterrupt",
    "def f(:",
]


@pytest.mark.parametrize("text", SAME)
def test_a_script_is_run_as_python_runs_it(text: str) -> None:
    Path("sub").mkdir()
    Path("sub/neighbour.py").touch()
    Path("sub/script.py").write_text(text)
    words = ["sub/script.py", "-x", "--help"]
    plain, ours = python(*words), python("-m", "autoquant.amct", *words)
    assert (ours.returncode, ours.stdout, ours.stderr) == (plain.returncode, plain.stdout, plain.stderr)
    assert plain.stdout or plain.returncode


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (
            ["none.py"],
            2,
            "autoquant.amct: error: none.py: there is no such file; give the Python file of a script made",
        ),
        (["."], 2, "autoquant.amct: error: .: cannot be read: Is a directory; give"),
        ([], 2, "usage: python -m autoquant.amct SCRIPT"),
        (["--help"], 0, "usage: python -m autoquant.amct SCRIPT"),
    ],
)
def test_without_a_script_a_sentence_says_so(words: list[str], code: int, message: str) -> None:
    done = python("-m", "autoquant.amct", *words)
    assert done.returncode == code
    assert message in (done.stderr if code else done.stdout)
    assert "Traceback" not in done.stderr
