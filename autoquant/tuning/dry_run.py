"""A dry run: a search opened, checked, and tried with one plan on a few samples, for what it will take."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from autoquant.cache import digest_of
from autoquant.calibration.plan import Plan
from autoquant.errors import PlanError, TrialError
from autoquant.evaluation.data.checks import check_splits
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.decoding import free_memory, room_for_samples
from autoquant.evaluation.data.images import ImageFolder
from autoquant.evaluation.data.records import RecordSource
from autoquant.evaluation.engines.engine import Engine, bytes_of
from autoquant.evaluation.engines.table import open_engine
from autoquant.evaluation.scoring.baseline import measure_baseline
from autoquant.evaluation.scoring.rows import size_text
from autoquant.evaluation.scoring.subset import EvaluationSubset
from autoquant.formats.codec import encode
from autoquant.formats.space_toml import load_space
from autoquant.memory import peak_memory
from autoquant.pulse import duration
from autoquant.quiet import no_progress
from autoquant.targets.table import TARGETS
from autoquant.tuning.builder import Builder
from autoquant.tuning.certification.holdout import make_holdout
from autoquant.tuning.engine_choice import PLANS
from autoquant.tuning.events import OPENING, Event, Listener, Warned, reporter
from autoquant.tuning.inputs import Inputs, model_of, open_inputs
from autoquant.tuning.pictures import SIZE
from autoquant.tuning.prepare import Preparation
from autoquant.tuning.session import Clock, TimeLimit
from autoquant.tuning.study.code import code_digests
from autoquant.tuning.study.request import SearchRequest
from autoquant.tuning.study.run_folder import RunFolder, default_run
from autoquant.tuning.study.workload import MULTIPLY_ADDS

TRIED = 2
"""Batches that are scored. As many are calibrated on as by a search: that is done once."""
OF_TRIAL, OF_SAMPLE, OF_PICTURE, OF_RUN = 30_000, 50, 2 * 3 * SIZE**2, 500_000
"""Bytes that journal, result and report have for each trial, baseline and splits for each sample, pictures and report
for each picture; and the report without any."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a search has found in its request, and about what it will take.

    There are so many `layers`, and samples of each kind; `no_holdout` says why there is no holdout. `baseline` is the
    FP32 score on `tried` samples, `engine` scores trials. In seconds: `preparation` before the first trial; a `trial`
    that is scored on all samples, as those are that are not stopped early; the `certification`; and `at_most` all of it
    within the budget, but for the sensitivity of layers, which a search needs that misses with all layers in INT8. In
    bytes: an INT8 model, the run's folder on `disk` at most, `memory`; and what of these is free, None where the system
    does not say. `warnings` are what a search would warn of.
    """

    model: str
    target: str
    engine: str
    layers: int
    multiply_adds: int | None
    metric: str
    baseline: float
    tried: int
    search_samples: int
    holdout_samples: int
    calibration_samples: int
    no_holdout: str
    max_trials: int
    preparation: float
    trial: float
    certification: float
    at_most: float
    model_bytes: int
    disk: int
    free_disk: int
    memory: int | None
    free_memory: int | None
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        score = f"{self.metric} {self.baseline:.4g} on {self.tried} samples"
        memory = "" if self.memory is None else f", {size_text(self.memory)} of memory"
        most = f"at most {duration(self.at_most)}, {size_text(self.disk)} on disk{memory}"
        return f"<Estimate for {self.model}: {self.layers} layers, FP32 has {score}\n {most}>"

    def facts(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {"version": 1, **encode(self)}


def dry_run(
    request: SearchRequest,
    run: str | Path | None = None,
    listener: Listener = no_progress,
    clock: Clock = time.monotonic,
) -> Estimate:
    """Open, check and try a search that would be in the folder `run`, of which nothing is made.

    Raises as a search does, and TrialError where no INT8 model can be built.
    """
    run = default_run(request.model) if run is None else Path(run)
    RunFolder(run).refuse_existing()
    request.check_named()
    warnings: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Warned):
            warnings.append(event.text)
        listener(event)

    begin = clock()
    with tempfile.TemporaryDirectory() as temporary:
        folder = RunFolder(Path(temporary) / "run")
        folder.create()
        reporter(listen, OPENING)
        inputs = open_inputs(request, load_space(request.space), model_of(request), listen, folder=folder.path)
        digests = {**inputs.digests(), "space": digest_of(inputs.space_file.text)}  # all data is read for that
        folder.write_request({"request": request.as_table(), "digests": digests, "code": code_digests(request)})
        for text in inputs.source.notes:
            listen(Warned(text))
        found = _DryRun(inputs, folder, listen, clock, begin).estimate(run)
    return replace(found, warnings=tuple(dict.fromkeys(warnings)))


@dataclass(frozen=True)
class _DryRun:
    """The steps of a dry run, in a folder that is removed; `begin` is when it began."""

    inputs: Inputs
    folder: RunFolder
    listener: Listener
    clock: Clock
    begin: float

    def estimate(self, run: Path) -> Estimate:
        """Try one plan, and add up what all takes."""
        inputs, request = self.inputs, self.inputs.request
        wanted = self._preparation(inputs, self.folder).wanted_splits()
        for text in check_splits(wanted, reporter(self.listener, "looking at the data")):
            self.listener(Warned(text))
        calibrated = max(inputs.space.batch_nums) * request.batch_size
        few = replace(
            wanted,
            calibration=wanted.calibration.spread(calibrated),
            evaluation=wanted.evaluation.spread(TRIED * request.batch_size).loaded(),
        )
        preparation = self._preparation(replace(inputs, splits=few), self.folder)
        opened = self.clock() - self.begin
        (choice, builder), choosing = self._timed(preparation.chosen_engine)
        reporter(self.listener, "trying a plan")
        plan, first = self._timed(lambda: self._buildable(builder))
        trial = self.folder.make_trial(0)
        built, building = self._timed(lambda: builder.build(plan, trial))
        subset = self._baseline(choice.engine, few.evaluation)
        in_float = self._of_sample(choice.engine, subset, None)
        in_int8 = self._of_sample(choice.engine, subset, built.path)
        runtime = open_engine(TARGETS[request.target].runtime)
        same = runtime.name == choice.engine.name
        in_runtime = in_int8 if same else self._of_sample(runtime, subset, built.path)
        reading = self._pass(inputs.splits.evaluation)
        max_drop = request.tolerance.absolute(subset.score.value)
        splits = make_holdout(inputs.splits, request, inputs.metric, subset.baseline, max_drop, self.folder)
        before = opened + choosing + first + len(splits.evaluation) * in_float + reading
        each = building + len(splits.search) * in_int8 + reading
        certification = len(splits.holdout or ()) * in_runtime
        size = sum(file.stat().st_size for file in builder.files(built.path))
        rows = len(splits.evaluation) * bytes_of({"": subset.score.rows}) // len(subset)
        peak = peak_memory()
        workload = inputs.workload
        return Estimate(
            model=inputs.model.name,
            target=inputs.target.name,
            engine=choice.engine.version,
            layers=workload.size,
            multiply_adds=workload.cost if workload.unit == MULTIPLY_ADDS else None,
            metric=inputs.metric.name,
            baseline=subset.score.value,
            tried=len(subset),
            search_samples=len(splits.search),
            holdout_samples=len(splits.holdout or ()),
            calibration_samples=len(inputs.splits.calibration),
            no_holdout=splits.reason,
            max_trials=request.max_trials,
            preparation=before,
            trial=each,
            certification=certification,
            at_most=min(before + request.max_trials * each + certification, request.timeout),
            model_bytes=size,
            disk=self._disk(trial, size) + self._cached(splits.evaluation),
            free_disk=shutil.disk_usage(next(path for path in run.absolute().parents if path.is_dir())).free,
            memory=None if peak is None else peak + 3 * rows,
            free_memory=free_memory(),
        )

    def _preparation(self, inputs: Inputs, folder: RunFolder) -> Preparation:
        return Preparation(inputs, folder, self.listener, TimeLimit(self.clock, self.begin))

    def _timed(self, step: Callable[[], T]) -> tuple[T, float]:
        begin = self.clock()
        return step(), self.clock() - begin

    def _buildable(self, builder: Builder) -> Plan:
        """The first of the first few plans that can be built. Raises TrialError where none can."""
        failure: PlanError | TrialError | None = None
        for start in islice(self.inputs.space.starts(), PLANS):
            plan = self.inputs.space.plan(start.parameters)
            try:
                builder.build(plan, self.folder.make_trial(0))
                return plan
            except (PlanError, TrialError) as error:
                failure = failure or error
        what = "has no layer that can be INT8" if failure is None else f"no INT8 model can be built: {failure}"
        raise TrialError(self.inputs.model.name, what, hint="`autoquant inspect` shows its layers")

    def _baseline(self, engine: Engine, data: Dataset) -> EvaluationSubset:
        """The FP32 model checked and scored on a few samples."""
        program, metric = self.inputs.model.program, self.inputs.metric
        with closing(engine.open_graph(program)) as runner:
            size = self.inputs.request.batch_size
            baseline = measure_baseline(runner, data, metric, batch_size=size, key="", folder=self.folder.path)
        return EvaluationSubset.of(data, metric, baseline)

    def _of_sample(self, engine: Engine, subset: EvaluationSubset, path: Path | None) -> float:
        """Seconds that the FP32 model, or that of a file, takes for one sample, read and scored."""
        program, size = self.inputs.model.program, self.inputs.request.batch_size
        with closing(engine.open_file(path, program) if path else engine.open_graph(program)) as runner:
            subset.evaluate(runner, batch_size=size)  # which warms it up
            return self._timed(lambda: subset.evaluate(runner, batch_size=size))[1] / len(subset)

    def _pass(self, data: Dataset) -> float:
        """Seconds of a pass over data that is a function without a cache; others are read with their samples."""
        if not data.in_passes:
            return 0.0
        return self._timed(lambda: [None for _ in data.batches(self.inputs.request.batch_size)])[1]

    def _disk(self, trial: Path, model: int) -> int:
        """Bytes of the run's folder: what every trial leaves, models, and all else as it is now."""
        request = self.inputs.request
        own = sum(file.stat().st_size for file in trial.iterdir())
        whole = sum(file.stat().st_size for file in self.folder.path.rglob("*") if file.is_file()) - own
        models = request.max_trials if request.keep_all_models else min(request.keep_models, request.max_trials) + 1
        known = 2 * whole + models * model  # statistics of an equalized model, and of one that is not
        others = request.max_trials * (own - model + OF_TRIAL) + len(self.inputs.splits.evaluation) * OF_SAMPLE
        return known + others + request.samples * OF_PICTURE + OF_RUN

    def _cached(self, data: Dataset) -> int:
        """Bytes of samples that are cached on disk: those of functions, and images that memory has no room for."""
        cached = self.inputs.cached
        if isinstance(data.source, ImageFolder | RecordSource):
            one = bytes_of(next(iter(data.source.read(None, 1))).inputs)
            cached += max(len(data.source) * one - room_for_samples(), 0)
        return min(cached, self.inputs.request.cache)
