"""Small rows of growth.py that count, whatever the machine."""

from __future__ import annotations

import growth
import pytest
from growth_trials import exponent, searched, writes


@pytest.mark.parametrize("layers", [3, 30])
def test_a_trial_is_written_in_as_many_pieces_whatever_the_layers(layers: int) -> None:
    """It begins; it ends, with an outcome, a constraint, a value and six attributes, in one write."""
    found = writes(layers, trials=4)
    assert (found.lines, found.fsyncs) == (11.0, 2.0)


def test_a_guided_search_is_measured() -> None:
    spent = searched(6, trials=4)
    assert 0.0 < spent.sampling < spent.total


def test_the_exponent_is_that_of_the_largest_sizes() -> None:
    assert exponent((1, 10, 100), (9.0, 1.0, 100.0)) == pytest.approx(2.0)


def test_an_unknown_section_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        growth.main(["trial"])
    assert "no section trial; there are trials" in capsys.readouterr().err
