"""A dozen of the kills and disasters that `tests/faults` plays by hundreds, on a network that costs nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_model import Tiny

HERE = Path(__file__).parent
SPACE = '[layer]\nquant_enable = [true, false]\nact_algo = ["ifmr", "minmax"]\n'
METRIC = """
import numpy as np

def metric(outputs, labels):
    return (np.abs(outputs - labels).max(axis=1) < 0.08).astype(float)

metric.bounds = (0, 1)
"""


@pytest.fixture(scope="module")
def words(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments of a script: a search that misses with all layers in INT8, and is certified, for both targets."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("faults")
    (folder / "mine.py").write_text(METRIC)
    (folder / "space.toml").write_text(SPACE)
    images = np.load(tiny.evaluation)["x"]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(tf.compat.v1.GraphDef.FromString(tiny.model.read_bytes()), name="")
        np.savez(folder / "data.npz", x=images, y=session.run("scores:0", {"image:0": images}))
    options = ["--metric", f"{folder / 'mine.py'}:metric", "--space", str(folder / "space.toml"), "--tolerance", "50%"]
    options = ["--", *options, "--max-trials", "6", "--sampler", "tpe"]
    return [str(tiny.model), str(folder / "data.npz"), str(tiny.calibration), *options]


def play(script: str, words: list[str], *more: str) -> list[str]:
    """The lines of a script, which must find all the same."""
    place = words.index("--")
    command = [sys.executable, "-W", "ignore", str(HERE / script), *words[:place], *more, *words[place:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parents[1])
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_killed_and_resumed_searches_come_to_the_same(words: list[str]) -> None:
    """Both targets in one process, which loads TensorFlow once."""
    lines = play("kills.py", words, "--cases", "6")
    for target in ("litert", "tensorflow"):
        (alone,) = (line for line in lines if line.startswith(f"{target}: alone 6 trials, best "))
        assert " certified, " in alone
    assert lines[-1] == "6 the same, 0 differ"


def test_disasters_lose_nothing(words: list[str]) -> None:
    only = "journal deleted,trials deleted,run deleted,clock jumps"
    lines = play("disasters.py", words, "--only", only)
    assert [line.split(":")[0] for line in lines] == [
        what
        for target in ("litert", "tensorflow")
        for what in (target, *(f"{target}, {name}" for name in only.split(",")))
    ]
    assert all(line.endswith(": same") for line in lines if ", " in line.split(":")[0])
