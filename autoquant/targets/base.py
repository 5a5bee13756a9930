"""What a target is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from autoquant.calibration.record import Record
from autoquant.model.graph import Graph
from autoquant.model.layers import Layer


class Target(Protocol):
    """Where an INT8 model runs: decides where quantizers sit and what is saved."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    def file_name(self, model: str) -> str:
        """Name of the file that is saved for a model of this name."""
        ...

    def save(self, graph: Graph, layers: Mapping[str, Layer], record: Record, path: Path) -> None:
        """Write the INT8 model: the layers of the record in INT8, all others in float.

        Raises TrialError where a layer cannot be quantized with what was recorded.
        """
        ...
