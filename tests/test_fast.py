"""Which tests are fast is said of every file and folder of the tests, whatever lies there besides code."""

from __future__ import annotations

from pathlib import Path

from fast_tests import TESTS, is_fast, loads_heavy


def test_every_place_can_be_asked() -> None:
    places = [TESTS, *TESTS.rglob("*")]
    assert any(place.suffix == ".npz" for place in places)
    assert {loads_heavy(place) for place in places} == {True, False}


def test_what_a_test_asks_for_makes_it_slow() -> None:
    assert is_fast("test_every_place_can_be_asked", Path(__file__))
    assert not is_fast("test_the_reference_is_current", TESTS / "guide" / "test_guide.py")
    assert not is_fast("test_inspect", TESTS / "test_api.py")
