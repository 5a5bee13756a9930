"""FP32 passes over the calibration data, for whatever is computed from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from autoquant.calibration.moments import Moments, collect_moments
from autoquant.evaluation.batch import Array
from autoquant.evaluation.data import Dataset
from autoquant.evaluation.engine import Engine, Runner
from autoquant.evaluation.evaluator import Progress, no_progress
from autoquant.model.model import Model
from autoquant.tuning.prepare import calibration_order, part_size


@dataclass(frozen=True)
class Calibrating:
    """Runs models over calibration data, the same samples in the same order for all of them.

    A plan's `batch_num` counts batches of `batch_size` samples.
    """

    engine: Engine
    data: Dataset
    batch_size: int
    on_progress: Progress = no_progress

    def moments(self, model: Model, axes: Mapping[str, int], batch_num: int) -> Mapping[str, Moments]:
        """Moments of tensors of a float model, each with the axis that numbers its channels, over `batch_num` batches.

        Raises TrialError where the model does not run, DataError where the data cannot be read.
        """
        runner = self.engine.open_graph(model.program, sorted(axes))
        try:
            return collect_moments(self._run(runner, part_size(model, runner, self.data), batch_num), axes)
        finally:
            runner.close()

    def samples(self, count: int) -> Mapping[str, Array]:
        """Inputs by name of the first samples of the calibration, `count` of them or all there are, as one batch."""
        return next(self._subset(count).batches(count)).inputs

    def _subset(self, count: int) -> Dataset:
        return self.data.subset(calibration_order(self.data)[:count])

    def _run(self, runner: Runner, size: int, batch_num: int) -> Iterator[Mapping[str, Array]]:
        samples, done = self._subset(batch_num * self.batch_size), 0
        for batch in samples.batches(size):
            yield runner(batch.inputs)
            done += len(batch)
            self.on_progress(done, len(samples))
