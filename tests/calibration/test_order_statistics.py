from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from autoquant.calibration.distribution import Distribution, Exact
from autoquant.calibration.ranges import Ifmr, MinMax, Percentile
from autoquant.calibration.sketcher import Sketcher
from autoquant.quantization.affine import Range


@pytest.mark.parametrize("fraction", [0.9, 0.99, 0.999, 1.0])
def test_percentile_against_numpy(see: Callable[..., Distribution], values: NDArray[Any], fraction: float) -> None:
    found = Percentile(fraction)(see(values), symmetric=False)
    tail = (1.0 - fraction) / 2.0
    ordered = np.sort(values.astype(np.float64))
    bin_ = (ordered[-1] - ordered[0]) / 2**13
    # A quantile may fall a hair to either side of a value: its neighbours, and a bin of the sketch, are the allowance.
    for sign, bound in ((1.0, found.low), (-1.0, found.high)):
        side = np.sort(sign * ordered)
        place = int(tail * len(side))
        gap = np.diff(side[max(place - 2, 0) : place + 3]).max()
        expected = min(np.quantile(side, tail, method="lower"), 0.0)
        assert sign * bound == pytest.approx(expected, abs=bin_ + gap)
        assert np.mean(side < sign * bound) <= tail + 1e-9


def test_minmax_is_exact(see: Callable[..., Distribution], values: NDArray[Any]) -> None:
    found = MinMax()(see(*np.array_split(values, 3)), symmetric=False)
    assert (found.low, found.high) == (min(values.min(), 0.0), max(values.max(), 0.0))


@pytest.mark.parametrize("fraction", [0.5, 1.1, -1.0, math.nan])
def test_bad_fractions(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"fraction must be greater than 0\.5 and less than or equal to 1\.0, got"):
        Percentile(fraction)


SETTINGS = {
    "default": Ifmr(),
    "clipped": Ifmr(max_percentile=0.999, min_percentile=0.99),
    "coarse": Ifmr(1.0, 1.0, search_start=0.25, search_end=1.5, search_step=0.125),
}
symmetric_or_not = pytest.mark.parametrize("symmetric", [False, True], ids=["asymmetric", "symmetric"])
each_setting = pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)


class Reference:
    """AMCT's search as it is described, on all values, float64, one candidate after the other."""

    def __init__(self, values: np.ndarray, setting: Ifmr, *, symmetric: bool) -> None:
        self.values = values.astype(np.float64)
        ordered, n = np.sort(self.values), len(values)
        k_max, k_min = (
            1 if p == 1 else n - math.floor(p * n) for p in (setting.max_percentile, setting.min_percentile)
        )
        self.max = max(ordered[n - k_max], 0.0)
        self.min = min(ordered[k_min - 1], 0.0)
        self.symmetric = symmetric
        steps = round((setting.search_end - setting.search_start) / setting.search_step)
        self.ratios = [setting.search_start + i * setting.search_step for i in range(steps + 1)]
        self.losses = [self.loss(self.range_of(ratio)) for ratio in self.ratios]

    def loss(self, candidate: Range) -> float:
        clip_min, clip_max = candidate.low, candidate.high
        scale = (clip_max - clip_min) / 255
        if self.symmetric:
            reach = max(abs(clip_max), abs(clip_min))
            scale = reach / 127 if abs(clip_max) > abs(clip_min) else reach / 128
            clip_min, clip_max = -reach, reach
        rounded = np.round(np.clip(self.values, clip_min, clip_max) / scale) * scale
        return float(np.mean((rounded - self.values) ** 2))

    def range_of(self, ratio: float) -> Range:
        return Range(self.min * (ratio if self.symmetric else 1.0), self.max * ratio)

    def best(self) -> Range:
        """The first candidate of least loss; what only rounding to float64 makes less is no less."""
        noise = 1e-12 * float(np.mean(self.values**2))
        place = next(i for i, loss in enumerate(self.losses) if loss <= min(self.losses) + noise)
        return self.range_of(self.ratios[place])


REFERENCES: dict[tuple[bytes, Ifmr, bool], Reference] = {}


def reference_of(values: np.ndarray, setting: Ifmr, *, symmetric: bool) -> Reference:
    """The one of these values, which several tests ask for."""
    key = (values.tobytes(), setting, symmetric)
    if key not in REFERENCES:
        REFERENCES[key] = Reference(values, setting, symmetric=symmetric)
    return REFERENCES[key]


