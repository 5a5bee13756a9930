import math
from collections.abc import Callable

import numpy as np
import pytest

from autoquant.calibration.ranges import RANGES, Ifmr, MinMax, Percentile
from autoquant.calibration.sketch import Sketch, Sketcher
from autoquant.quantization.affine import Range

RNG = np.random.default_rng(3)
DISTRIBUTIONS = {
    "normal": RNG.normal(size=40_000),
    "shifted": RNG.normal(2.0, 3.0, size=40_000),
    "relu": np.maximum(RNG.normal(size=40_000), 0.0),
    "relu6": np.clip(RNG.normal(3.0, 3.0, size=40_000), 0.0, 6.0),
    "image": RNG.integers(0, 256, size=40_000) / 255.0,
    "heavy": RNG.standard_t(3, size=40_000),
    "negative": -np.abs(RNG.normal(size=40_000)),
    "log": np.log(RNG.random(40_000) + 1e-9),
    "few": RNG.normal(size=37),
}
DISTRIBUTIONS = {name: values.astype(np.float32) for name, values in DISTRIBUTIONS.items()}


def sketched(values: np.ndarray) -> Sketch:
    sketcher = Sketcher()
    for batch in np.array_split(values, 3):
        sketcher.add(batch)
    return sketcher.sketch()


class ExactIfmr:
    """AMCT's search on all values, float64."""

    def __init__(self, values: np.ndarray, setting: Ifmr, *, symmetric: bool) -> None:
        self.values = np.sort(values.astype(np.float64))
        n = len(values)
        k_max, k_min = (
            1 if p == 1 else n - math.floor(p * n) for p in (setting.max_percentile, setting.min_percentile)
        )
        self.max = max(self.values[-k_max], 0.0)
        self.min = min(self.values[k_min - 1], 0.0)
        self.symmetric = symmetric
        steps = round((setting.search_end - setting.search_start) / setting.search_step)
        self.ratios = [setting.search_start + i * setting.search_step for i in range(steps + 1)]

    def loss(self, ratio: float) -> float:
        if self.symmetric:
            reach = ratio * max(self.max, -self.min)
            low, high = -reach, reach
            scale = reach / 127 if self.max > -self.min else reach / 128
        else:
            low, high = self.min, ratio * self.max
            scale = (high - low) / 255
        return float(np.mean((np.round(np.clip(self.values, low, high) / scale) * scale - self.values) ** 2))

    def ratio_of(self, found: Range) -> float:
        if self.symmetric and -self.min >= self.max:
            return found.low / self.min
        return found.high / self.max


@pytest.mark.parametrize("symmetric", [False, True], ids=["asymmetric", "symmetric"])
@pytest.mark.parametrize("setting", [Ifmr(), Ifmr(max_percentile=0.999, min_percentile=0.999)], ids=["default", "clip"])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_ifmr_against_all_values(name: str, setting: Ifmr, symmetric: bool):
    values = DISTRIBUTIONS[name]
    exact = ExactIfmr(values, setting, symmetric=symmetric)
    found = setting(sketched(values), symmetric=symmetric)
    if exact.max == 0.0 and not symmetric:
        assert found.high == 0.0 and found.low == pytest.approx(exact.min, rel=1e-3)
        return
    losses = [exact.loss(ratio) for ratio in exact.ratios]
    best = exact.ratios[int(np.argmin(losses))]
    ratio = exact.ratio_of(found)
    same = ratio == pytest.approx(best, abs=0.002)
    assert same or exact.loss(ratio) <= 1.01 * min(losses), (ratio, best)


def test_ifmr_of_an_image_is_exact():
    """Values k / 255 have no error at all at ratio 1."""
    found = Ifmr()(sketched(DISTRIBUTIONS["image"]), symmetric=False)
    assert (found.low, found.high) == (0.0, pytest.approx(1.0, abs=1e-12))


