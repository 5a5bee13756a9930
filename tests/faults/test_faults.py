"""A dozen of the kills and disasters that `tests/faults` plays by hundreds, on a network that costs nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import partial
from itertools import takewhile
from operator import ne
from pathlib import Path

import numpy as np
import pytest
from databases import programs
from tiny_model import Tiny

HERE = Path(__file__).parent
TARGETS = ("litert", "tensorflow")
ONLY = ("journal deleted", "trials deleted", "run deleted", "clock jumps")
POINTS = ("between files and result", "half of a line written", "score.json written", "holdout logged")
SPACE = '[layer]\nquant_enable = [true, false]\nact_algo = ["ifmr", "minmax"]\n'
METRIC = """
import numpy as np

def metric(outputs, labels):
    return (np.abs(outputs - labels).max(axis=1) < 0.08).astype(float)

metric.bounds = (0, 1)
"""


@pytest.fixture(scope="module")
def files(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of data, space and metrics of a search that misses with all layers in INT8, and is certified."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("faults")
    (folder / "mine.py").write_text(METRIC)
    (folder / "unbounded.py").write_text(METRIC.replace("metric.bounds = (0, 1)", ""))
    (folder / "space.toml").write_text(SPACE)
    images = np.load(tiny.evaluation)["x"]
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(tf.compat.v1.GraphDef.FromString(tiny.model.read_bytes()), name="")
        np.savez(folder / "data.npz", x=images, y=session.run("scores:0", {"image:0": images}))
    return folder


def words(tiny: Tiny, files: Path, metric: str, sampler: str) -> list[str]:
    """The arguments of a script that say what is searched."""
    options = ["--metric", f"{files / metric}:metric", "--space", str(files / "space.toml"), "--tolerance", "50%"]
    options = ["--", *options, "--max-trials", "6", "--sampler", sampler]
    return [str(tiny.model), str(files / "data.npz"), str(tiny.calibration), *options]


PLAY = """
import importlib, json, sys

for name, words in json.loads(sys.argv[1]).items():
    sys.argv[1:] = words
    code = importlib.import_module(name).main()
    print(f"{name}: exit {code}", flush=True)
"""


@pytest.fixture(scope="module")
def lines(tiny: Tiny, files: Path) -> dict[str, list[str]]:
    """The lines of the scripts, which must find all the same; one process plays them, which loads TensorFlow once."""
    alone = words(tiny, files, "mine.py", "tpe")
    storages = "journal,postgresql" if programs() else "journal"
    fleet = ["--cases", "3", "--points", ",".join(POINTS), "--storages", storages, "--seed", "3"]
    scripts = {
        "kills": ["--cases", "6", *alone],
        "disasters": ["--only", ",".join(ONLY), *alone],
        "fleet_kills": [*fleet, *words(tiny, files, "unbounded.py", "random")],
    }
    path = os.pathsep.join([str(HERE), *sys.path])
    command = [sys.executable, "-W", "ignore", "-c", PLAY, json.dumps(scripts)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stdout + done.stderr
    said, found = iter(done.stdout.splitlines()), {}
    for name in scripts:
        found[name] = list(takewhile(partial(ne, f"{name}: exit 0"), said))
    assert re.findall(r"^(\w+): exit 0$", done.stdout, re.MULTILINE) == list(scripts), done.stdout
    return found


def test_killed_and_resumed_searches_come_to_the_same(lines: dict[str, list[str]]) -> None:
    for target in TARGETS:
        (alone,) = (line for line in lines["kills"] if line.startswith(f"{target}: alone 6 trials, best "))
        assert " certified, " in alone
    assert lines["kills"][-1] == "6 the same, 0 differ"


def test_disasters_lose_nothing(lines: dict[str, list[str]]) -> None:
    told = [line.split(":")[0] for line in lines["disasters"]]
    assert told == [what for target in TARGETS for what in (target, *(f"{target}, {name}" for name in ONLY))]
    assert all(line.endswith(": same") for line in lines["disasters"] if ", " in line.split(":")[0])


def test_workers_and_owners_killed_at_named_points_come_to_the_same(lines: dict[str, list[str]]) -> None:
    for target in TARGETS:
        (alone,) = (line for line in lines["fleet_kills"] if line.startswith(f"{target}: alone 6 trials, best "))
        assert " certified, " in alone
    assert lines["fleet_kills"][-1] == "6 struck, 6 the same, 0 differ"
