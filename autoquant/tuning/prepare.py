"""From opened inputs to the first trial: an engine is chosen, the baseline scored, the data split and calibrated."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial

from autoquant.calibration.distribution import Distribution
from autoquant.calibration.outliers import wide_ranges, wide_text
from autoquant.errors import DataError
from autoquant.evaluation.data.checks import check_splits
from autoquant.evaluation.data.splits import DataSplits
from autoquant.evaluation.engines.engine import Engine
from autoquant.evaluation.metrics.metric import OnProgress
from autoquant.evaluation.passes import CalibrationRunner
from autoquant.evaluation.scoring.baseline import Baseline, require_score, score_baseline
from autoquant.evaluation.scoring.sample_scorer import SampleScorer
from autoquant.evaluation.scoring.subset import EvaluationSubset
from autoquant.evaluation.statistics.tolerance import worst_score
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.model import Model
from autoquant.tuning import events
from autoquant.tuning.builder import Builder, tensors_between
from autoquant.tuning.certification.compute import bootstrap_seconds
from autoquant.tuning.certification.holdout import make_holdout
from autoquant.tuning.engine_choice import EngineChoice, EngineChooser
from autoquant.tuning.fleet.crew import Crew
from autoquant.tuning.inputs import Inputs, calibration_samples
from autoquant.tuning.objective import OBJECTIVES
from autoquant.tuning.repairs.bias_correction import Corrector
from autoquant.tuning.repairs.corrections import Repairs
from autoquant.tuning.repairs.equalization import ModelVariant, equalized
from autoquant.tuning.repairs.training.trainer import Trainer
from autoquant.tuning.repairs.weight_rounding import Rounder
from autoquant.tuning.sampling.problem import SearchProblem
from autoquant.tuning.sampling.samplers import open_sampler
from autoquant.tuning.sensitivity.likelihoods import OutputReading
from autoquant.tuning.sensitivity.predict import Predictor
from autoquant.tuning.session import Budget, Clock, SearchSession, TimeLimit
from autoquant.tuning.study.choices import AMCT, GUIDED, MINIMIZED
from autoquant.tuning.study.recovery import open_recovered, restore_folders
from autoquant.tuning.study.run_folder import RunFolder
from autoquant.tuning.study.study import Sampler
from autoquant.tuning.study.trial import Terms
from autoquant.tuning.study.workload import MULTIPLY_ADDS, Objective
from autoquant.tuning.worker import LocalWorker, Worker


def prepare(
    inputs: Inputs,
    folder: RunFolder,
    listener: events.Listener,
    limit: TimeLimit,
    isolated: Worker | None = None,
    crew: Crew | None = None,
) -> SearchSession:
    """Prepare a session, on the engine that was chosen for the run or is now. Raises OutOfTime where that is over.

    Where trials are `isolated`, that carries them out; where there is a `crew`, that does.
    """
    session = Preparation(inputs, folder, listener, limit).session(isolated, crew)
    if crew is not None:
        crew.open(session.builder, session.scorer)
    return session


def prepare_worker(inputs: Inputs, folder: RunFolder, listener: events.Listener, clock: Clock) -> LocalWorker:
    """Prepare what carries out trials of a run that another process has prepared."""
    preparation = Preparation(inputs, folder, listener, TimeLimit(clock, clock()))
    choice, builder = preparation.chosen_engine()
    return LocalWorker(builder, preparation.measured(choice.engine).scorer, clock)


@dataclass(frozen=True)
class _Measured:
    """What depends on the engine: what scores plans, the largest drop within tolerance, the split data."""

    scorer: SampleScorer
    max_drop: float
    splits: DataSplits


@dataclass(frozen=True)
class Preparation:
    """The steps of the preparation; `told` are the ranges that were warned of."""

    inputs: Inputs
    folder: RunFolder
    listener: events.Listener
    limit: TimeLimit
    told: set[str] = field(default_factory=set)

    def session(self, isolated: Worker | None, crew: Crew | None) -> SearchSession:
        """All of it."""
        inputs, request = self.inputs, self.inputs.request
        self.listener(_opened(inputs, self.folder))
        for text in check_splits(self.wanted_splits(), self._on_progress("looking at the data")):
            self._warn(text)
        choice, builder = self.chosen_engine()
        measured = self.measured(choice.engine)
        scorer, operators = measured.scorer, self.folder.operators
        open_objective = OBJECTIVES[request.objective]
        self._on_progress(f"objective {request.objective}")
        objective = open_objective(builder, inputs.space, scorer.subset.data, request.io, operators)
        starts = [] if request.sampler in (GUIDED, AMCT) else list(inputs.space.starts())
        predictor = self._predictor(builder)
        sampler = self._sampler(measured, objective, predictor, startup=len(starts))
        study = open_recovered(
            self.folder,
            inputs.space,
            sampler,
            max_drop=measured.max_drop,
            starts=starts,
            warn=self._warn,
            metric=inputs.metric.name,
            minimized=MINIMIZED[request.objective],
            storage=crew.meeting.storage if crew is not None and request.storage else None,
            name=request.study,
            identity=self.folder.identity(),
            on_workers=crew is not None,
        )
        terms = Terms(
            metric=inputs.metric.name,
            baseline=scorer.subset.score.value,
            max_drop=measured.max_drop,
            target=inputs.target.name,
            engine=scorer.engine.name,
            objective_name=objective.name,
            early_stopping=scorer.early_stopping,
        )
        restore_folders(self.folder, study, terms, layers=inputs.workload.layers)
        spent = sum(sum(trial.seconds.values()) for trial in study.trials())
        self.limit.before = spent if crew is None else study.wall_seconds()
        return SearchSession(
            builder=builder,
            scorer=scorer,
            space=inputs.space,
            study=study,
            objective=objective,
            terms=terms,
            budget=Budget(
                max_trials=request.max_trials,
                timeout=request.timeout,
                trial_timeout=request.trial_timeout,
                stop_on_target=request.stop_on_target,
                error_rate=request.error_rate,
            ),
            folder=self.folder,
            listener=self.listener,
            limit=self.limit,
            reserve=0.0 if request.timeout == math.inf else _reserve(measured, self.limit.clock),
            keep_all_models=request.keep_all_models,
            keep_models=request.keep_models,
            isolated=isolated,
            request=request,
            splits=measured.splits,
            known_divergences=predictor.known,
        )

    def wanted_splits(self) -> DataSplits:
        """The data without the calibration samples that no calibration reads, which need not be in order."""
        splits, request = self.inputs.splits, self.inputs.request
        most = calibration_samples(max(self.inputs.space.batch_nums), request.batch_size)
        return replace(splits, calibration=splits.calibration.spread(most))

    def chosen_engine(self) -> tuple[EngineChoice, Builder]:
        """Choose the engine, or take that of the run; gives what builds plans too.

        An INT8 model is compared before anything is scored. Where only that differs on LiteRT, the FP32 model does not,
        and neither do its statistics: the builder stays.
        """
        chooser = EngineChooser(self.inputs, self._on_progress("LiteRT beside TensorFlow"))
        stored = self.folder.read_request().get("engine")
        choice = chooser.reopen(stored) if stored else chooser.choose()
        self._tell(choice)
        builder = self._builder(choice.calibrates)
        if stored:
            return choice, builder
        plans = (self.inputs.space.plan(start.parameters) for start in self.inputs.space.starts())
        confirmed = chooser.confirm(choice, builder.make, plans)
        if confirmed.engine.name != choice.engine.name:
            self._tell(confirmed)
        self.folder.write_request({**self.folder.read_request(), "engine": confirmed.as_table()})
        return confirmed, builder

    def _tell(self, choice: EngineChoice) -> None:
        if choice.reason:
            text = f"scored in TensorFlow, not on LiteRT, which is faster: {choice.reason}"
            self.listener(events.Warned(text))

    def measured(self, engine: Engine) -> _Measured:
        """Score the baseline on an engine, split the data, and prepare what scores plans."""
        inputs, request, model = self.inputs, self.inputs.request, self.inputs.model
        baseline = score_baseline(
            engine,
            model,
            inputs.splits.evaluation,
            inputs.metric,
            batch_size=request.batch_size,
            cache=self.folder.baseline,
            on_progress=self._on_progress("baseline"),
        )
        for text in baseline.warnings:
            self.listener(events.Warned(text))
        max_drop = request.tolerance.absolute(baseline.score.value)
        require_score(baseline, inputs.metric, request.min_baseline, inputs.source.name)
        self._check_tolerance(baseline, max_drop)
        splits = make_holdout(inputs.splits, request, inputs.metric, baseline, max_drop, self.folder)
        subset = EvaluationSubset.of(splits.evaluation, inputs.metric, baseline, splits.search)
        self.listener(events.DataSplit(len(subset), len(splits.holdout or ()), splits.reason))
        scorer = SampleScorer.of(
            engine,
            model.program,
            subset,
            seed=request.seed,
            batch_size=request.batch_size,
            folder=self.folder.path,
        )
        if subset.data.in_passes:
            why = "it is too large to be cached" if request.cache else "with --cache off nothing is cached"
            what = f"every trial calls {subset.data.name} once and is scored on all samples"
            self._warn(f"{what}: {why}; --cache SIZE makes room for so much")
        if not scorer.decides:
            few = f"has no bounds, and {len(subset)} samples prove nothing then"
            why = few if inputs.metric.per_sample else "is not a mean over samples"
            self._warn(f"every trial is scored on all samples: the metric '{inputs.metric.name}' {why}")
        elif scorer.asymptotic and not subset.data.in_passes:
            what = "trials are stopped early by an asymptotic test, whose error rate holds for many samples"
            self._warn(f"{what}: the metric '{inputs.metric.name}' has no bounds")
        return _Measured(scorer, max_drop, splits)

    def _builder(self, engine: Engine) -> Builder:
        """What builds plans; an engine runs the FP32 model for it."""
        inputs = self.inputs
        prepared = cache(partial(self._prepared, engine))  # each when the first plan needs it
        calibration = self._calibration(engine, "bias correction")
        target, layers, folder = inputs.target, inputs.workload.layers, self.folder.corrections
        rounder = Rounder(target, layers, self._calibration(engine, "weight rounding"), folder, self._warn)
        trainer = Trainer(target, layers, self._calibration(engine, "training"), folder)
        repairs = Repairs(rounder, Corrector(target, layers, calibration, folder), trainer)
        between = tensors_between(
            lambda plan: prepared(plan.equalize),
            inputs.space.fullest,
            inputs.splits.calibration,
            self._reading,
            folder=self.folder.path,
            on_progress=self._later("operators between layers", optional=True),
            warn=self._warn,
        )
        return Builder(
            inputs.model, inputs.workload, inputs.target, lambda plan: prepared(plan.equalize), repairs, between
        )

    def _check_tolerance(self, baseline: Baseline, max_drop: float) -> None:
        """Tell what the tolerance means. One that leaves right answers nothing to fall short of was hardly meant.

        Raises DataError where the FP32 model has nothing to keep.
        """
        metric, tolerance, score = self.inputs.metric, self.inputs.request.tolerance, baseline.score.value
        worst = worst_score(score, max_drop, higher_is_better=metric.higher_is_better)
        if metric.of_classes and worst <= 0.0:
            if score == 0.0:
                hint = "are data, labels and preprocessing those of the model?"
                raise DataError("baseline", "the FP32 model's score is 0: there is no accuracy to keep", hint=hint)
            meant = "" if tolerance.relative else f"; did you mean {tolerance.value:g}%?"
            self.listener(events.Warned(f"tolerance {tolerance} is as large as the baseline score{meant}"))
        self.listener(events.BaselineScored(metric.name, score, max_drop))

    def _prepared(self, engine: Engine, equalize: bool) -> ModelVariant:
        """Calibrate the model as it is, or equalized."""
        inputs, model = self.inputs, self.inputs.model
        layers, batch_nums = inputs.workload.layers, inputs.space.batch_nums
        if equalize:
            calibration = self._calibration(engine, "equalization")
            model = equalized(model, layers, calibration, max(batch_nums))
        statistics = self._calibration(engine, "calibration").statistics(
            model,
            inputs.space.layers,
            batch_nums,
            tensors=inputs.target.tensors(model, layers),
            balanced=inputs.space.balanced,
            cache=self.folder.statistics_equalized if equalize else self.folder.statistics,
        )
        self._tell_wide_ranges(statistics.tensors[max(batch_nums)])
        self.listener(events.Calibrated(max(batch_nums)))
        return ModelVariant(model, inputs.target.compiler(model, layers, statistics))

    def _tell_wide_ranges(self, tensors: Mapping[str, Distribution]) -> None:
        """Warn of ranges that a few calibration values decide, of each once: equalized, a model has them too."""
        found = wide_ranges(tensors, self.inputs.space.layers.values())
        if wide := [one for one in found if one.where not in self.told]:
            self.told.update(one.where for one in wide)
            self._warn(wide_text(wide))

    def _calibration(self, engine: Engine, what: str) -> CalibrationRunner:
        data, batch_size = self.inputs.splits.calibration, self.inputs.request.batch_size
        return CalibrationRunner(engine, data, batch_size, self._later(what))

    def _predictor(self, builder: Builder) -> Predictor:
        """What predicts the divergences of layers for samplers."""
        inputs = self.inputs
        return Predictor(
            source=inputs.source,
            lowered=inputs.model,
            space=inputs.space,
            samples=inputs.splits.calibration,
            batch_size=inputs.request.batch_size,
            reading=self._reading,
            folder=self.folder.path,
            on_calibration=self._later("calibration for sensitivity", optional=True),
            on_progress=self._later("sensitivity of layers", optional=True),
            warn=self._warn,
            between=builder.measure_between,
            narrow_inputs=_narrow_inputs(inputs),
        )

    def _sampler(self, measured: _Measured, objective: Objective, predictor: Predictor, *, startup: int) -> Sampler:
        """What chooses the plans, on the search as samplers see it."""
        inputs, request, total = self.inputs, self.inputs.request, len(measured.scorer.subset)
        problem = SearchProblem(
            inputs.space,
            objective,
            measured.max_drop,
            total,
            predictor.predict,
            request.max_trials,
            _makers(inputs.model),
        )
        return open_sampler(request.sampler, problem, seed=request.seed, startup=startup, ranking=predictor.ranking)

    @property
    def _reading(self) -> OutputReading:
        """Which outputs the metric scores, and as what."""
        metric = self.inputs.metric
        scored = metric.names(self.inputs.source.program.outputs)
        return OutputReading(metric.of_classes, metric.of_classes, metric.axis, scored)

    def _warn(self, text: str) -> None:
        self.listener(events.Warned(text))

    def _on_progress(self, what: str) -> OnProgress:
        """Tell the listener that a phase begins; gives a callback for its steps."""
        return self.limit.bounded(events.reporter(self.listener, what))

    def _later(self, what: str, *, optional: bool = False) -> OnProgress:
        """A callback for the steps of a phase that begins when it tells so, and can be left out if it is `optional`."""
        return self.limit.bounded(partial(events.progress, self.listener, what), optional=optional)


def _makers(model: Model) -> Mapping[str, Collection[str]]:
    """The layers that make what each layer of a .tflite reads."""
    if not isinstance(model.program, LiteGraph):
        return {}
    from autoquant.targets.litert_finder import makers_of

    return makers_of(model.program)


def _narrow_inputs(inputs: Inputs) -> Collection[str]:
    """The layers of a .tflite that read 8 bits in every plan."""
    if not isinstance(inputs.model.program, LiteGraph):
        return frozenset()
    from autoquant.targets.litert_assignment import narrow_inputs

    return narrow_inputs(inputs.model.program, inputs.space.widest, inputs.request.io)


def _reserve(measured: _Measured, clock: Clock) -> float:
    """About how many seconds the bounds of a metric that is no mean will take."""
    subset, holdout = measured.scorer.subset, measured.splits.holdout
    if holdout is None or subset.metric.per_sample:
        return 0.0
    return bootstrap_seconds(subset.score.rows, len(holdout), subset.metric, clock)


def _opened(inputs: Inputs, folder: RunFolder) -> events.Opened:
    workload, request = inputs.workload, inputs.request
    return events.Opened(
        run=folder.path,
        model=inputs.model.name,
        layers=workload.size,
        macs=workload.cost if workload.unit == MULTIPLY_ADDS else None,
        samples=len(inputs.splits.evaluation),
        cached=inputs.cached,
        calibration_samples=len(inputs.splits.calibration),
        max_trials=request.max_trials,
        timeout=request.timeout,
        objective=request.objective,
    )
