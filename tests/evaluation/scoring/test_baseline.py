"""The baseline: run once, checked, kept."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Never

import numpy as np
import pytest
from numpy.typing import NDArray

from autoquant.errors import DataError, ModelError, TrialError
from autoquant.evaluation.data.batch import Batch, Outputs
from autoquant.evaluation.data.dataset import open_data
from autoquant.evaluation.metrics.table import open_metric
from autoquant.evaluation.scoring.baseline import (
    Baseline,
    load_baseline,
    measure_baseline,
    save_baseline,
    score_baseline,
)
from autoquant.evaluation.scoring.outputs import OutputCache
from autoquant.evaluation.scoring.subset import EvaluationSubset
from autoquant.model.model import InputSpec, Model, Program
from autoquant.quiet import no_progress

SPEC = InputSpec("x", np.dtype(np.float32), (None, 4))
RNG = np.random.default_rng(3)
X = RNG.normal(size=(40, 4)).astype(np.float32)
LABELS = X.argmax(axis=1)


class Fake:
    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.runs = 0

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.runs += 1
        return {"y": self.function(inputs["x"])}

    def close(self) -> None:
        """Nothing to close."""


def measure(
    function: Callable[..., Any], labels: NDArray[Any] | None = LABELS, metric: Any = "top1", **options: Any
) -> tuple[Baseline, Fake]:
    runner = Fake(function)
    data = open_data((X, labels), [SPEC])
    return measure_baseline(runner, data, open_metric(metric), batch_size=10, key="k", **options), runner


def test_every_batch_once_and_the_first_three_times_and_no_output_is_kept() -> None:
    baseline, runner = measure(lambda x: x)
    assert runner.runs == 1 + 2 + 4  # one sample alone, which tells how large outputs are
    assert baseline.score.value == 1.0
    assert baseline.sample_bytes == X[0].nbytes
    assert baseline.reference is None


@pytest.mark.parametrize(
    ("metric", "score", "kept"), [("agreement", 1.0, X.argmax(axis=1)[:, None]), ("sqnr", 30.0, X)]
)
def test_what_a_reference_takes_is_kept_of_all_samples(metric: str, score: float, kept: NDArray[Any]) -> None:
    baseline, _ = measure(lambda x: x, labels=None, metric=metric)
    assert baseline.score.value == score
    for chosen in (np.arange(40), np.asarray([3, 9, 10, 39])):
        np.testing.assert_array_equal(reference_of(baseline, chosen)["y"], kept[chosen])


def reference_of(baseline: Baseline, positions: NDArray[Any]) -> Outputs:
    """What is cached of these samples."""
    assert baseline.reference is not None
    return baseline.reference.rows(positions, Batch({}))


def several(x: NDArray[Any]) -> NDArray[Any]:
    """Scores of three classes at two positions, of which the second always has class 0."""
    return np.stack([x[:, :3], np.tile(np.asarray([9.0, 0, 0], np.float32), (len(x), 1))], axis=1)


def test_positions_have_margins_and_shares() -> None:
    baseline, _ = measure(several, labels=None, metric="agreement")
    top = np.sort(several(X), axis=2)
    margins = np.quantile(top[:, :, 2].astype(float) - top[:, :, 1], 0.1, axis=1)
    assert baseline.margins is not None
    np.testing.assert_allclose(baseline.margins, margins, rtol=1e-12)
    assert baseline.score.rows.dtype == np.float64
    assert baseline.warnings == ()


def test_a_warning_for_one_class_everywhere() -> None:
    def background(x: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(several(x) + np.asarray([100.0, 0.0, 0.0]))

    (warning,) = measure(background, labels=None, metric="agreement")[0].warnings
    assert warning.startswith("output 'y' of the FP32 model has class 0 everywhere in 40 samples; is the preprocessing")


def test_only_what_is_scored_is_kept_and_checked() -> None:
    class Two(Fake):
        def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            return {"always": np.ones((len(inputs["x"]), 2)), **super().__call__(inputs)}

    data = open_data((X, LABELS), [SPEC])
    chosen = measure_baseline(Two(lambda x: x), data, open_metric("top1@output=y"), batch_size=10, key="k")
    assert chosen.score.value == 1.0
    assert chosen.reference is None
    with pytest.raises(DataError, match="output 'always': is the same for all 40 samples"):
        measure_baseline(Two(lambda x: x), data, open_metric("agreement@output=always"), batch_size=10, key="k")
    both = measure_baseline(Two(lambda x: x), data, open_metric("agreement"), batch_size=10, key="k")
    assert list(reference_of(both, np.arange(40))) == ["always", "y"]


def test_a_metric_that_does_not_fit_leads_to_one_that_does() -> None:
    with pytest.raises(DataError, match=r"metric top1: takes one score per class.*; use --metric agreement, or write"):
        measure(several, labels=None)
    with pytest.raises(DataError, match=r"metric psnr: outputs have shape.*; use --metric top1, or write"):
        measure(lambda x: x, metric="psnr")


def widened(x: np.ndarray) -> np.ndarray:
    """(batch, 20000, 1) float32: 80,000 bytes a sample."""
    return np.repeat(x[:, :1, None], 20_000, axis=1)


def first_pixel(outputs: NDArray[Any], labels: NDArray[Any]) -> NDArray[Any]:
    return outputs[:, 0, 0]


def test_large_outputs_are_not_kept() -> None:
    samples, rows = 400, 20_000
    data = open_data((np.arange(4.0 * samples, dtype=np.float32).reshape(-1, 4), np.zeros(samples)), [SPEC])
    tracemalloc.start()
    baseline = measure_baseline(Fake(widened), data, open_metric(first_pixel), batch_size=10, key="k")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert baseline.score.value == pytest.approx(4 * (samples - 1) / 2)
    assert baseline.sample_bytes == 4 * rows
    assert peak < samples * rows * 4 / 2


def test_large_outputs_that_are_constant() -> None:
    with pytest.raises(DataError, match="is the same for all 8 samples"):  # one of each batch
        measure(lambda x: widened(np.ones_like(x)), metric=first_pixel)


def mean(outputs: NDArray[Any], labels: NDArray[Any]) -> Any:
    return outputs.mean(axis=1)


@pytest.mark.parametrize(
    ("labels", "metric"),
    [(1000 + np.arange(40), mean), (np.arange(40) % 4 + 1, mean), (X * 0.5, "mse")],
    ids=["identities", "from one", "vectors"],
)
def test_outputs_that_are_no_classes_are_not_checked_as_such(labels: NDArray[Any], metric: Any) -> None:
    peak = np.asarray([0, 0, 99, 0], np.float32)
    peaked = lambda x: x + peak  # noqa: E731  # a name would say no more
    baseline, _ = measure(peaked, labels, metric)
    expected = (X + peak).mean() if metric is mean else np.mean((X * 0.5 + peak) ** 2)
    assert baseline.score.value == pytest.approx(expected, rel=1e-5)
    assert baseline.warnings == ()
    with pytest.raises(DataError, match="predicts class 2 for all 40 samples"):
        measure(peaked, LABELS, "top1")


def test_agreement_does_not_look_at_labels() -> None:
    assert measure(lambda x: x, LABELS + 1, "agreement")[0].score.value == 1.0


def test_the_number_of_a_bad_sample_is_that_of_the_data() -> None:
    data = open_data((X, LABELS), [SPEC]).subset(np.arange(3, 40))
    last = Fake(lambda x: np.where((x == X[-1]).all(axis=1, keepdims=True), np.nan, x))
    with pytest.raises(ModelError, match=r"1 of 7 samples \(first: 39\)"):
        measure_baseline(last, data, open_metric("top1"), batch_size=10, key="k")


@pytest.mark.parametrize(
    ("function", "labels", "error", "message"),
    [
        (lambda x: x + np.random.default_rng().normal(size=x.shape), LABELS, ModelError, "two runs of the same batch"),
        (lambda x: np.where(x > 2.0, np.inf, x), LABELS, ModelError, "NaN or infinity"),
        (lambda x: np.ones_like(x), LABELS, DataError, "--preprocess"),
        (lambda x: x, LABELS + 1, DataError, "use `--label-offset -1`"),
        (lambda x: np.full(len(x), b"cat", object), LABELS, ModelError, "'y': holds text; choose others with --outp"),
    ],
    ids=["random", "infinite", "constant", "label offset", "text"],
)
def test_mistakes_are_named(function: Callable[..., Any], labels: NDArray[Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        measure(function, labels)


@pytest.mark.parametrize(("value", "told"), [(np.inf, "is inf; are outputs"), (np.nan, "returned NaN")])
def test_a_score_that_is_no_finite_number(value: float, told: str) -> None:
    with pytest.raises(ModelError, match=f"the FP32 model: .*{told}"):
        measure(lambda x: x, metric=lambda outputs, labels: np.full(len(outputs), value))


def test_outputs_may_be_truth_values() -> None:
    share = lambda outputs, labels: outputs.mean(axis=1)  # noqa: E731  # a name would say no more
    assert measure(lambda x: x > 0, metric=share)[0].score.value == pytest.approx((X > 0).mean())


def test_a_model_that_does_not_run_is_no_trial() -> None:
    def refuse(x: NDArray[Any]) -> Never:
        raise TrialError("TensorFlow", "the model does not run: shapes", hint="check the input data")

    with pytest.raises(ModelError, match="the FP32 model: the model does not run"):
        measure(refuse)


def test_a_warning_for_a_baseline_at_chance() -> None:
    assert measure(lambda x: x)[0].warnings == ()
    (warning,) = measure(lambda x: x, np.where(np.arange(40) % 5 == 0, 3, 0))[0].warnings
    assert "most frequent" in warning


def test_round_trip_and_nothing_stale(tmp_path: Path) -> None:
    baseline, _ = measure(lambda x: x, metric="agreement")
    path = tmp_path / "baseline.npz"
    save_baseline(baseline, path)
    metric = open_metric("agreement")
    loaded = load_baseline(path, metric, key="k")
    assert loaded is not None
    assert loaded.sample_bytes == baseline.sample_bytes
    assert loaded.score.value == baseline.score.value
    np.testing.assert_array_equal(loaded.score.rows, baseline.score.rows)
    everything = np.arange(40)
    np.testing.assert_array_equal(reference_of(loaded, everything)["y"], reference_of(baseline, everything)["y"])
    assert load_baseline(path, metric, key="other") is None
    assert load_baseline(tmp_path / "absent.npz", metric, key="k") is None
    path.write_bytes(path.read_bytes()[:-40])
    assert load_baseline(path, metric, key="k") is None


def test_what_is_large_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    baseline, _ = measure(lambda x: x, metric="sqnr")
    monkeypatch.setattr("autoquant.evaluation.scoring.baseline.SAVED", baseline.score.rows.nbytes + X.nbytes - 1)
    save_baseline(baseline, tmp_path / "baseline.npz")
    assert list(tmp_path.iterdir()) == []


def test_batches_have_bytes_of_outputs_not_only_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoquant.evaluation.engines.engine.BATCH_BYTES", 3 * X[0].nbytes)
    sizes = []

    def noted(x: NDArray[Any]) -> NDArray[Any]:
        sizes.append(len(x))
        return x

    baseline, _ = measure(noted)
    assert sizes == [1, 3, 3, *[3] * 13, 1]
    sizes.clear()
    subset = EvaluationSubset.of(open_data((X, LABELS), [SPEC]), open_metric("top1"), baseline)
    assert subset.evaluate(Fake(noted), batch_size=10).value == 1.0
    assert sizes == [*[3] * 13, 1]


def test_what_the_cache_has_no_room_for_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = lambda folder: OutputCache(folder, most=2 * X[:10].nbytes, in_memory=1)  # noqa: E731  # as the product's
    monkeypatch.setattr("autoquant.evaluation.scoring.baseline.OutputCache", cache)
    opened = []

    def reopen() -> Fake:
        opened.append(Fake(lambda x: x))
        return opened[-1]

    data, metric = open_data((X, LABELS), [SPEC]), open_metric("sqnr")
    baseline = measure_baseline(Fake(lambda x: x), data, metric, batch_size=10, key="k", reopen=reopen)
    told = "the FP32 outputs of 20 of 40 samples are computed again for every trial: those of the others take 0 MB"
    assert baseline.warnings == (f"{told} on disk",)
    subset = EvaluationSubset.of(data, metric, baseline)
    for _ in range(2):
        found = subset.evaluate(Fake(lambda x: np.where(x == X[35], 2 * x, x)), batch_size=10)
        np.testing.assert_allclose(found.rows, np.where(np.arange(40) == 35, 0.0, 30.0), atol=1e-6)
    assert [one.runs for one in opened] == [4]


def highest(outputs: NDArray[Any], labels: NDArray[Any]) -> float:
    return float(outputs.max())


def test_outputs_taken_all_at_once_are_refused_where_there_is_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    vars(highest)["per_sample"] = False
    monkeypatch.setattr("autoquant.evaluation.scoring.rows.LARGE", 500)
    (warning,) = measure(lambda x: x, metric=highest)[0].warnings
    assert warning.endswith("takes the outputs of all samples at once: 0 MB of memory, twice during a trial")
    monkeypatch.setattr("autoquant.evaluation.scoring.rows.free_memory", lambda: 900)
    with pytest.raises(DataError, match="at once: 0 MB of memory; 0 MB are free; return one value a sample, or give f"):
        measure(lambda x: x, metric=highest)


@dataclass
class FakeEngine:
    """An engine of a version, whose runner gives its input; counts how often the model is opened."""

    name: str = "fake"
    version: str = "fake 1"
    opened: int = 0

    def open_graph(self, graph: Program, fetches: Sequence[str] | None = None) -> Fake:
        self.opened += 1
        return Fake(lambda x: x)

    def open_file(self, path: Path, graph: Program) -> Fake:
        raise NotImplementedError


@dataclass(frozen=True)
class FakeProgram:
    outputs: tuple[str, ...] = ("y",)


def opened_again(cache: Path, **changed: Any) -> bool:
    """Whether a baseline is measured, not read from a cache, where what it is of is this or differs so."""
    of: dict[str, Any] = {"version": "fake 1", "model": "m", "outputs": ("y",), "x": X, "metric": "top1", "size": 10}
    of |= changed
    engine: Any = FakeEngine(version=of["version"])
    program: Any = FakeProgram(of["outputs"])
    score_baseline(
        engine,
        Model("m", program, (), of["model"]),
        open_data((of["x"], LABELS), [SPEC]),
        open_metric(of["metric"]),
        batch_size=of["size"],
        cache=cache,
        on_progress=no_progress,
    )
    return bool(engine.opened)


@pytest.mark.parametrize(
    "changed",
    [
        {"version": "fake 2"},
        {"model": "other"},
        {"outputs": ("z",)},
        {"x": 2 * X},
        {"metric": "agreement"},
        {"size": 20},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_cached_baseline_is_of_the_engine_model_data_and_metric(changed: dict[str, Any], tmp_path: Path) -> None:
    cache = tmp_path / "baseline.npz"
    assert opened_again(cache)
    assert not opened_again(cache)
    assert opened_again(cache, **changed)
