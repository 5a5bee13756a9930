"""Certifying the best model of a search on the holdout: once, on the runtime that it is made for."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from autoquant.errors import AutoquantError, InputError, OutOfTime, RunError, UserFunctionError
from autoquant.evaluation.engines.engine import Runner, kernels_of
from autoquant.evaluation.scoring.subset import EvaluationSubset
from autoquant.files import sha256_of
from autoquant.formats.codec import save
from autoquant.tuning.certification.assumptions import assumption, units_in
from autoquant.tuning.certification.certificate import (
    Certificate,
    HoldoutEvaluation,
    Origin,
    Verdict,
    add_to_holdout_log,
    read_holdout_log,
    readable_certificate,
)
from autoquant.tuning.certification.compute import compute_certificate
from autoquant.tuning.certification.holdout import Groups, groups_of, holdout_subset
from autoquant.tuning.costly_layers import costly_layers
from autoquant.tuning.events import Warned
from autoquant.tuning.result import CostlyLayers, Ended, SearchResult
from autoquant.tuning.session import SearchSession
from autoquant.tuning.study.run_folder import CERTIFICATE, RunFolder
from autoquant.tuning.study.trial import Trial

SUSPICIOUS = (
    "the INT8 model is better than the FP32 model by more than chance, which quantization does not do: "
    "is the FP32 model evaluated as it was trained (preprocessing, labels)?"
)


def certify(session: SearchSession, result: SearchResult) -> SearchResult:
    """The result with the certificate of its best model, or with the reason why it has none.

    A trial that missed on the holdout has missed, whatever would certify it later: else one could try samples until
    some flatter it. The holdout is not used where the tolerance was missed or the search was interrupted. Samples that
    another trial of the run was certified on do not certify this one: choosing among several by them would flatter the
    one that is chosen; nor another file than the one that was.
    """
    best, model, splits = result.best, result.model, session.splits
    if best is None or model is None or result.verdict is Verdict.MISSED:
        return result
    evaluations = read_holdout_log(session.folder)
    if any(one.trial == best.number and one.verdict is Verdict.MISSED for one in evaluations):
        return _missed(session, result, best)
    if result.ended is Ended.INTERRUPTED:
        return result
    if splits.holdout is None:
        return replace(result, uncertified=splits.reason)
    try:
        digest = sha256_of(model)
        before = [one for one in evaluations if one.data == splits.holdout.digest]
        refusal = _refusal(before, best.number, digest)
        if refusal:
            return replace(result, uncertified=refusal)
        certificate = _stored(session.folder, before)
        if certificate is None:
            late = _too_late(session)
            if late:
                return replace(result, uncertified=late)
            with session.limit.enforced():
                certificate = _evaluate(session, model, digest, best.number)
    except OutOfTime:
        return replace(result, uncertified=f"--timeout left too little time for it; {_again(session)}")
    except (RunError, UserFunctionError):
        raise
    except (AutoquantError, MemoryError) as error:
        session.listener(Warned(f"the best model could not be certified: {error}"))
        return replace(result, uncertified=str(error))
    if certificate.suspicious:
        session.listener(Warned(SUSPICIOUS))
    if certificate.verdict is Verdict.MISSED:
        return _missed(session, result, best)
    return replace(result, verdict=certificate.verdict, certificate=certificate)


def _missed(session: SearchSession, result: SearchResult, best: Trial) -> SearchResult:
    """The result of a best trial that missed on the holdout."""
    path = session.folder.trial(best.number) / CERTIFICATE
    certificate = readable_certificate(path)
    if certificate is not None and certificate.verdict is not Verdict.MISSED:
        certificate = None
    gone = "" if certificate else f"trial {best.number} missed on the holdout, by holdout_log.json; {path} is gone"
    layers = costly_layers(session, best) if result.ended is not Ended.INTERRUPTED else CostlyLayers()
    return replace(result, verdict=Verdict.MISSED, certificate=certificate, uncertified=gone, costly=layers)


def _refusal(before: Sequence[HoldoutEvaluation], trial: int, model: str) -> str:
    """Why a holdout that was evaluated before, if it was, does not certify this trial with this model any more."""
    others = [one.trial for one in before if one.trial != trial]
    if others:
        return f"the holdout was used for trial {others[0]} already; give other data with --certify"
    if any(one.model != model for one in before):
        what = f"the model file of trial {trial} is not the one that was scored on the holdout"
        return f"{what} (another SHA-256: it was built again, or edited); give other data with --certify"
    return ""


def _too_late(session: SearchSession) -> str:
    """Why the holdout is not used now, if it is not: what is left of the budget is too short for the bounds."""
    needed = session.seconds_reserved
    if session.limit.left() > needed:
        return ""
    what = f"{'its bounds take' if session.reserve else 'it takes'} about {math.ceil(needed)}s"
    return f"{what}, for which --timeout leaves no time; {_again(session)}"


def _again(session: SearchSession) -> str:
    """How to certify the best all the same, where that was not done or not ended."""
    enough = math.ceil(session.limit.used() + 2 * session.seconds_reserved) + 1
    return f"the holdout was not used: `autoquant resume {session.folder.path} --timeout {enough}s`"


def _stored(folder: RunFolder, before: Sequence[HoldoutEvaluation]) -> Certificate | None:
    """The certificate of an earlier evaluation of the same model and holdout, where it is still there."""
    found = (readable_certificate(folder.trial(one.trial) / CERTIFICATE) for one in before)
    return next((one for one in found if one is not None and one.origin.data == before[0].data), None)


def _evaluate(session: SearchSession, model: Path, digest: str, trial: int) -> Certificate:
    """Score the best model, of this digest, on the holdout, and write down what may be claimed of it."""
    scorer, splits, request = session.scorer, session.splits, session.request
    on_progress, size = session.on_progress("baseline of the holdout"), scorer.batch_size
    subset = holdout_subset(splits, scorer.subset.baseline, session.metric, scorer.open_float, size, on_progress)
    tolerance = request.guard_tolerance
    groups = _groups(session, subset) if request.guard else None
    engine, on_progress = session.open_runtime(), session.on_progress("certification")
    with closing(engine.open_file(model, scorer.program)) as runner:
        score = subset.evaluate(runner, batch_size=size, on_progress=on_progress)
        kernels = kernels_text(runner)
    certificate = compute_certificate(
        subset.score.rows,
        score.rows,
        metric=session.metric,
        max_drop=session.max_drop,
        confidence=request.confidence,
        origin=Origin(engine.version, kernels, session.builder.model.digest, digest, subset.data.digest),
        groups=groups.labels if groups else None,
        unseen=groups.unseen if groups else (),
        guard_max_drop=None if tolerance is None else tolerance.absolute(subset.baseline.score.value),
        left_out=splits.left_out,
        units=units_in(subset.data, splits.unit, splits.evaluation),
        assumes=assumption(subset.data, splits.unit),
        seed=request.seed,
        on_progress=session.on_progress("bounds"),
    )
    evaluation = HoldoutEvaluation(subset.data.digest, trial, digest, certificate.verdict)
    add_to_holdout_log(evaluation, session.folder)
    save(certificate, model.with_name(CERTIFICATE))
    return certificate


def _groups(session: SearchSession, subset: EvaluationSubset) -> Groups:
    """The groups of the holdout, and those that only the rest of the evaluation data has."""
    splits, guard = session.splits, session.request.guard
    if not splits.has_own_holdout:
        everything = groups_of(splits.evaluation, guard)
        return Groups.of(everything[subset.positions], everything)
    labels = groups_of(subset.data, guard)
    try:
        return Groups.of(labels, groups_of(splits.evaluation, guard))
    except InputError as error:
        session.listener(Warned(f"only groups of the holdout are guarded: {error}"))
        return Groups(labels, ())


def kernels_text(runner: Runner) -> str:
    """The kernels that ran, in words, once a batch has been run: those of LiteRT by kind, and the processor."""
    counts = {kind: len(operators) for kind, operators in kernels_of(runner).items()}
    words = ", ".join(f"{kind} {count}" for kind, count in counts.items() if count)
    return f"{words or 'stock kernels'} on {platform.machine()}"
