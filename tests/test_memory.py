"""Memory that goes back to the system: only where there is much."""

from __future__ import annotations

import gc

import pytest

from autoquant.memory import LEAST, release_memory


class Ring:
    """Refers to itself, so that Python frees it late."""

    def __init__(self) -> None:
        self.self = self


@pytest.mark.parametrize(("size", "freed"), [(LEAST - 1, False), (LEAST, True)])
def test_what_is_large_is_freed_at_once(size: int, freed: bool) -> None:
    gc.disable()
    try:
        rings = sum(isinstance(one, Ring) for one in gc.get_objects())
        Ring()
        release_memory(size)
        assert (sum(isinstance(one, Ring) for one in gc.get_objects()) <= rings) is freed
    finally:
        gc.enable()
        gc.collect()
