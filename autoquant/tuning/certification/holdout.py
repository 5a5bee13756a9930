"""What is kept aside: samples that the search never sees, and on which the best that it found is scored, once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.engines.engine import Runner
from autoquant.evaluation.metrics.metric import Metric, require_labels
from autoquant.evaluation.scoring.baseline import measure_baseline
from autoquant.evaluation.scoring.subset import Part

DECLINED = "nothing was to be certified (--certify none)"


@dataclass(frozen=True)
class Held:
    """Samples kept aside: those of `data`, or none, and `reason` says why.

    `open` scores the FP32 model on them where that was not done yet. `left_out` counts samples that were to be among
    them and are not, because search or calibration have them as well.
    """

    data: Dataset | None
    reason: str
    open: Callable[[Callable[[], Runner], int], Part] | None
    left_out: int = 0

    @classmethod
    def nothing(cls, reason: str) -> Held:
        """No samples."""
        return cls(None, reason, None)

    @classmethod
    def part_of(cls, part: Part, left_out: int = 0) -> Held:
        """Some of the evaluation data, of which the FP32 model was scored with the rest."""
        return cls(part.data, "", lambda opened, batch_size: part, left_out)

    @classmethod
    def given(cls, data: Dataset, metric: Metric, left_out: int = 0) -> Held:
        """Data of its own. Raises DataError where it lacks the labels that the metric needs."""
        require_labels(metric, data)

        def open_part(opened: Callable[[], Runner], batch_size: int) -> Part:
            runner = opened()
            try:
                baseline = measure_baseline(runner, data, metric, batch_size=batch_size, key="")
            finally:
                runner.close()
            return Part.of(data, np.arange(len(data)), metric, baseline)

        return cls(data, "", open_part, left_out)

    def __len__(self) -> int:
        return 0 if self.data is None else len(self.data)
