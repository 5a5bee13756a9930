"""FP32 outputs for metrics that compare with them."""

from __future__ import annotations

from autoquant.evaluation.data.batch import Outputs
from autoquant.evaluation.scoring.outputs import OutputCache
from autoquant.evaluation.scoring.reference import Reference


def cached_reference(*batches: Outputs) -> Reference:
    """These batches, all in the cache."""
    reference = Reference(dict, OutputCache())
    for outputs in batches:
        reference.cache.add(outputs)
    return reference