@symmetric_or_not
@each_setting
def test_all_values_give_the_candidate_of_the_reference(
    exact: Callable[..., Distribution], values: NDArray[Any], setting: Ifmr, symmetric: bool
) -> None:
    found = setting(exact(*np.array_split(values, 3)), symmetric=symmetric)
    expected = reference_of(values, setting, symmetric=symmetric).best()
    assert found.low == pytest.approx(expected.low, rel=1e-12)
    assert found.high == pytest.approx(expected.high, rel=1e-12)


@symmetric_or_not
@each_setting
def test_a_sketch_gives_one_that_is_as_good(
    sketched: Callable[..., Distribution], values: NDArray[Any], setting: Ifmr, symmetric: bool
) -> None:
    found = setting(sketched(*np.array_split(values, 3)), symmetric=symmetric)
    reference = reference_of(values, setting, symmetric=symmetric)
    low, high = np.array([(r.low, r.high) for r in map(reference.range_of, reference.ratios)]).T
    place = int((np.abs(low - found.low) + np.abs(high - found.high)).argmin())
    bin_ = (float(values.max()) - float(values.min())) / 2**13
    assert found.low == pytest.approx(low[place], abs=2 * bin_)
    assert found.high == pytest.approx(high[place], abs=2 * bin_)
    assert reference.loss(found) <= 1.01 * min(reference.losses) + 1e-9 * np.mean(reference.values**2)


@symmetric_or_not
@given(values=st.lists(st.floats(-8.0, 8.0, width=32), min_size=1, max_size=30))
def test_any_values(values: list[float], symmetric: bool) -> None:
    array = np.sort(np.array(values, np.float32))
    if np.abs(array).max() < 1e-3:
        array = np.append(array, np.float32(1.0))  # far from scales that are too small
    reference = Reference(array, Ifmr(), symmetric=symmetric)
    found = Ifmr()(Exact(array), symmetric=symmetric)
    # Among few values candidates may be equal but for the rounding of float64.
    assert reference.loss(found) <= min(reference.losses) * (1 + 1e-9) + 1e-11 * max(float(np.mean(array**2)), 1e-3)


@pytest.mark.parametrize("step", [0, 1, 29, 59, 60])
def test_there_are_61_candidates(exact: Callable[..., Distribution], step: int) -> None:
    """Many values at a hundred levels of one candidate, and the largest value, from which candidates are counted."""
    ratio = 0.7 + 0.01 * step
    values = np.append(np.repeat(np.arange(1, 101) * ratio / 255.0, 2000), 1.0)
    assert Ifmr()(exact(values), symmetric=False).high == pytest.approx(ratio, rel=1e-12)


def test_an_image_is_exact(see: Callable[..., Distribution]) -> None:
    """Values k / 255 have no error at all at ratio 1."""
    found = Ifmr()(see(np.random.default_rng(0).integers(0, 256, size=5000) / 255.0), symmetric=False)
    assert found.high == pytest.approx(1.0, abs=1e-12)
    assert found.low == 0.0


def test_one_hot_inputs_take_the_first_ratio_without_error(see: Callable[..., Distribution]) -> None:
    """So do 1.02 and 1.25, whose steps are 1 / 250 and 1 / 204."""
    assert Ifmr()(see([0.0] * 999, [1.0]), symmetric=False).high == pytest.approx(1.0, abs=1e-12)


def test_only_the_upper_bound_moves_unless_symmetric(see: Callable[..., Distribution]) -> None:
    values = np.append(np.random.default_rng(0).laplace(size=40_000), [20.0, -15.0])
    setting = Ifmr(max_percentile=1.0, min_percentile=1.0)
    asymmetric = setting(see(values), symmetric=False)
    assert asymmetric.low == -15.0 and asymmetric.high < 19.0
    symmetric = setting(see(values), symmetric=True)
    assert symmetric.high < 19.0 and symmetric.high / 20.0 == pytest.approx(symmetric.low / -15.0)


