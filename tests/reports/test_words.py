import pytest

from autoquant.pulse import duration
from autoquant.reports.words import counted, macs, number, percent


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.91499, "0.9150"),
        (33.12346, "33.1235"),
        (-0.0022222, "-0.0022"),
        (-0.0, "0.0000"),
        (2.2e-16, "0.0000"),
        (0.00085275, "0.000853"),
    ],
)
def test_numbers_have_four_decimals_or_three_digits(value: float, words: str) -> None:
    assert number(value) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "0.0s"), (9.94, "9.9s"), (9.96, "10s"), (59.6, "1m00s"), (200, "3m20s"), (3599.7, "1h00m"), (7500, "2h05m")],
)
def test_durations_are_written_as_timeout_takes_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"), [(None, "unknown"), (812, "812"), (2_656_768, "2.7 M"), (10**9, "1.0 G"), (1500, "1.5 k")]
)
def test_multiply_adds_are_short(count: int | None, words: str) -> None:
    assert macs(count) == words


def test_shares_are_percent_and_things_are_counted() -> None:
    assert percent(0.98765) == "98.8%"
    assert (counted(1, "batch"), counted(1200, "batch"), counted(0, "layer")) == (
        "1 batch",
        "1,200 batches",
        "0 layers",
    )
