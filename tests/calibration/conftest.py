"""Values as layers see them, and the two ways to keep them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autoquant.calibration.distribution import Collector, Distribution, ExactCollector
from autoquant.calibration.sketcher import Sketcher

RNG = np.random.default_rng(3)
NORMAL = RNG.normal(size=40_000)
DISTRIBUTIONS = {
    "normal": NORMAL,
    "shifted": RNG.normal(2.0, 3.0, size=40_000),
    "relu": np.maximum(NORMAL, 0.0),
    "relu6": np.clip(RNG.normal(3.0, 3.0, size=40_000), 0.0, 6.0),
    "leaky": np.where(NORMAL > 0.0, NORMAL, NORMAL / 10.0),
    "image": RNG.integers(0, 256, size=40_000) / 255.0,
    "one hot": (RNG.integers(0, 99, size=40_000) == 0) * 1.0,
    "heavy": RNG.standard_t(3, size=40_000),
    "negative": -np.abs(RNG.normal(size=40_000)),
    "far": RNG.normal(100.0, 0.1, size=40_000),
    "log": np.log(RNG.random(40_000) + 1e-9),
    "few": RNG.normal(size=37),
}


@pytest.fixture(params=DISTRIBUTIONS)
def values(request: pytest.FixtureRequest) -> Any:
    """Float32 values."""
    return DISTRIBUTIONS[request.param].astype(np.float32)


COLLECTORS: dict[str, Callable[[], Collector]] = {"sketch": Sketcher, "exact": lambda: ExactCollector("x")}


@pytest.fixture(params=COLLECTORS)
def new_collector(request: pytest.FixtureRequest) -> Callable[[], Collector]:
    """Makes a collector of one of the two kinds."""
    return COLLECTORS[request.param]


@pytest.fixture
def see(new_collector: Callable[[], Collector]) -> Callable[..., Distribution]:
    """What is seen of some batches."""
    return lambda *batches: _seen(new_collector(), *batches)


@pytest.fixture
def exact() -> Callable[..., Distribution]:
    """What is seen of some batches, every value kept."""
    return lambda *batches: _seen(ExactCollector("x"), *batches)


@pytest.fixture
def sketched() -> Callable[..., Distribution]:
    """What is seen of some batches, as a sketch."""
    return lambda *batches: _seen(Sketcher(), *batches)


def _seen(collector: Collector, *batches: Any) -> Distribution:
    for batch in batches:
        collector.add(np.asarray(batch, np.float32))
    return collector.distribution()
