"""How often the asymptotic test is wrong, at the stated rate, and what it takes, by the distribution of the values.

    python tests/benchmarks/asymptotic_error.py [--runs 2000] [--alphas 0.05,0.003,0.0003] [--sizes 300,1000,4000]

Each run draws all values anew, with their mean as the largest drop within tolerance: whatever is decided is wrong, and
each of the two decisions has the whole rate to err. The rates are those of trials 0, 2 and 9 of a run, roughly. A line
for each rate, number of samples and distribution, with the share of runs in which each was decided. `rare` are values
of which one in a hundred, or in twenty, is a hundred times as large: 100 samples may hold none.

Then what it takes to decide a mean that is a quarter of a standard deviation away: the median share of all samples, and
that of an asymptotic confidence sequence (Waudby-Smith et al., arXiv:2103.06476, equation 8, with rho^2 of the widest
margin at 200 samples), which is for values drawn with replacement.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.evaluation.scoring.stopping import FIRST_CHECK, GROWTH
from autoquant.evaluation.statistics.asymptotic import FEWEST, AsymptoticTest, checks_of
from autoquant.evaluation.statistics.sequential import Decision
from autoquant.evaluation.statistics.stream_order import check_points

Draw = Callable[[Any, int], Array]
DRAWS: Mapping[str, Draw] = {
    "normal": lambda random, count: random.normal(size=count),
    "t, 3 degrees": lambda random, count: random.standard_t(3, size=count),
    "lognormal": lambda random, count: random.lognormal(size=count),
    "lognormal, 1.5": lambda random, count: random.lognormal(0.0, 1.5, size=count),
    "-lognormal": lambda random, count: -random.lognormal(size=count),
    "-lognormal, 1.5": lambda random, count: -random.lognormal(0.0, 1.5, size=count),
    "rare, 1 in 20": lambda random, count: _rare(random, count, 0.05),
    "rare, 1 in 100": lambda random, count: _rare(random, count, 0.01),
}
EFFECT, TUNED = 0.25, 200


def _rare(random: Any, count: int, share: float) -> Array:
    """Values near 0, of which a share gains much: what is decided before one was seen is too pessimistic."""
    return np.asarray(0.1 * random.normal(size=count) - 10.0 * (random.random(count) < share))


def decided(values: Array, max_drop: float, alpha: float) -> tuple[Decision, int]:
    """What is decided of values in this order, and after how many."""
    stops = list(check_points(len(values), first=FIRST_CHECK, growth=GROWTH))
    test = AsymptoticTest(max_drop, population=len(values), checks=checks_of(stops, len(values)), alpha=alpha)
    for start, stop in zip([0, *stops], stops, strict=False):
        test.add(values[start:stop])
        if test.decision is not Decision.UNDECIDED:
            return test.decision, stop
    return Decision.UNDECIDED, len(values)


def by_sequence(values: Array, max_drop: float, alpha: float) -> int:
    """After how many values an asymptotic confidence sequence has decided, or all."""
    rho = math.sqrt((-2.0 * math.log(2.0 * alpha) + math.log(-2.0 * math.log(2.0 * alpha)) + 1.0) / TUNED)
    for stop in check_points(len(values), first=FIRST_CHECK, growth=GROWTH):
        seen = values[:stop]
        spent = stop * rho**2 + 1.0
        half = seen.std() * math.sqrt(2.0 * spent / (stop * rho) ** 2 * math.log(math.sqrt(spent) / (2.0 * alpha)))
        if stop >= FEWEST and abs(seen.mean() - max_drop) > half:
            return stop
    return len(values)


def main(words: Sequence[str] | None = None, write: Callable[[str], None] = print) -> None:
    """Simulate, and write a table, a line at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--alphas", default="0.05,0.003,0.0003")
    parser.add_argument("--sizes", default="300,1000,4000")
    arguments = parser.parse_args(words)
    random, sizes = np.random.default_rng(0), list(map(int, arguments.sizes.split(",")))
    write("| rate | samples | values | wrongly exceeded | wrongly within |")
    write("|---|---|---|---|---|")
    for alpha in map(float, arguments.alphas.split(",")):
        for size in sizes:
            for name, draw in DRAWS.items():
                found = Counter[Decision]()
                for _ in range(arguments.runs):
                    values = draw(random, size)
                    found[decided(values, float(values.mean()), alpha)[0]] += 1
                shares = (found[side] / arguments.runs for side in (Decision.EXCEEDED, Decision.WITHIN))
                write(f"| {alpha:g} | {size} | {name} | " + " | ".join(f"{share:.4f}" for share in shares) + " |")
    write("| rate | samples | needed | of a confidence sequence |")
    write("|---|---|---|---|")
    for alpha in map(float, arguments.alphas.split(",")):
        for size in sizes:
            taken = []
            for _ in range(min(arguments.runs, 200)):
                values = random.normal(size=size)
                limit = float(values.mean()) - EFFECT
                taken.append((decided(values, limit, alpha)[1] / size, by_sequence(values, limit, alpha) / size))
            own, other = np.median(np.array(taken), axis=0)
            write(f"| {alpha:g} | {size} | {own:.2f} | {other:.2f} |")


if __name__ == "__main__":
    main()
