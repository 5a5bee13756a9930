"""Candidates of the layers of a TensorFlow graph, found again in the .tflite that it was converted to."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from autoquant.calibration.statistics import Statistics
from autoquant.errors import ModelError
from autoquant.evaluation.engines.fake_quant_places import Place, find_places, is_transposed
from autoquant.model.graph import Graph
from autoquant.model.layer import Layer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.matching import laid_out
from autoquant.quantization.affine import Array
from autoquant.tuning.sensitivity.layers import Quantized, WeightKey, quantized_layers, real_weight
from autoquant.tuning.sensitivity.result import Candidates
from autoquant.tuning.sensitivity.variants import Variant


def graph_variants(
    graph: Graph,
    lite: LiteGraph,
    layers: Mapping[str, Layer],
    candidates: Candidates,
    statistics: Statistics,
    batch_num: int,
) -> Mapping[tuple[str, int], Variant]:
    """A variant of each candidate, by layer and number; those that cannot be calibrated are left out.

    Raises ModelError where the converter left no operator of a layer, and as `quantized_layers`.
    """
    places = find_places(graph, [layers[name] for name in candidates], lite)
    for name, reason in places.reasons.items():
        raise ModelError(name, f"cannot be measured on LiteRT: {reason}", hint="leave the layer in float")
    made = quantized_layers(graph, layers, candidates, statistics, batch_num)
    return {place: _variant(graph, lite, places.found[one.layer.name], one) for place, one in made.items()}


def _variant(graph: Graph, lite: LiteGraph, place: Place, one: Quantized) -> Variant:
    weight = None
    if one.weight is not None and place.weight is not None:
        transposed = is_transposed(lite.subgraph.operators[place.operator], place.kind)
        weight = place.weight, partial(_laid_out, graph, one.layer, one.weight, place.kind, transposed=transposed)
    factors = np.float32(1.0) / np.array(one.balance, np.float32) if one.balance else None
    return Variant(one.layer.name, place.operator, place.data, one.activations, weight, factors)


def _laid_out(graph: Graph, layer: Layer, key: WeightKey, kind: str, *, transposed: bool) -> Array:
    return laid_out(real_weight(graph, layer, key), kind, transposed=transposed)
