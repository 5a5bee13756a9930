"""accuracy_based_auto_calibration: layers go back to float until the user's own requirement is satisfied."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from autoquant.amct.arguments import Names, check_writable, output_names, output_path
from autoquant.amct.configuration import read_for_config
from autoquant.amct.evaluator import EvaluatorError, Judge, in_short, load_saved
from autoquant.amct.live_graph import LiveModel
from autoquant.amct.logs import LOG, log
from autoquant.amct.ranking import observe, open_sensitivity, rank, ranking_text
from autoquant.amct.strategy import RollBackSpace, StrategySampler, TpeStrategy, open_strategy
from autoquant.calibration.plan import Plan, check_plan
from autoquant.calibration.record import Calibrator
from autoquant.errors import AutoquantError, DataError, listed
from autoquant.files import write_bytes, write_text, writing
from autoquant.formats.quant_json import quant_json_path
from autoquant.model.layer import Survey
from autoquant.model.load import load
from autoquant.model.model import Model
from autoquant.model.open import open_model
from autoquant.model.shapes import import_graph
from autoquant.model.survey import survey_graph
from autoquant.targets.tensorflow import GraphCompiler, TensorFlowTarget
from autoquant.tuning.builder import Builder
from autoquant.tuning.events import Event, TrialEnded
from autoquant.tuning.repairs.equalization import ModelVariant
from autoquant.tuning.result import Ended
from autoquant.tuning.sampling.samplers import tpe
from autoquant.tuning.session import Budget, Session, TimeLimit
from autoquant.tuning.study.run_folder import RunFolder
from autoquant.tuning.study.space import Suggestion
from autoquant.tuning.study.stores import journal_store
from autoquant.tuning.study.study import Sampler, Study
from autoquant.tuning.study.trial import Terms, Trial, best
from autoquant.tuning.study.workload import Macs, Workload
from autoquant.tuning.trials import run_trials

HISTORY = LOG.parent / "accuracy_based_auto_calibration_record.json"
"""Made in the working directory; written anew, whole, after each trial."""
FINAL = "accuracy_based_auto_calibration_final_config.json"
RANKING = "accuracy_based_auto_calibration_ranking_information.json"


def accuracy_based_auto_calibration(
    model_file: str | Path,
    outputs: Names | str,
    record_file: str | Path,
    config_file: str | Path,
    save_dir: str | Path,
    evaluator: Any,
    strategy: Any = "BinarySearch",
    sensitivity: Any = "CosineSimilarity",
) -> None:
    """Find the configuration with the most in INT8 that satisfies the evaluator, and write its model.

    The float model is evaluated; the evaluator calibrates once, which serves every configuration, and once more to
    rank the layers by what INT8 does to each alone; all layers of the config are tried in INT8; where those do not
    satisfy, the strategy says which of them go back to float. What is found is built and evaluated once more.

    Args:
        model_file: a frozen .pb.
        outputs: names of output tensors, or one text with ';' between them.
        record_file: where the record of the final model goes.
        config_file: the config.json of `create_quant_config`. Layers that it leaves in float stay there.
        save_dir: a prefix, as "results/mobilenet", or a folder that is there or ends in "/", to which the name of the
            model is added. The folder is made; what is there is overwritten.
        evaluator: an object with the methods of AutoCalibrationEvaluatorBase.
        strategy: 'BinarySearch', 'TPE', or an object with the methods of AutoCalibrationStrategyBase.
        sensitivity: 'CosineSimilarity', 'Mse', or an object with the method of SensitivityBase.

    Writes `<prefix>_quantized.pb` and `<prefix>_quant.json`, beside them the final config and the ranking, and
    amct_log/accuracy_based_auto_calibration_record.json in the working directory: what became of each configuration.

    Raises:
        ModelError, PlanError: the model or the config cannot be used.
        RequirementError: the float model does not satisfy the evaluator, compared with itself.
        DataError: the evaluator calibrates with fewer than batch_num batches, or gives what it must not.
        RunError: nothing can be written to a folder; this is found before the evaluator is called.
        TrialError: no layer can be INT8, because of what calibration saw.
        AutoquantError: no configuration satisfies. There is no quantized model then, not even one of an earlier call.

    What the evaluator, the strategy or the sensitivity raise is raised as it is.
    """
    names, measure, strategy = output_names(outputs), open_sensitivity(sensitivity), open_strategy(strategy)
    files = Files.of(save_dir, Path(model_file), record_file)
    for path in (files.model, files.record, output_path(HISTORY)):
        check_writable(path)
    tf_graph = import_graph(load(Path(model_file)))
    model, found, plan = _opened(Path(model_file), tf_graph, names, Path(config_file))
    judge = Judge.of(evaluator, names, tf_graph)
    log().info("the metric of the float model: %s", in_short(judge.original))
    live = LiveModel(model.graph, found)
    calibrator = Calibrator(model.graph, found.by_name, observe(live, plan, judge))
    ranking = rank(live, plan, calibrator, judge, measure)
    write_text(files.prefix.with_name(RANKING), ranking_text(ranking))
    named, target = replace(model, name=files.prefix.name), TensorFlowTarget()
    variant = ModelVariant(named, GraphCompiler(target, model.graph, found.by_name, calibrator))
    builder = Builder(named, Workload.from_survey(found), target, lambda plan: variant)
    with TemporaryDirectory(dir=files.prefix.parent, prefix=".auto_calibration-") as folder:
        space = RollBackSpace(plan)
        trials, final = _search(builder, space, strategy, ranking, judge, RunFolder(Path(folder)))
        if final is None:
            files.remove_model()
            raise _unreachable(str(model_file), trials, strategy)
        _finish(builder, final.plan, judge, files, Path(folder) / "final")
    in_float = [name for name, int8 in space.roll_back(final.plan).items() if not int8]
    log().info("%d layers in INT8, back in float: %s", len(final.plan.int8), ", ".join(in_float) or "none")
    log().info("the quantized model is %s", files.model)


def _opened(model_file: Path, tf_graph: Any, outputs: Sequence[str], config_file: Path) -> tuple[Model, Survey, Plan]:
    """The model between its inputs and the outputs, its layers, and what the config wants of those."""
    _, wanted = read_for_config(tf_graph, config_file, outputs)
    model = open_model(model_file, outputs=outputs, fusion=wanted.fusion)
    found = survey_graph(model.graph)
    unused = [name for name in wanted.int8 if name not in found.by_name]
    if unused:
        log().warning("left out, as the outputs do not depend on it: %s", listed(unused))
    plan = replace(wanted, layers={name: wanted.layers[name] for name in found.by_name if name in wanted.layers})
    check_plan(plan, found.by_name)
    return model, found, plan


def _search(
    builder: Builder, space: RollBackSpace, strategy: Any, ranking: Mapping[str, float], judge: Judge, run: RunFolder
) -> tuple[Sequence[Trial], Trial | None]:
    """All trials of the study that the strategy drives, and the final one, if any satisfies.

    That is the one with which the strategy ended; else, or where that does not satisfy, the one with the most in INT8.
    """
    sampler = StrategySampler(strategy, ranking, space, judge.judgement_of)
    if isinstance(strategy, TpeStrategy):
        session = _session(builder, space, tpe(space, seed=strategy.seed, startup=1), judge, run, strategy.trials)
    else:
        session = _session(builder, space, sampler, judge, run)
    try:
        ended = run_trials(session)
    except EvaluatorError as error:
        raise error.raised from error.raised.__cause__
    if ended is Ended.INTERRUPTED:
        raise KeyboardInterrupt
    trials = session.study.trials()
    satisfying = [trial for trial in trials if trial.meets(space.max_drop)]
    ended_with = (trial for trial in satisfying if space.roll_back(trial.plan) == sampler.final)
    return trials, next(ended_with, None) or best(satisfying, space.max_drop)


def _session(
    builder: Builder, space: RollBackSpace, sampler: Sampler, judge: Judge, run: RunFolder, max_trials: float = inf
) -> Session:
    """A session in which the evaluator scores trials; where all layers in INT8 satisfy, nothing more is tried."""

    def suggest(trials: Sequence[Trial]) -> Suggestion | None:
        return None if trials[0].meets(space.max_drop) else sampler(trials)

    objective = Macs(builder.workload, None)
    return Session(
        builder=builder,
        scorer=judge,
        space=space,
        study=Study(journal_store(run.journal), space, suggest, max_drop=space.max_drop),
        objective=objective,
        terms=Terms("loss", 0.0, space.max_drop, builder.target.name, "evaluator", objective.name),
        budget=Budget(max_trials=max_trials, max_failures=inf),
        folder=run,
        listener=History(space, judge),
        limit=TimeLimit(time.monotonic, begin=time.monotonic()),
    )


def _unreachable(model: str, trials: Sequence[Trial], strategy: Any) -> AutoquantError:
    what = (
        "No quantized model are generated due to all quant layers are roll backed, the accuracy target may be too "
        "difficult to achieve"
    )
    if isinstance(strategy, TpeStrategy):
        what = f"none of {len(trials)} configurations satisfies, the accuracy target may be too difficult to achieve"
    reasons = [trial.failure for trial in trials if trial.failure]
    if reasons:
        what += f" ({len(reasons)} of {len(trials)} could not be built: {reasons[0]})"
    other = "BinarySearch" if isinstance(strategy, TpeStrategy) else "TPE"
    hint = f"loosen metric_eval(), calibrate with more or better data, or try the strategy '{other}'"
    return AutoquantError(model, what, hint=hint)


def _finish(builder: Builder, plan: Plan, judge: Judge, files: Files, folder: Path) -> None:
    """Build the final plan once more, see that its model satisfies, and put the files where they belong."""
    folder.mkdir()
    judgement = judge.evaluate(load_saved(builder.build(plan, folder).path))
    if not judgement.satisfied:
        files.remove_model()
        what = f"the final configuration satisfied before, but evaluated again it {judgement}"
        hint = "evaluate() must return the same metric for the same model: use the same data each time, and all of it"
        raise DataError("evaluator.evaluate()", what, hint=hint)
    files.take_over(folder / files.model.name)


@dataclass
class History:
    """Listens to a session, and writes down what became of each configuration."""

    space: RollBackSpace
    judge: Judge
    entries: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        """Write it down, on disk as well."""
        if not isinstance(event, TrialEnded):
            return
        roll_back, judgement = self.space.roll_back(event.trial.plan), self.judge.judgement_of(event.trial)
        metric_eval = [judgement.satisfied, judgement.number]
        self.entries.append({"roll_back_config": roll_back, "metric_eval": metric_eval})
        write_text(output_path(HISTORY), json.dumps(self.entries, indent=2, allow_nan=False) + "\n")
        outcome = event.trial.failure or judgement
        log().info("%d of %d layers in INT8: %s", sum(roll_back.values()), len(roll_back), outcome)


@dataclass(frozen=True, slots=True)
class Files:
    """Where everything goes: what begins with the prefix, what lies beside that, and the record."""

    prefix: Path
    record: Path

    @classmethod
    def of(cls, save_dir: str | Path, model_file: Path, record_file: str | Path) -> Files:
        """As `accuracy_based_auto_calibration` says; folders are made. Raises RunError."""
        folder = str(save_dir).endswith(("/", os.sep)) or Path(save_dir).is_dir()
        prefix = Path(save_dir) / model_file.stem if folder else Path(save_dir)
        return cls(output_path(prefix), output_path(record_file))

    @property
    def model(self) -> Path:
        """The quantized model."""
        return self.prefix.with_name(TensorFlowTarget().file_name(self.prefix.name))

    def remove_model(self) -> None:
        """Leave no quantized model, which would be that of an earlier call."""
        for path in (self.model, quant_json_path(self.model)):
            path.unlink(missing_ok=True)

    def take_over(self, model: Path) -> None:
        """Move a model, and what lies beside it, to where it belongs. Raises RunError."""
        write_bytes(self.record, model.with_name("record.txt").read_bytes())
        write_bytes(self.prefix.with_name(FINAL), model.with_name("config.json").read_bytes())
        with writing(self.model):
            self.remove_model()  # a model never lies beside what describes another
            model.replace(self.model)
            quant_json_path(model).replace(quant_json_path(self.model))
