from __future__ import annotations

from fleet import searched


def test_trials_that_sleep_are_all_carried_out_once() -> None:
    found = searched(2, 4, seconds=0.05, layers=6, sampler="random")
    assert (found.trials, found.numbers) == (4, 4) and found.workers > 0.0
