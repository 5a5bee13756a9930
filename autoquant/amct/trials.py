"""The trials of an automatic calibration: configurations of a study, built, evaluated by the user, and written down."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from autoquant.amct.arguments import output_path
from autoquant.amct.evaluator import FAILED, Judge, Judgement
from autoquant.amct.logs import LOG, log
from autoquant.amct.roll_back import RollBack, RollBackSpace
from autoquant.calibration.plan import Plan
from autoquant.errors import TrialError
from autoquant.evaluation.engines.tensorflow import tf_graph_of
from autoquant.files import write_text
from autoquant.model.graph import GraphDef
from autoquant.tuning.builder import Builder, Stopwatch
from autoquant.tuning.study.study import Study
from autoquant.tuning.study.trial import State, Trial

HISTORY = LOG.parent / "accuracy_based_auto_calibration_record.json"
"""Made in the working directory; written anew, whole, after each trial."""


@dataclass(frozen=True)
class Bench:
    """What it takes to try a configuration: it is built, saved, loaded back, and judged."""

    builder: Builder
    space: RollBackSpace
    judge: Judge

    def opened(self, plan: Plan, folder: Path, watch: Stopwatch) -> Any:
        """The INT8 model of a plan as a tf.Graph, read back from the folder, where its files are. Raises TrialError."""
        saved = self.builder.build(plan, folder, watch.lap).path
        graph = tf_graph_of(GraphDef.FromString(saved.read_bytes()), saved.name)
        watch.lap("load")
        return graph


@dataclass
class History:
    """What became of each configuration."""

    entries: list[tuple[RollBack, Judgement]] = field(default_factory=list)

    def add(self, roll_back: RollBack, judgement: Judgement) -> None:
        """Write it down, on disk as well."""
        self.entries.append((roll_back, judgement))
        facts = [
            {"roll_back_config": dict(layers), "metric_eval": [judgement.satisfied, judgement.number]}
            for layers, judgement in self.entries
        ]
        write_text(output_path(HISTORY), json.dumps(facts, indent=2, allow_nan=False) + "\n")

    def judged(self, roll_back: RollBack) -> tuple[bool, Any]:
        """Whether a configuration that was tried satisfied, and the loss."""
        judgement = next(judgement for layers, judgement in self.entries if layers == roll_back)
        return judgement.satisfied, judgement.loss


def run_trials(bench: Bench, study: Study, history: History, folder: Path, *, limit: int | None) -> None:
    """Carry out what the study proposes, until it proposes nothing more, or `limit` trials ended.

    Where all layers in INT8, which is its first proposal, satisfy, nothing more is tried. `folder` is for what is built
    meanwhile; it is left as it was.
    """
    while limit is None or len(study.trials()) < limit:
        proposed = study.propose()
        if proposed is None:
            return
        roll_back = bench.space.roll_back(proposed.plan)
        with TemporaryDirectory(dir=folder) as place:
            trial, judgement = _carried_out(bench, proposed, Path(place))
        study.finish(trial)
        history.add(roll_back, judgement)
        log().info("%d of %d layers in INT8: %s", sum(roll_back.values()), len(roll_back), trial.failure or judgement)
        if judgement.satisfied and all(roll_back.values()):
            return


def _carried_out(bench: Bench, proposed: Trial, folder: Path) -> tuple[Trial, Judgement]:
    """A trial whose score is the loss, and whose drop is how far it is from satisfying.

    What cannot be built has failed; what the evaluator raises ends the calibration.
    """
    watch = Stopwatch()
    share = bench.builder.workload.int8_share(proposed.plan)
    trial = replace(proposed, int8_share=share, objective=1.0 - share)
    try:
        graph = bench.opened(proposed.plan, folder, watch)
    except TrialError as error:
        return replace(trial, state=State.FAILED, failure=str(error), seconds=watch.laps), FAILED
    judgement = bench.judge.evaluate(graph)
    watch.lap("score")
    score, drop = judgement.number, judgement.violation
    return replace(trial, state=State.DONE, score=score, drop=drop, seconds=watch.laps), judgement
