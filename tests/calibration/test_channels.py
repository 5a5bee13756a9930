import numpy as np
import pytest

from autoquant.calibration.channels import CHANNEL_BINS, ChannelCollector
from autoquant.calibration.exact import Exact
from autoquant.calibration.ranges import Ifmr, MinMax
from autoquant.errors import TrialError

RNG = np.random.default_rng(5)
SPREAD = 2.0 ** RNG.integers(-6, 7, size=12)
BATCHES = [(RNG.normal(size=(n, 5, 5, 12)) * SPREAD).astype(np.float32) for n in (40, 60)]
KINDS = pytest.mark.parametrize("exact", [False, True], ids=["sketch", "exact"])


def collected(batches: list, axis: int = -1, *, exact: bool = False):
    collector = ChannelCollector("x", axis, exact=exact)
    for batch in batches:
        collector.add(batch)
    return collector.seen()


@KINDS
@pytest.mark.parametrize("axis", [-1, 1])
def test_each_channel_is_seen_by_itself(axis: int, exact: bool):
    batches = BATCHES if axis == -1 else [np.moveaxis(batch, -1, 1) for batch in BATCHES]
    channels = collected(batches, axis, exact=exact)
    rows = np.concatenate([np.moveaxis(batch, -1, 0).reshape(12, -1) for batch in BATCHES], axis=1)
    assert len(channels.each) == 12
    np.testing.assert_array_equal(channels.largest, np.abs(rows).max(axis=1))
    for seen, row in zip(channels.each, rows, strict=True):
        assert (seen.low, seen.high, seen.count) == (row.min(), row.max(), row.size)
        assert exact == isinstance(seen, Exact) and (exact or len(seen.values()[0]) <= CHANNEL_BINS + 2)


@KINDS
def test_divided_channels_against_divided_values(exact: bool):
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
def test_what_is_not_finite_stays_known(exact: bool):
    batch = BATCHES[0].copy()
    batch[0, 0, 0, :3] = np.nan
    batch[1, 1, 1, 3] = -np.inf
    channels = collected([batch], exact=exact)
    assert [one.nonfinite for one in channels.each[:5]] == [1, 1, 1, 1, 0]
    seen = channels.divided(np.ones(12))
    assert (seen.nonfinite, seen.count) == (4, batch.size - 4)


@KINDS
def test_nothing_seen(exact: bool):
    assert collected([], exact=exact).each == ()
    empty = collected([np.zeros((0, 3), np.float32)], exact=exact)
    assert empty.largest.tolist() == [0.0] * 3
    assert empty.divided(np.ones(3)).count == 0


def test_the_limit_is_for_all_channels_together():
    collector = ChannelCollector("conv1", -1, exact=True, limit=100)
    collector.add(np.zeros((10, 10), np.float32))
    with pytest.raises(TrialError, match="conv1: calibration is too large"):
        collector.add(np.zeros((1, 10), np.float32))
