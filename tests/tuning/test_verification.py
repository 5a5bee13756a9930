"""The best .tflite on other kernels: every figure computed again here, with plain interpreters and NumPy."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any, Never

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from plain_lite import lite_outputs
from references import cached_reference
from tiny_model import Tiny

import autoquant
from autoquant.evaluation.data.dataset import open_data
from autoquant.evaluation.metrics.metric import Score
from autoquant.evaluation.metrics.table import open_metric
from autoquant.evaluation.scoring.baseline import Baseline
from autoquant.evaluation.scoring.subset import EvaluationSubset
from autoquant.formats.codec import encode
from autoquant.model.open import open_model
from autoquant.targets.litert import LiteRTTarget
from autoquant.tuning.result import Ended, SearchResult, result_facts
from autoquant.tuning.verification import SECONDS, cpu_features, verify


@pytest.fixture(scope="module")
def found(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    """A search of one trial for LiteRT."""
    return autoquant.search(
        tiny.model,
        tiny.evaluation,
        calibration=tiny.calibration,
        tolerance=0.5,
        max_trials=1,
        certify="none",
        target="litert",
        run=tmp_path_factory.mktemp("verified") / "run",
    )


def test_figures_are_those_of_plain_interpreters(found: SearchResult, tiny: Tiny) -> None:
    stored = np.load(tiny.evaluation)  # 200 samples, so all of them
    assert found.model is not None
    fast = lite_outputs(found.model, stored["x"], OpResolverType.AUTO)
    slow = lite_outputs(found.model, stored["x"], OpResolverType.BUILTIN_REF)
    told = found.verification
    assert told is not None
    assert told.samples == 200
    assert told.relative_difference == pytest.approx(np.linalg.norm(fast - slow) / np.linalg.norm(slow), abs=1e-6)
    assert told.largest_difference == pytest.approx(np.abs(fast - slow).max(), abs=1e-6)
    assert told.agreement == np.mean(fast.argmax(axis=1) == slow.argmax(axis=1))
    assert told.score == pytest.approx(np.mean(fast.argmax(axis=1) == stored["y"]))
    assert told.reference_score == pytest.approx(np.mean(slow.argmax(axis=1) == stored["y"]))
    assert told.score == pytest.approx(found.score)


def test_every_operator_ran_somewhere(found: SearchResult) -> None:
    interpreter = Interpreter(
        model_path=str(found.model), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    operators = Counter(op["op_name"] for op in interpreter._get_ops_details())
    assert found.verification is not None
    told = found.verification.kernels
    assert Counter(told["xnnpack"]) + Counter(told["builtin"]) == operators
    assert told["xnnpack"]["CONV_2D"] == 1


def test_it_stands_beside_the_model_and_in_the_result(found: SearchResult) -> None:
    assert found.model is not None
    stored = json.loads(found.model.with_name("score.json").read_text())
    assert found.verification is not None
    told = json.loads(json.dumps(encode(found.verification)))
    assert stored["verification"] == told
    assert json.loads(json.dumps(result_facts(found)))["verification"] == told
    assert told["litert"].startswith("litert ")


def test_graphs_of_tensorflow_have_none(tiny: Tiny, tmp_path: Path) -> None:
    result = autoquant.search(
        tiny.model,
        tiny.evaluation,
        calibration=tiny.calibration,
        tolerance=0.5,
        max_trials=1,
        engine="tensorflow",
        run=tmp_path / "run",
    )
    assert result.verification is None
    assert result.model is not None
    assert "verification" not in json.loads(result.model.with_name("score.json").read_text())


def test_the_search_goes_on_without_it(
    found: SearchResult, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoquant.tuning.verification.cpu_features", lambda: 1 / 0)
    options: dict[str, Any] = {"calibration": tiny.calibration, "tolerance": 0.5, "max_trials": 1, "target": "litert"}
    options |= {"certify": "none"}
    with pytest.raises(ZeroDivisionError):  # a bug is not a warning
        autoquant.search(tiny.model, tiny.evaluation, run=tmp_path / "bug", **options)

    def interrupted() -> Never:
        raise KeyboardInterrupt

    monkeypatch.setattr("autoquant.tuning.verification.cpu_features", interrupted)
    result = autoquant.search(tiny.model, tiny.evaluation, run=tmp_path / "interrupted", **options)
    assert result.ended is Ended.INTERRUPTED
    assert result.score == found.score

    def full() -> Never:
        raise MemoryError

    monkeypatch.setattr("autoquant.tuning.verification.cpu_features", full)
    result = autoquant.search(tiny.model, tiny.evaluation, run=tmp_path / "full", **options)
    assert result.verification is None
    assert any("reference kernels" in text for text in result.warnings)


def test_it_ends_in_time_and_finds_the_reference_of_each_sample(found: SearchResult, tiny: Tiny) -> None:
    """A metric that compares with the float outputs, kept in batches of their own sizes; a clock that runs out."""
    opened = open_model(tiny.model)
    model = LiteRTTarget().lowered(opened)
    data, metric = open_data(str(tiny.evaluation), opened.inputs), open_metric("agreement")
    expected = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    kept = tuple({"scores": expected[start:stop]} for start, stop in itertools.pairwise([0, 70, 71, 160, 200]))
    baseline = Baseline("", Score(1.0, np.ones(200)), reference=cached_reference(*kept))
    assert found.model is not None
    fast = lite_outputs(found.model, np.load(tiny.evaluation)["x"], OpResolverType.AUTO)
    agrees = fast.argmax(axis=1) == expected.argmax(axis=1)
    searched = EvaluationSubset.of(data, metric, baseline)
    whole = verify(found.model, model.program, searched, clock=lambda: 0.0)
    assert whole.samples == 200
    assert whole.score == pytest.approx(agrees.mean())
    ticks = itertools.count(0.0, SECONDS / 2)
    told: list[tuple[int, int]] = []
    part = verify(
        found.model,
        model.program,
        searched,
        clock=lambda: next(ticks),
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert part.samples == 20
    assert told == [(10, 20), (20, 20)]  # not of 200, for which there is no time
    assert part.score == pytest.approx(agrees[:20].mean())


def test_it_sees_what_was_searched_on(found: SearchResult, tiny: Tiny) -> None:
    """And compares with the float outputs of these samples."""
    opened = open_model(tiny.model)
    data, metric = open_data(str(tiny.evaluation), opened.inputs), open_metric("agreement")
    expected = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    baseline = Baseline("", Score(1.0, np.ones(200)), reference=cached_reference({"scores": expected}))
    positions = np.flatnonzero(np.random.default_rng(1).random(200) < 0.4)
    assert found.model is not None
    outputs = lite_outputs(found.model, np.load(tiny.evaluation)["x"], OpResolverType.AUTO)
    agrees = outputs.argmax(axis=1) == expected.argmax(1)
    told = verify(
        found.model,
        LiteRTTarget().lowered(opened).program,
        EvaluationSubset.of(data, metric, baseline, data.subset(positions)),
        clock=lambda: 0.0,
    )
    assert told.samples == len(positions)
    assert told.score == pytest.approx(agrees[positions].mean())


@pytest.mark.parametrize(
    ("text", "features"),
    [
        (
            "processor\t: 0\nflags\t\t: fpu avx2 avx fma sse avx512_vnni\nflags\t: amx_int8\n",
            ("avx", "avx2", "fma", "avx512_vnni"),
        ),
        ("processor : 0\nFeatures\t: fp asimd asimddp i8mm\n", ("asimd", "asimddp", "i8mm")),
        ("nothing\n", ()),
    ],
)
def test_features_of_the_processor(tmp_path: Path, text: str, features: tuple[str, ...]) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert cpu_features(tmp_path / "cpuinfo") == features


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    assert cpu_features(tmp_path / "cpuinfo") == ()
