from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from autoquant.calibration.channels import CHANNEL_BINS, ChannelCollector, Channels, collect_moments
from autoquant.calibration.counting import BLOCK
from autoquant.calibration.distribution import Distribution, Exact
from autoquant.calibration.ranges import Ifmr, MinMax
from autoquant.calibration.sketch import Sketch
from autoquant.calibration.sketcher import Sketcher
from autoquant.errors import TrialError

RNG = np.random.default_rng(5)
SPREAD = 2.0 ** RNG.integers(-6, 7, size=12)
BATCHES = [(RNG.normal(size=(n, 5, 5, 12)) * SPREAD).astype(np.float32) for n in (40, 60)]
KINDS = pytest.mark.parametrize("exact", [False, True], ids=["sketch", "exact"])


VALUE = st.floats(width=32) | st.floats(-8.0, 8.0, width=32) | st.sampled_from([0.0, -0.0, 1e-45, -1e-45, 1.0])
CHANNELS = st.integers(1, 4)


@st.composite
def batches_of_channels(draw: st.DrawFn) -> list[np.ndarray]:
    """Batches (samples, channels), some empty; a channel draws all its values from a few, or has a single one."""
    few = [draw(st.lists(VALUE, min_size=1, max_size=6)) for _ in range(draw(CHANNELS))]
    sizes = draw(st.lists(st.integers(0, 5), max_size=4))
    rows = [[draw(st.lists(st.sampled_from(of), min_size=n, max_size=n)) for of in few] for n in sizes]
    return [np.array(row, np.float32).reshape(len(few), -1).T for row in rows]


def collected(batches: list[Any], axis: int = -1, *, exact: bool = False) -> Channels:
    collector = ChannelCollector("x", axis, exact=exact)
    for batch in batches:
        collector.add(batch)
    return collector.channels()


@KINDS
@pytest.mark.parametrize("axis", [-1, 1])
def test_each_channel_is_seen_by_itself(axis: int, exact: bool) -> None:
    batches = BATCHES if axis == -1 else [np.moveaxis(batch, -1, 1) for batch in BATCHES]
    channels = collected(batches, axis, exact=exact)
    rows = np.concatenate([np.moveaxis(batch, -1, 0).reshape(12, -1) for batch in BATCHES], axis=1)
    assert len(channels.each) == 12
    np.testing.assert_array_equal(channels.largest, np.abs(rows).max(axis=1))
    for seen, row in zip(channels.each, rows, strict=True):
        assert (seen.low, seen.high, seen.count) == (row.min(), row.max(), row.size)
        assert exact == isinstance(seen, Exact) and (exact or len(seen.values()[0]) <= CHANNEL_BINS + 2)


def facts(sketch: Distribution) -> dict[str, Any]:
    assert isinstance(sketch, Sketch)
    return {**dataclasses.asdict(sketch), "counts": sketch.counts.tolist(), "near": None}  # channels have no such bins


def sketched(rows: list[np.ndarray]) -> Sketch:
    sketcher = Sketcher(bins=CHANNEL_BINS)
    for row in rows:
        sketcher.add(row)
    return sketcher.distribution()


@given(batches_of_channels(), st.randoms())
@example(
    [np.array([[-1e-45, 1.0]], np.float32), np.array([[-1e6, 1.0]], np.float32), np.array([[-3.0, 2.0]], np.float32)],
    None,
)
@example([np.array([[0.0, 3e38]], np.float32), np.array([[1e30, -3e38], [np.nan, 0.0]], np.float32)], None)
def test_channels_are_those_of_sketches_of_their_own(batches: list[np.ndarray], random: Any) -> None:
    """No channel has to do with another, and neither order nor batches matter."""
    channels = collected(batches)
    for index, seen in enumerate(channels.each):
        assert facts(seen) == facts(sketched([batch[:, index] for batch in batches]))
    samples = [batch[i : i + 1] for batch in batches for i in range(len(batch))]
    if random is not None:
        random.shuffle(samples)
    if samples:
        assert [facts(seen) for seen in collected(samples).each] == [facts(seen) for seen in channels.each]


