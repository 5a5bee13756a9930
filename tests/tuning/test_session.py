"""The time of a run, by a clock of ours."""

from __future__ import annotations

import math

import pytest

from autoquant.errors import OutOfTime
from autoquant.quiet import no_progress
from autoquant.tuning.session import TimeLimit


@pytest.mark.parametrize(
    ("now", "before", "timeout", "used", "left"),
    [
        (15.0, 0.0, 8.0, 5.0, 3.0),
        (15.0, 2.0, 8.0, 7.0, 1.0),
        (15.0, 3.0, 8.0, 8.0, 0.0),
        (99.0, 0.0, 8.0, 89.0, 0.0),
        (99.0, 0.0, math.inf, 89.0, math.inf),
    ],
)
def test_time_used_and_left(now: float, before: float, timeout: float, used: float, left: float) -> None:
    limit = TimeLimit(lambda: now, begin=10.0, timeout=timeout, before=before)
    assert (limit.used(), limit.left()) == (used, left)


@pytest.mark.parametrize(
    ("timeout", "enforced", "optional", "ends"),
    [
        (5.0, False, False, False),
        (5.0, True, False, True),
        (5.0, False, True, True),
        (15.0, True, True, False),
    ],
)
def test_what_reports_ends_when_it_can(timeout: float, enforced: bool, optional: bool, ends: bool) -> None:
    limit = TimeLimit(lambda: 10.0, begin=0.0, timeout=timeout)
    report = limit.bounded(no_progress, optional=optional)
    with limit.enforced(enforced):
        if ends:
            with pytest.raises(OutOfTime):
                report(1, 2)
        else:
            report(1, 2)
    limit.check()  # no longer enforced
