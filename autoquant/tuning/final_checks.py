"""What is still found out about the best model when a search has ended, and written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from autoquant.errors import AutoquantError, RunError, TrialError
from autoquant.evaluation.engines.table import open_engine
from autoquant.evaluation.statistics.tolerance import drop, within
from autoquant.model.model import is_lite
from autoquant.targets.table import TARGETS
from autoquant.tuning.builder import Workbench, score_whole
from autoquant.tuning.certification.certificate import Verdict
from autoquant.tuning.events import Listener, Progress, Warned
from autoquant.tuning.prepare import Assembled
from autoquant.tuning.result import Ended, SearchResult
from autoquant.tuning.study.score_json import add_to_score


def checked(ready: Assembled, result: SearchResult, listener: Listener, clock: Callable[[], float]) -> SearchResult:
    """The result with the best model's score in TensorFlow, or the verification of a .tflite; score.json has it too.

    Unchanged where there is no best model, where it is to be certified in TensorFlow, and where the search or this was
    interrupted. The result is known already: what goes wrong here is a warning, but for a folder that cannot be written
    (RunError).
    """
    bench = ready.loop.bench
    if result.model is None or result.ended is Ended.INTERRUPTED:
        return result
    try:
        if bench.engine.name != TARGETS[bench.builder.target.name].runtime:
            certifiable = ready.splits.holdout is not None and result.verdict is not Verdict.MISSED
            return result if certifiable else _rescored(bench, result, result.model, listener)
        if is_lite(result.model):
            return _verified(bench, result, result.model, listener, clock)
    except KeyboardInterrupt:
        return replace(result, ended=Ended.INTERRUPTED)
    return result


def _rescored(bench: Workbench, result: SearchResult, model: Path, listener: Listener) -> SearchResult:
    """The result with a score from the saved file in the runtime that it is for; tells another verdict there."""
    try:
        score = _score(bench, model, listener)
    except TrialError as error:
        listener(Warned(f"the best model cannot be scored in TensorFlow: {error}"))
        return result
    add_to_score(model, "score_tensorflow", score)
    loss = drop(result.baseline, score, higher_is_better=bench.metric.higher_is_better)
    verdict = Verdict.MET if within(loss, result.tolerance) else Verdict.MISSED
    if verdict is not result.verdict:
        there = "is within" if verdict is Verdict.MET else "is not within"
        here = f"it scores {result.score:.6g} on {bench.engine.version}, by which the verdict is '{result.verdict}'"
        listener(Warned(f"in TensorFlow the best model scores {score:.6g}, which {there} tolerance; {here}"))
    return replace(result, score_tensorflow=score)


def _score(bench: Workbench, path: Path, listener: Listener) -> float:
    runner = open_engine(TARGETS[bench.builder.target.name].runtime).open_file(path, bench.builder.model.program)

    def on_progress(done: int, total: int) -> None:
        listener(Progress("best model in TensorFlow", done, total))

    return score_whole(runner, bench.part, batch_size=bench.batch_size, on_progress=on_progress).value


def _verified(
    bench: Workbench, result: SearchResult, model: Path, listener: Listener, clock: Callable[[], float]
) -> SearchResult:
    """The result with what its score rests on."""
    from autoquant.tuning.verification import verify

    try:
        found = verify(model, bench.builder.model.program, bench.part, clock=clock)
    except RunError:
        raise
    except (AutoquantError, MemoryError) as error:
        listener(Warned(f"the best model could not be compared with the reference kernels: {error}"))
        return result
    add_to_score(model, "verification", found.facts())
    return replace(result, verification=found)
