"""How often bounds of 95 % hold where samples come in units: betting on units, and a cluster-robust t test beside it.

    python tests/benchmarks/unit_coverage.py [--runs 400]

Units have 5 to 55 samples and a true drop of 1 %: one unit in 50 loses half of its samples (`collapse`), or the share
that is lost is drawn from a beta distribution (0.1, 9.9) for each (`beta`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from scipy.stats import t as student

from autoquant.array import Array
from autoquant.evaluation.statistics.units import Units, unit_upper

TRUE, ALPHA, SMALLEST, LARGEST = 0.01, 0.05, 5, 55
SHARES: dict[str, Callable[[np.random.Generator, int], Array]] = {
    "collapse": lambda random, units: np.where(random.random(units) < 0.02, 0.5, 0.0),
    "beta": lambda random, units: random.beta(0.1, 9.9, units),
}


def robust_upper(drops: Array, units: Units) -> float:
    """Of the ratio of sums to sizes, with the variance of residuals by unit and a t distribution of G - 1 degrees."""
    sums, sizes = units.sums(drops)
    count, ratio = len(units), float(sums.sum() / sizes.sum())
    deviation = np.sqrt(count / (count - 1) * np.square(sums - ratio * sizes).sum()) / sizes.sum()
    return ratio + float(student.ppf(1.0 - ALPHA, count - 1)) * float(deviation)


def main() -> None:
    """Simulate, and write a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400)
    runs = parser.parse_args().runs
    random = np.random.default_rng(0)
    for case, shares in SHARES.items():
        for count in (10, 20, 50, 200, 400):
            uppers = []
            for _ in range(runs):
                sizes = random.integers(SMALLEST, LARGEST + 1, count)
                drops = (random.random(sizes.sum()) < np.repeat(shares(random, count), sizes)).astype(np.float64)
                units = Units(np.repeat(np.arange(count), sizes), LARGEST)
                uppers.append((unit_upper(drops, units, bound=1.0, alpha=ALPHA), robust_upper(drops, units)))
            found = np.asarray(uppers)
            held, width = (found >= TRUE).mean(axis=0), np.median(found, axis=0)
            print(
                f"{case:9}{count:5} units: betting holds {held[0]:.3f} (median {width[0]:.4f}), "
                f"t test {held[1]:.3f} ({width[1]:.4f})"
            )


if __name__ == "__main__":
    main()
