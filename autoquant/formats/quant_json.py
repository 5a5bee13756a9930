"""<model>_quant.json: which nodes of the float graph the nodes of a quantized graph stand for.

AMCT writes a file of this name; what is in it is not published. Here it is

    {"version": 1, "sha256": "<of the bytes of <model>_quantized.pb>", "nodes": {"<quantized>": ["<original>", ...]}}

with the nodes that quantization added, renamed or changed. A node that is not listed is what it was. Originals are
nodes of the graph that was quantized, which is the user's after batch norms and their like were folded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from autoquant.errors import PlanError
from autoquant.formats.codec import load


@dataclass(frozen=True)
class QuantJson:
    """The digest (SHA-256, hex) of a quantized model, and its nodes with those that each of them stands for."""

    sha256: str
    nodes: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        if not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise ValueError(f"sha256 has 64 hexadecimal digits, got {self.sha256!r}")
        for name, originals in self.nodes.items():
            if not name or not originals or not all(originals):
                raise ValueError(f"a node stands for one other at least, and each has a name; '{name}' has not")
        object.__setattr__(self, "nodes", MappingProxyType(dict(self.nodes)))


def quant_json_path(model: Path) -> Path:
    """Where the file of a quantized model is: of x_quantized.pb it is x_quant.json, beside it.

    >>> quant_json_path(Path("net_quantized.pb")).name
    'net_quant.json'
    """
    return model.with_name(f"{model.stem.removesuffix('_quantized')}_quant.json")


def load_quant_json(path: Path) -> QuantJson:
    """Read a file that `save` of a QuantJson wrote. Raises PlanError that names the key."""
    return load(QuantJson, path, PlanError, hint="save the quantized model again")
