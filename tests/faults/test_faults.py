"""A dozen of the kills and disasters that `tests/faults` plays by hundreds, on a network that costs nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_model import Tiny

from autoquant.model.litert.convert import convert
from autoquant.model.open import open_model

HERE = Path(__file__).parent
SPACE = '[layer]\nquant_enable = [true, false]\nact_algo = ["ifmr", "minmax"]\n'
METRIC = """
import numpy as np

def metric(outputs, labels):
    return (np.abs(outputs - labels).max(axis=1) < 0.08).astype(float)

metric.bounds = (0, 1)
"""


@pytest.fixture(scope="module")
def words(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """By target the arguments of a script: a search that misses with all layers in INT8, and is certified."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("faults")
    (folder / "mine.py").write_text(METRIC)
    (folder / "space.toml").write_text(SPACE)
    (folder / "tiny.tflite").write_bytes(convert(open_model(tiny.model).graph).content)
    images = np.load(tiny.evaluation)["x"]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(tf.compat.v1.GraphDef.FromString(tiny.model.read_bytes()), name="")
        np.savez(folder / "data.npz", x=images, y=session.run("scores:0", {"image:0": images}))
    options = ["--metric", f"{folder / 'mine.py'}:metric", "--space", str(folder / "space.toml"), "--tolerance", "45%"]
    options = ["--", *options, "--max-trials", "6", "--sampler", "tpe"]
    data = [str(folder / "data.npz"), str(tiny.calibration)]
    models = {"litert": folder / "tiny.tflite", "tensorflow": tiny.model}
    return {target: [str(model), *data, *options] for target, model in models.items()}


def play(script: str, words: list[str], *more: str) -> list[str]:
    """The lines of a script, which must find all the same."""
    place = words.index("--")
    command = [sys.executable, "-W", "ignore", str(HERE / script), *words[:place], *more, *words[place:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parents[1])
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(("target", "cases"), [("litert", 6), ("tensorflow", 2)])
def test_killed_and_resumed_searches_come_to_the_same(words: dict[str, list[str]], target: str, cases: int) -> None:
    lines = play("kills.py", words[target], "--targets", target, "--cases", str(cases))
    assert lines[0].startswith(f"{target}: alone 6 trials, best ")
    assert " certified, " in lines[0]
    assert lines[-1] == f"{cases} the same, 0 differ"


def test_disasters_lose_nothing(words: dict[str, list[str]]) -> None:
    only = "journal deleted,trials deleted,run deleted,clock jumps"
    lines = play("disasters.py", words["litert"], "--only", only)
    assert len(lines) == 5
    assert all(line.endswith(": same") for line in lines[1:])
