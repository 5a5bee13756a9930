"""Models scored one after the other on the same samples: the first is the reference that others are paired with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from autoquant.array import Array
from autoquant.errors import DataError, ModelError, TrialError, UserFunctionError
from autoquant.evaluation.data.array_cache import CacheRoom
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.images import ImageFolder
from autoquant.evaluation.data.records import RecordSource
from autoquant.evaluation.data.units import units_of
from autoquant.evaluation.metrics.metric import Metric, require_labels, require_output
from autoquant.evaluation.metrics.table import open_metric
from autoquant.evaluation.scoring.baseline import Baseline, measure_baseline, require_score
from autoquant.evaluation.scoring.changes import SampleClasses, lost_samples, sample_changes
from autoquant.evaluation.scoring.subset import EvaluationSubset
from autoquant.files import writing
from autoquant.formats.codec import save
from autoquant.quiet import no_progress
from autoquant.tuning.certification.assumptions import assumption, units_in
from autoquant.tuning.certification.certificate import Origin, Verdict
from autoquant.tuning.certification.compute import certificate_of, find_evidence, lower_bound
from autoquant.tuning.certification.holdout import check_guard, groups_of
from autoquant.tuning.certify import SUSPICIOUS, kernels_text
from autoquant.tuning.evaluation.request import EvaluateRequest
from autoquant.tuning.evaluation.result import Evaluation, ModelScore
from autoquant.tuning.evaluation.runnable import Matched, Runnable, open_runnable, same_data
from autoquant.tuning.events import Listener, reporter
from autoquant.tuning.inputs import open_dataset
from autoquant.tuning.study.run_folder import CERTIFICATE

UNSEEN = "; and nothing of these samples was used to train, quantize or choose the model"
"""What a certificate of a model takes for granted that was made elsewhere."""


def evaluate(models: Sequence[str | Path], request: EvaluateRequest, *, listener: Listener = no_progress) -> Evaluation:
    """Score models on the data, one after the other. Raises InputError for what cannot be opened, run or compared."""
    paths = request.check_models(models)
    return _Evaluator(request, _names(models), paths, listener).evaluation()


def _names(models: Sequence[str | Path]) -> list[str]:
    """What models are called: their files' names, and where two have the same one, the paths."""
    names = [Path(model).name for model in models]
    return [name if names.count(name) == 1 else str(model) for name, model in zip(names, models, strict=True)]


