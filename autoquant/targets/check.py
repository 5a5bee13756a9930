"""A saved model against its record: everything that quantization wrote is read back and compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoquant.calibration.record import Record
from autoquant.errors import ModelError
from autoquant.formats.quant_json import load_quant_json, quant_json_path
from autoquant.model.operators import node_of
from autoquant.targets.ascend_functions import NAMES, functions_for
from autoquant.targets.fitting import MATCH, fitted
from autoquant.targets.int8_layers import check_layer, int8_layers
from autoquant.targets.reading import AGAIN, Saved, read_saved


@dataclass(frozen=True, slots=True)
class Checked:
    """A saved model that is as its record says.

    `layers` counts them by operator, `weights` the values in INT8. `left_out` are the entries of the record that are of
    operators which the file does not have, as none of its outputs depends on them. `simulation` says whether the file
    runs in stock TensorFlow, `mapping` whether <model>_quant.json is beside it, with the digest of its bytes.
    """

    layers: Mapping[str, int]
    weights: int
    left_out: tuple[str, ...]
    simulation: bool
    mapping: bool


def check(pb: Path, record: Record) -> Checked:
    """Read a saved model back, and compare all that quantization wrote with the record that it was saved with.

    Every entry of the record has its operators, unless the one that it is named after is not in the file at all, and no
    others exist; their attributes, constants and connections are
    bit for bit what the record gives, weights are within their bits, the functions are ours or not there, and the file
    has the digest that <model>_quant.json says, where that is beside it. What the record does not tell, such as the
    values of weights, only the digest protects. Raises ModelError where the file is not a graph, or a float one, and
    PlanError that names node and attribute where anything differs.
    """
    saved = read_saved(pb)
    if not any(node.op in NAMES for node in saved.graph.nodes.values()):
        raise ModelError(str(pb), "has no operator of AMCT: it is a float model", hint="give a quantized .pb")
    found = int8_layers(saved)
    kept = {name: entry for name, entry in record.items() if node_of(name) in saved.graph.nodes}
    named = fitted({name: one.layer for name, one in found.items()}, kept, model=pb.name)
    for name in sorted(found.keys() - {layer.name for layer, _ in named}):
        raise saved.error(name, "is in INT8, but not in the record", hint=MATCH)
    weights = sum(check_layer(saved, found[layer.name], entries) for layer, entries in named)
    for node in saved.graph.nodes.values():
        if node.op in NAMES and node.name not in saved.seen:
            raise saved.error(node.name, f"is {node.op}, but belongs to no layer")
    kinds = Counter(layer.op for layer, _ in named)
    left_out = tuple(name for name in record if name not in kept)
    return Checked(dict(sorted(kinds.items())), weights, left_out, _has_functions(saved), _has_mapping(saved, pb))


def _has_functions(saved: Saved) -> bool:
    """Whether the functions are there. Raises PlanError where they are not those that run the graph."""
    library = saved.graph.library.function if saved.graph.library is not None else ()
    there = [function for function in library if function.signature.name in NAMES]
    ours = {function.signature.name: function for function in functions_for(saved.graph).function}
    for function in there:
        if function != ours[function.signature.name]:
            raise saved.error(f"function {function.signature.name}", "is not the one that runs this graph")
    if there and sorted(function.signature.name for function in there) != list(NAMES):
        raise saved.error("functions", f"of {', '.join(NAMES)} each must be there once, or none")
    return bool(there)


def _has_mapping(saved: Saved, pb: Path) -> bool:
    """Whether <model>_quant.json is there. Raises PlanError where it is of another file."""
    path = quant_json_path(pb)
    if not path.exists():
        return False
    mapping = load_quant_json(path)
    if mapping.sha256 != saved.digest:
        raise saved.error("sha256", f"is not the one in {path.name}")
    for name in mapping.nodes:
        if name not in saved.graph.nodes:
            raise saved.error(name, f"is in {path.name}, but not in the graph", hint=AGAIN)
    return True
