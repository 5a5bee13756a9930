"""How trials that run may end: histories in which they have, so that what follows can be tried beside them."""

from __future__ import annotations

from collections.abc import Iterator

from autoquant.tuning.sampling.history import THRESHOLD, History
from autoquant.tuning.sampling.plans import Plans
from autoquant.tuning.study.trial import State

MOST = 8
"""So many histories are tried for a point at most."""


def assumptions(history: History) -> Iterator[History]:
    """The history with running trials within tolerance, none of them included, the most probable first.

    What is less likely to be within is not where what is likelier is not: of n trials n + 1 histories. Empty where it
    would change nothing: where none of them runs that gains more than the incumbent, and leaves something to be gained.
    """
    chances = _chances(history)
    order = sorted(chances, key=lambda number: (-chances[number], number))
    bounds = [1.0, *(chances[number] for number in order), 0.0]
    counts = sorted(range(len(order) + 1), key=lambda count: bounds[count + 1] - bounds[count])
    for count in counts[:MOST] if order else ():
        yield history.assuming(order[:count])


def _chances(history: History) -> dict[int, float]:
    """The number of each of these trials -> the chance that it is within tolerance."""
    found: dict[int, float] = {}
    by_settings: dict[bytes, Plans] = {}
    for place, trial in enumerate(history.trials):
        if trial.state is not State.RUNNING or trial.max_samples is not None:
            continue
        int8, codes = history.int8[place], history.codes[place]
        remains = history.total_gain - float(history.gains[place]) > THRESHOLD * history.total_gain
        if remains and history.improves(int8):
            settings = codes[history.coding.whole].tobytes()
            if settings not in by_settings:
                by_settings[settings] = Plans(history, trial.parameters, history.predictions(trial.parameters))
            plans = by_settings[settings]
            _, found[trial.number] = plans.outlook(codes)
    return found
