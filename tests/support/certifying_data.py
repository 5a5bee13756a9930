"""Evaluation data of the tiny model of which it is known what INT8 loses, where: in the samples that certify or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import autoquant

SPACE = '[layer]\nact_algo = "minmax"\n'
SAMPLES, POOL, SEED = 400, 6000, 0


@dataclass(frozen=True, eq=False)
class Known:
    """Samples that the FP32 and the INT8 model put into the same class, and such that they do not; by plain sessions.

    `before` are the classes of FP32, `after` those of INT8.
    """

    images: Any
    before: Any
    after: Any

    def parts(self) -> tuple[Any, Any]:
        """Positions that certify, and that are searched on: half and half, drawn by the seed."""
        order = np.random.default_rng(SEED).permutation(SAMPLES)
        return np.sort(order[: SAMPLES // 2]), np.sort(order[SAMPLES // 2 :])

    def data(self, *, searched: int = 0, losses: int = 0, gains: int = 0, of: int | None = None) -> dict[str, Any]:
        """Labels are right for FP32, but for `gains`. INT8 loses `searched` samples of the search.

        It loses `losses` of those that certify, all of FP32's class `of` if that is given.
        """
        same, other = np.flatnonzero(self.before == self.after), np.flatnonzero(self.before != self.after)
        chosen = same[:SAMPLES].copy()
        certify, search = self.parts()
        left = list(other[self.before[other] == of] if of is not None else other)
        lost = [left.pop() for _ in range(losses)]
        rest: Iterator[Any] = iter([sample for sample in other if sample not in lost])
        chosen[certify[:losses]] = lost
        chosen[search[:searched]] = [next(rest) for _ in range(searched)]
        won = certify[losses : losses + gains]
        chosen[won] = [next(rest) for _ in range(gains)]
        labels = self.before[chosen].copy()
        labels[won] = self.after[chosen[won]]
        return {"x": self.images[chosen], "y": labels}

    def others(self, count: int, *, losses: int = 0) -> dict[str, Any]:
        """Samples that `data` does not give."""
        same, other = np.flatnonzero(self.before == self.after), np.flatnonzero(self.before != self.after)
        chosen = np.concatenate([same[SAMPLES : SAMPLES + count - losses], other[:losses]])
        return {"x": self.images[chosen], "y": self.before[chosen]}


def classes(path: Path, images: Any) -> Any:
    """What a graph of TensorFlow answers, in a plain session."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(tf.compat.v1.GraphDef.FromString(path.read_bytes()), name="")
        with tf.compat.v1.Session(graph=graph) as session:
            return session.run("scores:0", {"image:0": images}).argmax(axis=1)


def known(tiny: Any, folder: Path) -> Known:
    """By the INT8 model that a search in SPACE finds, which depends on the calibration data alone."""
    (folder / "space.toml").write_text(SPACE)
    images = np.random.default_rng(5).normal(size=(POOL, 8, 8, 2)).astype(np.float32)
    few = {"x": images[:50], "y": np.arange(50) % 3}
    options: dict[str, Any] = {"metric": "agreement", "tolerance": 0.9, "certify": "none", "engine": "tensorflow"}
    found = autoquant.search(
        tiny.model, few, calibration=tiny.calibration, space=folder / "space.toml", run=folder / "run", **options
    )
    assert found.model is not None
    return Known(images, classes(tiny.model, images), classes(found.model, images))
