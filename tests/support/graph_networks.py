"""A small network of TensorFlow, opened and surveyed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoquant.evaluation.engines.tensorflow import TensorFlowEngine
from autoquant.model.graph import Graph
from autoquant.model.layer import Layer
from autoquant.targets.tensorflow import TensorFlowTarget


@dataclass(frozen=True)
class Network:
    """A normalized graph and its layers."""

    graph: Graph
    layers: Mapping[str, Layer]

    def save(self, record: Any, path: Path, **options: Any) -> Path:
        TensorFlowTarget(**options).save(self.graph, self.layers, record, path)
        return path

    def run(self, path: Path, feeds: Mapping[str, Any]) -> Any:
        """The first output of a saved file."""
        runner = TensorFlowEngine().open_file(path, self.graph)
        result = runner(feeds)[self.graph.outputs[0]]
        runner.close()
        return result

    def run_float(self, feeds: Mapping[str, Any]) -> Any:
        return TensorFlowEngine().open_graph(self.graph)(feeds)[self.graph.outputs[0]]