@dataclass(frozen=True)
class _Evaluator:
    """The steps of an evaluation."""

    request: EvaluateRequest
    names: Sequence[str]
    paths: Sequence[Path]
    listener: Listener
    warnings: list[str] = field(default_factory=list)

    def evaluation(self) -> Evaluation:
        """All of it."""
        request, metric = self.request, open_metric(self.request.metric)
        reporter(self.listener, "opening models")
        reference, *others = self._opened()
        require_output(metric, reference.model.program.outputs)
        reporter(self.listener, "reading the data")
        data = open_dataset(request, reference.model, request.data, self.warnings.append, CacheRoom())
        require_labels(metric, data)
        wanted = metric.names(reference.model.program.outputs)
        matched = [other.like(reference, wanted) for other in others]
        units_of(data, request.unit)  # so that a name mistaken is told before anything is scored
        if request.guard:
            check_guard(data, request.guard, metric)
        datas = [self._data_of(one, reference, data) for one in matched]
        for one, own in zip(matched, datas, strict=True):
            self._try(one, own)
        subset, first = self._reference(reference, data, metric)
        scored = [self._compared(one, own, subset, first.digest) for one, own in zip(matched, datas, strict=True)]
        units = units_in(data, request.unit)
        file = None
        if request.certify is not None:
            file = Path(request.certify) / CERTIFICATE
            with writing(file.parent):
                file.parent.mkdir(parents=True, exist_ok=True)
            assert scored[0].certificate is not None
            save(scored[0].certificate, file)
        max_drop, each = self._max_drops(subset.baseline)
        return Evaluation(
            metric=metric.name,
            samples=len(data),
            data=data.digest,
            models=(first, *scored),
            confidence=request.confidence,
            max_drop=max_drop,
            guard_max_drop=each if request.guard else None,
            units=None if units is None else len(units),
            file=file,
            warnings=(*self.warnings, *(_of(first.name, text) for text in subset.baseline.warnings)),
        )

    def _opened(self) -> list[Runnable]:
        pairs = enumerate(zip(self.paths, self.names, strict=True))
        return [open_runnable(path, name, self.request, first=not number) for number, (path, name) in pairs]

    def _data_of(self, one: Matched, reference: Runnable, data: Dataset) -> Dataset:
        """The same samples in the types and shapes that this model takes. Raises DataError where they do not fit."""
        inputs = one.data_model.inputs
        if same_data(inputs, reference.model.data_inputs):
            return data
        if isinstance(data.source, ImageFolder | RecordSource):  # which make images of the size that a model takes
            own = open_dataset(self.request, one.data_model, self.request.data, self.warnings.append, CacheRoom())
        else:
            own = replace(data, inputs=inputs, front=None)
        try:
            next(own.batches(1))
        except DataError as error:
            raise DataError(error.where, f"as {one.own.name} takes it: {error.what}", hint=error.hint) from error
        return own

    def _try(self, one: Matched, data: Dataset) -> None:
        """Run a model on one sample, before any is scored on all."""
        with _blaming(one.own.name), closing(one.open()) as runner:
            runner(next(data.batches(1)).inputs)

    def _reference(self, one: Runnable, data: Dataset, metric: Metric) -> tuple[EvaluationSubset, ModelScore]:
        """The samples with the score of the first model, which is measured and checked as that of a search."""
        size = self.request.batch_size
        with _blaming(one.name), closing(one.open()) as runner:
            baseline = measure_baseline(
                runner,
                data,
                metric,
                batch_size=size,
                key="",
                reopen=one.open,
                on_progress=reporter(self.listener, f"scoring {one.name}"),
            )
            facts = self._facts(one, kernels_text(runner))
        require_score(baseline, metric, self.request.min_baseline, one.name)
        return EvaluationSubset.of(data, metric, baseline), ModelScore(**facts, score=baseline.score.value)

    def _compared(self, one: Matched, data: Dataset, subset: EvaluationSubset, first: str) -> ModelScore:
        """The score of another model, and how it compares with the first, of this digest."""
        request, metric, own = self.request, subset.metric, replace(subset, data=data)
        classes = SampleClasses(metric, len(subset))
        with _blaming(one.own.name), closing(one.open()) as runner:
            score = own.evaluate(
                runner,
                batch_size=request.batch_size,
                on_progress=reporter(self.listener, f"scoring {one.own.name}"),
                on_outputs=lambda places, _, outputs: classes.put(places, outputs),
            )
            facts = self._facts(one.own, kernels_text(runner))
        changes = sample_changes(subset, score.rows, classes.array)
        compared = self._bounds(subset, score.rows, facts, first)
        return ModelScore(
            **facts, score=score.value, changes=changes, lost=lost_samples(changes, subset.data), **compared
        )

    def _bounds(self, subset: EvaluationSubset, rows: Array, facts: dict[str, Any], first: str) -> dict[str, Any]:
        """What a certificate has of a drop, and the verdict and certificate where they are asked for."""
        request, metric, before = self.request, subset.metric, subset.score.rows
        units = units_in(subset.data, request.unit)
        max_drop, each = self._max_drops(subset.baseline)
        on_progress = reporter(self.listener, f"bounds of {facts['name']}")
        options: dict[str, Any] = {"metric": metric, "confidence": request.confidence, "units": units}
        guarded: dict[str, Any] = {"groups": groups_of(subset.data, request.guard)} if request.guard else {}
        if each is not None:
            guarded["guard_max_drop"] = each
        found = find_evidence(before, rows, **options, **guarded, on_progress=on_progress)
        low = lower_bound(before, rows, **options, on_progress=on_progress)
        if found.suspicious:
            self.warnings.append(f"{facts['name']}: {SUSPICIOUS}")
        verdict = certificate = None
        if max_drop is not None and each is not None:
            origin = Origin(facts["engine"], facts["kernels"], first, facts["digest"], subset.data.digest)
            certificate = certificate_of(
                found,
                (subset.score.value, float(metric.combine(rows))),
                metric=metric.name,
                max_drop=max_drop,
                guard_max_drop=each,
                confidence=request.confidence,
                origin=origin,
                assumes=assumption(subset.data, request.unit) + UNSEEN,
            )
            verdict = certificate.verdict
            if request.certify is None:
                certificate, verdict = None, Verdict.MISSED if verdict is Verdict.MISSED else Verdict.MET
        return {
            "drop": found.seen.drop,
            "lower_bound": _finite(low),
            "upper_bound": _finite(found.bound.value),
            "method": found.bound.method,
            "losses": found.seen.losses,
            "gains": found.seen.gains,
            "suspicious": found.suspicious,
            "guard": found.guard,
            "verdict": verdict,
            "certificate": certificate,
        }

    def _max_drops(self, baseline: Baseline) -> tuple[float | None, float | None]:
        """The largest drop within tolerance, and that of each group."""
        request, score = self.request, baseline.score.value
        if request.tolerance is None:
            return None, None if request.guard_tolerance is None else request.guard_tolerance.absolute(score)
        max_drop = request.tolerance.absolute(score)
        return max_drop, max_drop if request.guard_tolerance is None else request.guard_tolerance.absolute(score)

    def _facts(self, one: Runnable, kernels: str) -> dict[str, Any]:
        number = self.names.index(one.name)
        return {
            "name": one.name,
            "path": str(self.paths[number]),
            "digest": one.model.digest,
            "engine": one.engine.version,
            "kernels": kernels,
            "notes": one.model.notes,
        }


def _of(name: str, text: str) -> str:
    """What checks say of the FP32 model, of the model of this name, which may be none."""
    return text.replace("the FP32 model", name)


@contextmanager
def _blaming(name: str) -> Iterator[None]:
    """Inside, what goes wrong is said of the model of this name."""
    try:
        yield
    except UserFunctionError:
        raise
    except (TrialError, ModelError, DataError) as error:
        what = _of("the model", error.what.removeprefix("the FP32 model: "))
        kind = DataError if isinstance(error, DataError) else ModelError
        raise kind(name, f"{error.where}: {what}", hint=error.hint) from error


def _finite(bound: float) -> float | None:
    return bound if abs(bound) != float("inf") else None