@pytest.mark.parametrize(("fraction", "low", "high"), [(1.0, -1000.0, 999.0), (0.75, -501.0, 500.0)])
def test_percentiles_are_where_it_starts(
    exact: Callable[..., Distribution], fraction: float, low: float, high: float
) -> None:
    """Of 2000 values the (2000 - 1500)-th largest and smallest; both candidates are multiples of that."""
    found = Ifmr(fraction, fraction, search_start=1.0, search_end=1.5, search_step=0.5)(
        exact(np.arange(-1000.0, 1000.0)), symmetric=False
    )
    assert found.low == low and found.high in (high, 1.5 * high)


@symmetric_or_not
@pytest.mark.parametrize("value", [0.0, 1e-30, 3e38], ids=["zeros", "tiny", "huge"])
def test_without_a_legal_candidate_the_start_is_kept(
    see: Callable[..., Distribution], value: float, symmetric: bool
) -> None:
    found = Ifmr()(see([value] * 9), symmetric=symmetric)
    assert found.high == np.float32(value)
    assert found.low == 0.0


def test_a_candidate_without_a_legal_scale_does_not_win(see: Callable[..., Distribution]) -> None:
    """Of two candidates that are too small or too large for a scale, only the other is left."""
    small, large = 255 * 2.0**-23, 255 * 2.0**23
    setting = Ifmr(search_start=0.5, search_end=1.5, search_step=1.0)
    assert setting(see([small]), symmetric=False).high == 1.5 * small
    assert setting(see([large]), symmetric=False).high == 0.5 * large


def test_relu6_of_the_published_record_lies_on_the_grid(real_data: Path) -> None:
    """35 layers of MobileNetV2 read a ReLU6: scales are k * 6 / 255 with k on the grid of 0.01; most keep k = 1."""
    text = (real_data / "mobilenet_v2_record.txt").read_text(encoding="utf-8")
    pairs = re.findall(r"scale_d: (\S+)\s+offset_d: (\S+)", text)
    assert len(pairs) == 54
    ratios = [float(scale) * 255 / 6 for scale, offset in pairs if offset == "-128"]
    grid = Ifmr().ratios
    near = [ratio for ratio in ratios if np.abs(grid - ratio).min() < 1e-6]
    assert len(near) == 35
    assert {round(ratio, 2) for ratio in near} == {0.97, 0.98, 0.99, 1.0, 1.02}
    assert sum(abs(ratio - 1.0) < 1e-6 for ratio in near) == 21


def test_the_input_of_a_relu6_has_the_published_scale() -> None:
    """Where a share of the values is clipped to six, as in MobileNetV2, the ratio is one of those published."""
    rng, ratios = np.random.default_rng(0), set()
    for spread in (2.0, 3.0, 4.0):
        sketcher = Sketcher()
        sketcher.add(np.clip(rng.normal(0.0, spread, size=200_000), 0.0, 6.0).astype(np.float32))
        ratios.add(round(Ifmr()(sketcher.distribution(), symmetric=False).high / 6.0, 2))
    assert ratios <= {0.97, 0.98, 0.99, 1.0, 1.02}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_percentile": 0.5}, "max_percentile must be greater than 0.5 and less than or equal to 1.0, got 0.5"),
        ({"min_percentile": math.nan}, "min_percentile must be"),
        ({"search_start": 0.0}, r"search_range\[0\] must be greater than zero, got \[0.0, 1.3\]"),
        ({"search_end": 0.7}, r"search_range\[0\] must be less than search_range\[1\], got \[0.7, 0.7\]"),
        ({"search_end": math.inf}, r"search_range\[0\] must be less than search_range\[1\]"),
        ({"search_start": math.nan}, r"search_range\[0\] must be greater than zero"),
        ({"search_step": 0.0}, "search_step must be greater than zero, got 0.0"),
        ({"search_step": 0.7}, r"search_step must be less than or equal to \(.*\), got 0.7 of \[0.7, 1.3\]"),
        ({"search_step": math.inf}, "search_step must be less than or equal to"),
        ({"search_step": math.nan}, "search_step must be greater than zero"),
        ({"search_step": 5.9e-6}, r"search_step 5.9e-06 divides \[0.7, 1.3\] into more than 100,000 steps: to try"),
        ({"search_step": 5e-324, "search_end": 1e308}, "into more than 100,000 steps"),
    ],
)
def test_bad_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ifmr(**parameters)
