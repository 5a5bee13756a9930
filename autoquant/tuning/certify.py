"""The best model of a search on samples that the search has not seen: once, by what it is made for."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from hashlib import file_digest
from pathlib import Path

import numpy as np

from autoquant.errors import AutoquantError, InputError, RunError
from autoquant.evaluation.engines.engine import Runner
from autoquant.evaluation.engines.table import open_engine
from autoquant.evaluation.scoring.streaming import scored_at
from autoquant.evaluation.scoring.subset import Part
from autoquant.files import write_text
from autoquant.targets.table import TARGETS
from autoquant.tuning.certification.certificate import Certificate, Origin, Verdict
from autoquant.tuning.certification.certificate_json import certificate_text, load_certificate
from autoquant.tuning.certification.compute import certify
from autoquant.tuning.certification.guard import Groups, groups_of
from autoquant.tuning.certification.holdout import holdout_subset
from autoquant.tuning.certification.holdout_log import Look, looks_of, record
from autoquant.tuning.events import Listener, Progress, Warned
from autoquant.tuning.finalize import costly
from autoquant.tuning.inputs import Opening
from autoquant.tuning.prepare import Assembled
from autoquant.tuning.result import Ended, SearchResult
from autoquant.tuning.study.run_folder import CERTIFICATE, RunFolder
from autoquant.tuning.study.trial import Trial

SUSPICIOUS = (
    "the INT8 model is better than the FP32 model by more than chance, which quantization does not do: "
    "is the FP32 model evaluated as it was trained (preprocessing, labels)?"
)


def certified(opening: Opening, ready: Assembled, result: SearchResult, listener: Listener) -> SearchResult:
    """The result with the certificate of its best model, or with the reason why it has none.

    A trial that missed on samples kept aside has missed, whatever would certify it later: else one could look until
    some samples flatter it. Nothing is looked at where the tolerance was missed or the search was interrupted. Samples
    that another trial of the run was certified on do not certify this one: choosing among several by them would flatter
    the one that is chosen; nor another file than the one that was.
    """
    folder, best, model = ready.loop.folder, result.best, result.model
    if best is None or model is None or result.verdict is Verdict.MISSED:
        return result
    looks = looks_of(folder)
    if any(look.trial == best.number and look.verdict is Verdict.MISSED for look in looks):
        return _missed(ready, result, best)
    if result.ended is Ended.INTERRUPTED:
        return result
    if ready.splits.holdout is None:
        return replace(result, uncertified=ready.splits.reason)
    try:
        digest = _digest(model)
        before = [look for look in looks if look.data == ready.splits.holdout.digest]
        why = _refusal(before, best.number, digest)
        if why:
            return replace(result, uncertified=why)
        certificate = _found(folder, before) or _certificate(opening, ready, model, digest, best.number, listener)
    except KeyboardInterrupt:
        return replace(result, ended=Ended.INTERRUPTED)
    except RunError:
        raise
    except (AutoquantError, MemoryError) as error:
        listener(Warned(f"the best model could not be certified: {error}"))
        return replace(result, uncertified=str(error))
    if certificate.suspicious:
        listener(Warned(SUSPICIOUS))
    if certificate.verdict is Verdict.MISSED:
        return _missed(ready, result, best)
    return replace(result, verdict=certificate.verdict, certificate=certificate)


def _missed(ready: Assembled, result: SearchResult, best: Trial) -> SearchResult:
    """The result of a best trial that a look at samples kept aside proved wrong."""
    path = ready.loop.folder.trial(best.number) / CERTIFICATE
    certificate = load_certificate(path) if path.exists() else None
    if certificate is not None and certificate.verdict is not Verdict.MISSED:
        certificate = None
    gone = "" if certificate else f"trial {best.number} missed on samples kept aside, by looks.json; {path} is gone"
    layers = costly(ready.loop, best.plan) if result.ended is not Ended.INTERRUPTED else ()
    return replace(result, verdict=Verdict.MISSED, certificate=certificate, uncertified=gone, costly=layers)


def _refusal(before: Sequence[Look], trial: int, model: str) -> str:
    """Why samples that were looked at before, if they were, certify this trial with this model no more."""
    others = [look.trial for look in before if look.trial != trial]
    if others:
        return f"the samples kept aside were looked at for trial {others[0]} already; give others with --certify"
    if any(look.model != model for look in before):
        what = f"the model file of trial {trial} is not the one that was scored on the samples kept aside"
        return f"{what} (another SHA-256: it was built again, or edited); give others with --certify"
    return ""


def _found(folder: RunFolder, before: Sequence[Look]) -> Certificate | None:
    """The certificate of one of these looks, which are all at the same model and data, where it is still there."""
    paths = [folder.trial(look.trial) / CERTIFICATE for look in before]
    found = [load_certificate(path) for path in paths if path.exists()]
    return next((one for one in found if one.origin.data == before[0].data), None)


def _certificate(
    opening: Opening, ready: Assembled, model: Path, digest: str, trial: int, listener: Listener
) -> Certificate:
    """Score the best model, of this digest, on what was kept aside, and write down what may be claimed of it."""
    request, bench = opening.request, ready.loop.bench
    engine = open_engine(TARGETS[bench.builder.target.name].runtime)
    part = holdout_subset(
        ready.splits,
        bench.metric,
        bench.part.baseline,
        lambda: bench.engine.open_graph(bench.builder.model.program),
        bench.batch_size,
    )
    groups = _groups(opening, ready, part, listener) if request.guard else None
    runner = engine.open_file(model, bench.builder.model.program)

    def on_progress(done: int, total: int) -> None:
        listener(Progress("certification", done, total))

    with closing(runner):
        places = np.arange(len(part))
        score = scored_at(runner, part, places, batch_size=bench.batch_size, on_progress=on_progress)
        kernels = _kernels(runner)
    certificate = certify(
        part.score.rows,
        score.rows,
        metric=bench.metric,
        allowed=ready.loop.allowed,
        confidence=request.confidence,
        origin=Origin(engine.version, kernels, opening.model.digest, digest, part.data.digest),
        groups=groups.labels if groups else None,
        unseen=groups.unseen if groups else (),
        guard_allowed=_guard_allowed(opening, part),
        left_out=ready.splits.left_out,
        seed=request.seed,
    )
    record(Look(part.data.digest, trial, digest, certificate.verdict), ready.loop.folder)
    write_text(model.with_name(CERTIFICATE), certificate_text(certificate))
    return certificate


def _groups(opening: Opening, ready: Assembled, part: Part, listener: Listener) -> Groups:
    """The groups of what certifies, and those that only the rest of the evaluation data has."""
    evaluation, guard = opening.splits.evaluation, opening.request.guard
    if not ready.splits.has_own_holdout:
        everything = groups_of(evaluation, guard)
        return Groups.of(everything[part.positions], everything)
    labels = groups_of(part.data, guard)
    try:
        return Groups.of(labels, groups_of(evaluation, guard))
    except InputError as error:
        listener(Warned(f"only groups of the data to certify are guarded: {error}"))
        return Groups(labels, ())


def _guard_allowed(opening: Opening, part: Part) -> float | None:
    asked = opening.request.guard_tolerance
    return None if asked is None else asked.absolute(part.baseline.score.value)


def _kernels(runner: Runner) -> str:
    """What computed, in words, once a batch has been run: the kernels of LiteRT by kind, and the processor."""
    found = getattr(runner, "kernels", None)
    counts = {kind: len(operators) for kind, operators in found().items()} if found else {}
    words = ", ".join(f"{kind} {count}" for kind, count in counts.items() if count)
    return f"{words or 'stock kernels'} on {platform.machine()}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
