"""A cache of outputs that goes to disk where they are large."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autoquant.array import Array
from autoquant.errors import TrialError
from autoquant.evaluation.data.array_cache import IN_MEMORY, ON_DISK, ArrayCache, CacheRoom
from autoquant.evaluation.data.batch import Outputs


def samples_of(outputs: Outputs, samples: slice | Array) -> Outputs:
    """The outputs of some samples of a batch."""
    return {name: array[samples] for name, array in outputs.items()}


class OutputCache(ArrayCache):
    """Outputs of samples, with room of its own; `folder` says on which disk."""

    def __init__(self, folder: Path | None = None, *, most: int = ON_DISK, in_memory: int = IN_MEMORY) -> None:
        super().__init__(CacheRoom(folder, most, least=in_memory), in_memory=in_memory)

    def rows(self, numbers: Array) -> Outputs:
        """Those of samples of ascending numbers, together. Raises TrialError where their shapes differ."""
        parts = [outputs for _, outputs in self.parts(numbers)]
        for name in parts[0]:
            shapes = sorted({part[name].shape[1:] for part in parts})
            if len(shapes) > 1:
                what = f"output '{name}' of the FP32 model has shapes {', '.join(map(str, shapes))} in one batch"
                raise TrialError("metric", what, hint="what depends on the values in FP32 cannot be compared")
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
