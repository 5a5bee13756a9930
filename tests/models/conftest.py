"""Networks that are trained when first asked for, searches over them, and plain tools to judge what is saved."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest

import autoquant

SAMPLES, CALIBRATION = 400, 64
TOLERANCE = {"volume": 0.02, "attention": 0.02, "denoiser": 0.3}
"""Of top-1, and of PSNR in dB."""
PLAIN = """
version = 1
[layer]
quant_enable = [true, false]
"""
"""No repairs: weights and biases of the saved file are those of the float model."""
WITH_TENSORS = f"""{PLAIN}
[[override]]
types = ["AddV2", "MaxPool"]
quant_enable = true
"""


@dataclass(frozen=True)
class Trained:
    """A float model on disk, data that it was not trained on, its score there, its weights and biases by layer."""

    model: Path
    evaluation: Path
    calibration: Path
    metric: str
    fp32: float
    weights: Mapping[str, tuple[Any, Any]]

    @property
    def x(self) -> Any:
        return np.load(self.evaluation)["x"]

    def score(self, outputs: Any) -> float:
        return score(self.metric, outputs, np.load(self.evaluation)["y"])


def score(metric: str, outputs: Any, truth: Any) -> float:
    """Share of right answers, or the mean over images of their PSNR in dB, whose values are in 0..1."""
    if metric == "top1":
        return float((outputs.argmax(axis=1) == truth).mean())
    error = np.square(outputs.astype(np.float64) - truth).reshape(len(truth), -1).mean(axis=1)
    return float(np.mean(-10 * np.log10(error)))


@dataclass(frozen=True)
class Found:
    """The folder of a run that is over, read without our code."""

    run: Path

    @property
    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.run / "result.json").read_text())
        return facts

    @property
    def config_file(self) -> Path:
        return self.run / "best" / "config.json"

    @property
    def record_file(self) -> Path:
        return self.run / "best" / "record.txt"

    @property
    def model(self) -> Path:
        (path,) = (self.run / "best").glob("*_quantized.pb")
        return path

    @property
    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads(self.config_file.read_text())
        return config

    @property
    def record(self) -> dict[str, dict[str, Any]]:
        """Fields by layer, by regular expressions."""
        layers = {}
        text = self.record_file.read_text()
        for key, body in re.findall(r'key:\s*"([^"]+)"\s*value\s*\{(.*?)\}', text, re.DOTALL):
            fields: dict[str, list[float]] = {}
            for name, value in re.findall(r"(\w+):\s*([-+.\w]+)", body):
                fields.setdefault(name, []).append(float(value))
            layers[key] = {name: np.array(values) for name, values in fields.items()}
        return layers


class Saved:
    """A frozen graph in a plain TensorFlow session, nothing of ours."""

    def __init__(self, path: Path) -> None:
        import tensorflow as tf

        graph_def = tf.compat.v1.GraphDef.FromString(path.read_bytes())
        self.nodes = {node.name: node for node in graph_def.node}
        (self._input,) = (node.name for node in graph_def.node if node.op == "Placeholder")
        with tf.Graph().as_default() as graph:
            tf.graph_util.import_graph_def(graph_def, name="")
        self._session = tf.compat.v1.Session(graph=graph)

    def run(self, x: Any, *names: str) -> list[Any]:
        """What these nodes give for the inputs."""
        return list(self._session.run([f"{name}:0" for name in names], {f"{self._input}:0": x}))

    def constant(self, name: str) -> Any:
        import tensorflow as tf

        return tf.make_ndarray(self.nodes[name].attr["value"].tensor)

    def inputs(self, name: str) -> list[str]:
        return [edge.split(":")[0] for edge in self.nodes[name].input]

    def before(self, name: str, op: str) -> list[str]:
        """The nearest nodes of an operator before a node, in order of inputs; not through other layers or shapes."""
        found = []
        for source in self.inputs(name):
            if self.nodes[source].op == op:
                found.append(source)
            elif self.nodes[source].op not in {"AscendDequant", "AscendQuant", "Shape"}:
                found += self.before(source, op)
        return list(dict.fromkeys(found))


@pytest.fixture(scope="session")
def saved() -> type[Saved]:
    return Saved


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """A network by name, trained when it is first asked for."""

    @cache
    def made(name: str) -> Trained:
        folder = tmp_path_factory.mktemp(name)
        samples, train, metric = networks.NETWORKS[name]
        rng = np.random.default_rng(5)
        evaluation, calibration = folder / "evaluation.npz", folder / "calibration.npz"
        x, y = samples(SAMPLES, rng)
        np.savez(evaluation, x=x, y=y)
        np.savez(calibration, x=samples(CALIBRATION, rng)[0])
        with networks.without_warnings_of_keras():
            model, predict, weights = train(folder, lambda count: samples(count, rng))
            fp32 = score(metric, predict(x), y)
        return Trained(model, evaluation, calibration, metric, fp32, weights)

    return made


@pytest.fixture(scope="session")
def found(trained: Callable[[str], Trained], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Found]:
    """What a search over a network by name left behind; the one over the attention block is made by the command."""

    @cache
    def made(name: str) -> Found:
        network, folder = trained(name), tmp_path_factory.mktemp(f"{name}-search")
        space = folder / "space.toml"
        space.write_text(WITH_TENSORS if name == "denoiser" else PLAIN)
        if name == "attention":
            words = {"data": network.evaluation, "calibration": network.calibration, "tolerance": TOLERANCE[name]}
            words |= {"metric": network.metric, "space": space, "max-trials": 4, "run": folder / "run"}
            words |= {"certify": "none"}
            options = [str(word) for option, value in words.items() for word in (f"--{option}", value)]
            subprocess.run(
                [sys.executable, "-m", "autoquant", "search", network.model, *options, "--quiet"], check=True
            )
            return Found(folder / "run")
        autoquant.search(
            network.model,
            network.evaluation,
            calibration=network.calibration,
            metric=network.metric,
            tolerance=TOLERANCE[name],
            space=space,
            max_trials=4,
            run=folder / "run",
            certify="none",
        )
        return Found(folder / "run")

    return made
