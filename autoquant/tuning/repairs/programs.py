"""What repairs do to each kind of program: a graph of TensorFlow, or a .tflite."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from autoquant.evaluation.data.batch import Array
from autoquant.evaluation.engines.engine import Runner
from autoquant.model.layer import Layer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.model import Program
from autoquant.tuning.repairs.chains import Chains, Constants


class FloatInt8Pair(Protocol):
    """A saved INT8 model, and the float model that it is the quantized form of.

    It is of some layers, all with a weight and a bias, and INT8 in the file.
    """

    def weight_errors(self) -> Iterator[tuple[Layer, Array]]:
        """Each layer with the error of its weight, W_q - W, float64, in the layout of the float model."""
        ...

    def input_axis(self, layer: Layer) -> int:
        """The axis of a layer's weight that numbers input channels."""
        ...

    def open(self) -> Runner:
        """A runner of both models, which gives by layer the mean over a batch of its INT8 result minus the float one.

        That is of each output channel, before the activation. Behind each layer its mean error is taken off before
        anything reads the result, so everything before a layer is quantized and corrected already, for this batch. A
        model of a fixed batch size gives one row of channels after the other.
        """
        ...


@dataclass(frozen=True, slots=True)
class Repairs:
    """The functions for one kind of program.

    `find_chains` finds all links between layers; `with_constants` gives the program other constants of layers, float32;
    `open_pair` opens a file that a target saved, beside its float model, for some layers.
    """

    find_chains: Callable[[Any, Mapping[str, Layer]], Chains]
    with_constants: Callable[[Any, Mapping[str, Layer], Mapping[str, Constants]], Program]
    open_pair: Callable[[Path, Any, Collection[Layer]], FloatInt8Pair]


def repairs_of(program: Program) -> Repairs:
    """The functions for a program, by its kind."""
    return _lite() if isinstance(program, LiteGraph) else _graph()


def _lite() -> Repairs:
    from autoquant.tuning.repairs import lite_chains
    from autoquant.tuning.repairs.lite_pair import LitePair

    return Repairs(lite_chains.find_chains, lite_chains.with_constants, LitePair.of)


def _graph() -> Repairs:
    from autoquant.tuning.repairs import graph_chains
    from autoquant.tuning.repairs.graph_pair import GraphPair

    return Repairs(graph_chains.find_chains, graph_chains.with_constants, GraphPair.of)