def test_ifmr_moves_only_the_upper_bound_unless_symmetric():
    values = np.concatenate([DISTRIBUTIONS["normal"], np.float32([30.0, -9.0])])
    setting = Ifmr(max_percentile=1.0, min_percentile=1.0)
    asymmetric = setting(sketched(values), symmetric=False)
    assert asymmetric.low == -9.0 and asymmetric.high < 30.0
    symmetric = setting(sketched(values), symmetric=True)
    assert symmetric.high / 30.0 == pytest.approx(symmetric.low / -9.0) and symmetric.high < 30.0


def test_ifmr_takes_the_candidates_that_were_asked_for():
    setting = Ifmr(search_start=0.5, search_end=0.8, search_step=0.3)
    high = setting(sketched(DISTRIBUTIONS["relu6"]), symmetric=False).high
    assert high == pytest.approx(0.8 * 6.0)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("value", [0.0, 1e-30, 3e38], ids=["zeros", "tiny", "huge"])
def test_ifmr_without_a_legal_candidate_keeps_the_start(value: float, symmetric: bool):
    found = Ifmr()(sketched(np.full(9, value, np.float32)), symmetric=symmetric)
    assert (found.low, found.high) == (0.0, np.float32(value))


@pytest.mark.parametrize("fraction", [0.9, 0.99, 0.999, 1.0])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_percentile_against_numpy(name: str, fraction: float):
    values = DISTRIBUTIONS[name].astype(np.float64)
    sketch = sketched(DISTRIBUTIONS[name])
    found = Percentile(fraction)(sketch, symmetric=False)
    tail = (1.0 - fraction) / 2.0
    low = np.quantile(values, tail, method="lower")
    high = np.quantile(values, 1.0 - tail, method="higher")
    # A quantile may fall a hair to either side of a value: its neighbours, and a bin, are the allowance.
    ordered = np.sort(values)
    place = int(tail * len(values))
    allowance = sketch.width + max(np.diff(ordered[max(place - 2, 0) : place + 3]).max(), 0.0)
    assert found.low == pytest.approx(min(low, 0.0), abs=allowance)
    allowance = sketch.width + max(np.diff(ordered[::-1][max(place - 2, 0) : place + 3] * -1).max(), 0.0)
    assert found.high == pytest.approx(max(high, 0.0), abs=allowance)
    assert np.mean(values < found.low) <= tail + 1e-9 and np.mean(values > found.high) <= tail + 1e-9


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_minmax_is_exact(name: str):
    values = DISTRIBUTIONS[name]
    found = MinMax()(sketched(values), symmetric=False)
    assert (found.low, found.high) == (min(values.min(), 0.0), max(values.max(), 0.0))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("kind", RANGES.values(), ids=RANGES)
@pytest.mark.parametrize("values", [[-3.0, -1.0], [1.0, 3.0], [0.0], [-2.0, 5.0]])
def test_every_algorithm_gives_a_finite_range_around_zero(kind: Callable, values: list[float], symmetric: bool):
    found = kind()(sketched(np.float32(values)), symmetric=symmetric)
    assert -math.inf < found.low <= 0.0 <= found.high < math.inf
    assert kind() == kind() and hash(kind()) == hash(kind())


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        (Percentile, {"fraction": 0.5}, "fraction must be greater than 0.5 and at most 1, got 0.5"),
        (Percentile, {"fraction": 1.1}, "fraction must be"),
        (Percentile, {"fraction": math.nan}, "fraction must be"),
        (Ifmr, {"max_percentile": 0.5}, "max_percentile must be"),
        (Ifmr, {"min_percentile": math.nan}, "min_percentile must be"),
        (Ifmr, {"search_start": 0.0}, "search_range must be 0 < start < end"),
        (Ifmr, {"search_end": 0.7}, "search_range must be 0 < start < end"),
        (Ifmr, {"search_end": math.inf}, "search_range must be 0 < start < end"),
        (Ifmr, {"search_start": math.nan}, "search_range must be 0 < start < end"),
        (Ifmr, {"search_step": 0.0}, "search_step must be in"),
        (Ifmr, {"search_step": 0.7}, "search_step must be in"),
        (Ifmr, {"search_step": math.nan}, "search_step must be in"),
    ],
)
def test_bad_parameters(kind: Callable, parameters: dict, message: str):
    with pytest.raises(ValueError, match=message):
        kind(**parameters)
