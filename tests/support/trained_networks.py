"""Trained networks, folders of finished searches and saved files, read with plain tools."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


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