@pytest.mark.parametrize("shape", [(3, BLOCK // 2, 3), (7, 2, 4000), (2, 300, 1000)], ids=["long", "short", "wide"])
def test_tensors_that_are_counted_in_blocks(shape: tuple[int, ...]) -> None:
    """Against NumPy, on the edges that the sketch has; a value beyond the rest comes in the last block."""
    values = RNG.normal(size=shape).astype(np.float32)
    values[-1, -1, ::2] = 1000.0
    for seen, row in zip(collected([values]).each, np.moveaxis(values, -1, 0).astype(np.float64), strict=True):
        assert isinstance(seen, Sketch)
        edges = (seen.first + np.arange(len(seen.counts) + 2)) * seen.width  # one more: the last is closed in NumPy
        np.testing.assert_array_equal([*seen.counts, 0], np.histogram(row, edges)[0])
        assert (seen.low, seen.high) == (row.min(), row.max())


def test_the_number_of_channels_stays() -> None:
    collector = ChannelCollector("x", -1)
    collector.add(np.zeros((2, 1), np.float32))
    with pytest.raises(ValueError, match="there are 1 columns, got 5"):
        collector.add(np.zeros((2, 5), np.float32))


@KINDS
def test_divided_channels_against_divided_values(exact: bool) -> None:
    """The range of the whole tensor, each channel divided by its factor, as if the values themselves had been."""
    factors = (SPREAD * RNG.uniform(0.8, 1.2, size=12)).astype(np.float32)
    divided = (np.concatenate(BATCHES) / factors.astype(np.float64)).astype(np.float32)
    seen = collected(BATCHES, exact=exact).divided(factors)
    assert (seen.low, seen.high, seen.count) == (divided.min(), divided.max(), divided.size)
    assert MinMax()(seen, symmetric=False).high == divided.max()
    if exact:
        np.testing.assert_array_equal(seen.values()[0], np.sort(divided.ravel()))
    all_values = Exact(np.sort(divided.ravel()))
    for symmetric in (False, True):
        found, expected = (Ifmr()(one, symmetric=symmetric) for one in (seen, all_values))
        assert found.high == pytest.approx(expected.high, rel=1e-12 if exact else 0.025)


@KINDS
def test_nonfinite_values_stay_known(exact: bool) -> None:
    batch = BATCHES[0].copy()
    batch[0, 0, 0, :3] = np.nan
    batch[1, 1, 1, 3] = -np.inf
    channels = collected([batch], exact=exact)
    assert [one.nonfinite for one in channels.each[:5]] == [1, 1, 1, 1, 0]
    seen = channels.divided(np.ones(12))
    assert (seen.nonfinite, seen.count) == (4, batch.size - 4)


@KINDS
def test_nothing_seen(exact: bool) -> None:
    assert collected([], exact=exact).each == ()
    empty = collected([np.zeros((0, 3), np.float32)], exact=exact)
    assert empty.largest.tolist() == [0.0] * 3
    assert empty.divided(np.ones(3)).count == 0


def test_the_limit_is_for_all_channels_together() -> None:
    collector = ChannelCollector("conv1", -1, exact=True, limit=100)
    collector.add(np.zeros((10, 10), np.float32))
    with pytest.raises(TrialError, match="conv1: calibration is too large"):
        collector.add(np.zeros((1, 10), np.float32))


@pytest.mark.parametrize("axis", [1, -1])
def test_moments_of_parts_of_any_size_are_seen_as_a_whole(axis: int) -> None:
    values = np.random.default_rng(0).normal(size=(9, 3, 4, 5)).astype(np.float32)
    parts = ({"t": part, "other": part} for part in np.split(values, [2, 3]))
    found = collect_moments(parts, {"t": axis})
    rows = np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis]).astype(np.float64)
    assert found.keys() == {"t"}
    np.testing.assert_array_equal(found["t"].low, rows.min(axis=0))
    np.testing.assert_array_equal(found["t"].high, rows.max(axis=0))
    np.testing.assert_allclose(found["t"].mean, rows.mean(axis=0), rtol=1e-12, atol=1e-12)


def test_a_mean_of_many_values_is_not_rounded_away() -> None:
    ones = np.ones((1 << 14, 1), np.float32)
    found = collect_moments(({"t": ones * np.float32(0.1)} for _ in range(1 << 11)), {"t": -1})
    assert found["t"].mean == pytest.approx(float(np.float32(0.1)), rel=1e-12)


def test_an_empty_tensor_is_left_out() -> None:
    assert collect_moments([{"t": np.zeros((0, 3), np.float32)}], {"t": -1}) == {}
