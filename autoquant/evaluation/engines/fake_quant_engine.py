"""LiteRT for what the TensorFlow target saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from autoquant.evaluation.data.batch import Array
from autoquant.evaluation.engines.engine import Runner
from autoquant.evaluation.engines.fake_quant import Simulation
from autoquant.evaluation.engines.litert import LiteRTEngine, LiteRTRunner
from autoquant.model.model import Program
from autoquant.targets.reading import read_saved


@dataclass(frozen=True)
class SimulationEngine:
    """LiteRT with float kernels for graphs of one model, which was converted once, and for its quantized graphs."""

    name: ClassVar[str] = "litert"
    simulation: Simulation
    litert: LiteRTEngine = field(default_factory=LiteRTEngine)

    @property
    def version(self) -> str:
        """Of LiteRT."""
        return self.litert.version

    def open_graph(self, graph: Program, fetches: Sequence[str] | None = None) -> Runner:
        """Open the float graph as it was converted; another one, and one of other tensors than layers read, anew.

        Raises ModelError as LiteRTEngine.
        """
        known = self.simulation.activations
        if graph is not self.simulation.graph or not known.keys() >= set(fetches or ()):
            return self.litert.open_graph(graph, fetches)
        if not fetches:
            return self.litert.open_graph(self.simulation.lite)
        names = {name: known[name] for name in fetches}
        return Renamed(self.litert.open_graph(self.simulation.lite, list(dict.fromkeys(names.values()))), names)

    def open_file(self, path: Path, graph: Program) -> LiteRTRunner:
        """Open a saved .pb. Raises TrialError where a layer of it cannot be simulated."""
        content = self.simulation.content(read_saved(path))
        return LiteRTRunner(content, graph.inputs, graph.outputs, threads=self.litert.threads)


@dataclass(frozen=True, slots=True)
class Renamed:
    """A runner whose tensors have other names: `names` gives for each the one that the runner knows."""

    runner: Runner
    names: Mapping[str, str]

    def __call__(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Run one batch."""
        found = self.runner(inputs)
        return {name: found[known] for name, known in self.names.items()}

    def close(self) -> None:
        """Give back its memory."""
        self.runner.close()
