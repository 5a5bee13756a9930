"""A dozen of the kills and disasters that `tests/faults` plays by hundreds, on a network that costs nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_model import Tiny

HERE = Path(__file__).parent
TARGETS = ("litert", "tensorflow")
ONLY = ("journal deleted", "trials deleted", "run deleted", "clock jumps")
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


PLAY = """
import importlib, json, sys

for name, words in json.loads(sys.argv[1]).items():
    sys.argv[1:] = words
    code = importlib.import_module(name).main()
    print(f"{name}: exit {code}", flush=True)
"""


@pytest.fixture(scope="module")
def lines(words: list[str]) -> dict[str, list[str]]:
    """The lines of both scripts, which must find all the same; one process plays them, which loads TensorFlow once."""
    place = words.index("--")
    scripts = {
        name: [*words[:place], *more, *words[place:]]
        for name, more in (("kills", ("--cases", "6")), ("disasters", ("--only", ",".join(ONLY))))
    }
    path = os.pathsep.join([str(HERE), *sys.path])
    command = [sys.executable, "-W", "ignore", "-c", PLAY, json.dumps(scripts)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout.splitlines()
    assert "kills: exit 0" in said and said[-1] == "disasters: exit 0", done.stdout
    end = said.index("kills: exit 0")
    return {"kills": said[:end], "disasters": said[end + 1 : -1]}


def test_killed_and_resumed_searches_come_to_the_same(lines: dict[str, list[str]]) -> None:
    for target in TARGETS:
        (alone,) = (line for line in lines["kills"] if line.startswith(f"{target}: alone 6 trials, best "))
        assert " certified, " in alone
    assert lines["kills"][-1] == "6 the same, 0 differ"


def test_disasters_lose_nothing(lines: dict[str, list[str]]) -> None:
    told = [line.split(":")[0] for line in lines["disasters"]]
    assert told == [what for target in TARGETS for what in (target, *(f"{target}, {name}" for name in ONLY))]
    assert all(line.endswith(": same") for line in lines["disasters"] if ", " in line.split(":")[0])
