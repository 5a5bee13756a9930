"""A small model on disk with its data, and values of a search made by hand."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_files import Files

from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.tuning.certification.certificate import Certificate, Origin, Verdict
from autoquant.tuning.result import Ended, SearchResult
from autoquant.tuning.study.trial import State, Trial

PLAN = Plan({"conv1": LayerPlan(), "conv2": None, "fc": LayerPlan(channel_wise=False)})


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Two convolutions and a matmul in a frozen graph; `y` are its own outputs, so that mse is 0 in FP32 alone."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    graph = tf.Graph()
    with graph.as_default():
        x = tf.compat.v1.placeholder(tf.float32, [None, 6, 6, 2], name="x")
        for number, channels in ((1, (2, 4)), (2, (4, 4))):
            weight = tf.constant(rng.normal(size=(3, 3, *channels)), tf.float32)
            x = tf.nn.relu(tf.nn.conv2d(x, weight, 1, "SAME", name=f"conv{number}"))
        means = tf.reduce_mean(x, [1, 2])
        tf.linalg.matmul(means, tf.constant(rng.normal(size=(4, 3)), tf.float32), name="fc")
    (folder / "tiny.pb").write_bytes(graph.as_graph_def().SerializeToString())
    images = rng.normal(size=(100, 6, 6, 2)).astype(np.float32)
    with tf.compat.v1.Session(graph=graph) as session:
        outputs = session.run("fc:0", {"x:0": images})
    np.savez(folder / "data.npz", x=images[:80], y=outputs[:80])
    np.savez(folder / "calibration.npz", x=images[80:])
    return Files(folder / "tiny.pb", folder / "data.npz", folder / "calibration.npz")


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs Python on some words in a process of its own, with the same modules to be found; `first` before them."""

    def run(*words: str, first: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([first, *sys.path])}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.run([sys.executable, *words], check=False, text=True, env=environment, **streams)

    return run


@pytest.fixture
def trial() -> Callable[..., Trial]:
    """Makes trials against a baseline of 0.75; failed without a drop."""

    def make(
        number: int,
        *,
        drop: float | None = 0.25,
        why: str = "TPE",
        failure: str = "",
        qdq_ops: int | None = None,
    ) -> Trial:
        return Trial(
            number=number,
            state=State.FAILED if drop is None else State.DONE,
            plan=PLAN,
            why=why,
            int8_share=0.625,
            objective=0.375,
            score=None if drop is None else 0.75 - drop,
            drop=drop,
            samples=80,
            seconds={"quantize": 0.5, "score": 1.25},
            failure=failure,
            qdq_ops=qdq_ops,
        )

    return make


@pytest.fixture
def stopped() -> Callable[..., Trial]:
    """Makes trials that were stopped early: `drop` is an estimate, None where outputs alone were compared."""

    def make(number: int, *, samples: int, drop: float | None = None, within: bool | None = None) -> Trial:
        ends = {} if drop is None else {"low": drop - 0.125, "high": drop + 0.125}
        max_samples = samples if drop is None else None
        more: dict[str, Any] = {"drop": drop, "within": within, "samples": samples, "max_samples": max_samples, **ends}
        return Trial(number, State.STOPPED, PLAN, "race", int8_share=0.625, objective=0.375, **more)

    return make


@pytest.fixture
def certificate() -> Callable[..., Certificate]:
    """Makes certificates of 400 samples, by which a drop of 0.0625 is at most 0.09375, of 0.125 that are allowed."""

    def make(verdict: Verdict = Verdict.CERTIFIED, **more: Any) -> Certificate:
        facts = {"metric": "top1", "baseline": 0.75, "score": 0.6875, "drop": 0.0625, "upper_bound": 0.09375}
        facts |= {"max_drop": 0.125, "confidence": 0.95, "samples": 400, "method": "exact", "suspicious": False}
        facts |= {"losses": 1030, "gains": 5}
        origin = Origin("litert 2.3.0", "xnnpack 15 on x86_64", *("0" * 64, "1" * 64, "2" * 64))
        return Certificate(verdict=verdict, origin=origin, **{**facts, **more})

    return make


@pytest.fixture
def result() -> Callable[..., SearchResult]:
    """Makes results of a search with a tolerance of 0.125."""

    def make(*trials: Trial, best: Trial | None, met: bool, **more: Any) -> SearchResult:
        facts = {
            "metric": "top1",
            "baseline": 0.75,
            "max_drop": 0.125,
            "worst_score": 0.625,
            "layers": 3,
            "seconds": 75.0,
        }
        return SearchResult(
            best=best,
            trials=trials,
            model=Path("my run/best/net_quantized.pb") if best else None,
            run=Path("my run"),
            **{"verdict": Verdict.MET if met else Verdict.MISSED, "ended": Ended.TRIALS, **facts, **more},
        )

    return make
