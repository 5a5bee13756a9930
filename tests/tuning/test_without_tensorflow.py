"""A search on a .tflite, its certificate included, does not load TensorFlow, from Python or from the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import Tiny

from autoquant.model.litert.convert import convert
from autoquant.model.open import open_model

FROM_PYTHON = """
import sys, autoquant
model, data, run = sys.argv[1:]
result = autoquant.search(model, data, target="litert", tolerance="20%", run=run, max_trials=2)
again = autoquant.resume(run, max_trials=3)
print(result.verdict, again.score, result.model.name, "tensorflow" in sys.modules)
"""
FROM_COMMAND_LINE = """
import sys
from autoquant.cli.main import main
model, data, run = sys.argv[1:]
code = main(["search", model, "--data", data, "--target", "litert", "--tolerance", "20%", "--run", run])
print(code, "tensorflow" in sys.modules)
"""


@pytest.fixture(scope="module")
def lite(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lite") / "tiny.tflite"
    path.write_bytes(convert(open_model(tiny.model).graph).content)
    return path


def run(code: str, *arguments: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()


def test_from_python(lite: Path, tiny: Tiny, tmp_path: Path) -> None:
    verdict, score, name, loaded = run(FROM_PYTHON, lite, tiny.evaluation, tmp_path / "run")
    assert (verdict, name, loaded) == ("certified", "tiny_int8.tflite", "False")
    assert float(score) > 0.7


def test_from_the_command_line(lite: Path, tiny: Tiny, tmp_path: Path) -> None:
    assert run(FROM_COMMAND_LINE, lite, tiny.evaluation, tmp_path / "run") == ["0", "False"]
