"""The FP32 outputs that others are compared with: cached, or computed again where they are too many for the cache."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator

from autoquant.array import Array
from autoquant.evaluation.data.batch import Batch, Outputs
from autoquant.evaluation.engines.engine import Runner, run_batch
from autoquant.evaluation.scoring.outputs import OutputCache


class Reference:
    """What is `kept` of the FP32 model's outputs for each of some samples, numbered from 0.

    The first ones are in the cache. Those that it had no room for are computed by the model that `open_float` opens,
    once.
    """

    def __init__(
        self,
        kept: Callable[[Outputs], Outputs],
        cache: OutputCache,
        open_float: Callable[[], Runner] | None = None,
    ) -> None:
        self.cache = cache
        self._kept = kept
        self._open_float = open_float
        self._runner: Runner | None = None

    def rows(self, numbers: Array, batch: Batch) -> Outputs:
        """Of a batch of samples of these ascending numbers.

        Raises as `run_batch`, and TrialError where outputs differ in shape.
        """
        return self.cache.rows(numbers) if self._has(numbers) else self._computed(batch)

    def parts(self, numbers: Array, batch: Batch) -> Iterator[tuple[slice, Outputs]]:
        """The same in parts that are of one shape each, with their places in the batch."""
        return self.cache.parts(numbers) if self._has(numbers) else iter([(slice(None), self._computed(batch))])

    def _has(self, numbers: Array) -> bool:
        return bool(numbers[-1] < len(self.cache))

    def _computed(self, batch: Batch) -> Outputs:
        if self._runner is None:
            assert self._open_float is not None  # without it everything is cached
            self._runner = self._open_float()
            weakref.finalize(self, self._runner.close)
        return self._kept(run_batch(self._runner, batch))
