"""Cost that grows with the work: how much a trial, a layer, a sample more takes. Ratios, counts and CPU seconds.

    python tests/benchmarks/growth.py [SECTION ...]

Each section is a file of its own beside this one, `growth_<section>.py`, whose `rows()` are printed as they are found.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import growth_architectures
import growth_layers
import growth_outputs
import growth_samples
import growth_trials

SECTIONS: Mapping[str, Callable[[], Iterator[str]]] = MappingProxyType(
    {
        "trials": growth_trials.rows,
        "layers": growth_layers.rows,
        "samples": growth_samples.rows,
        "outputs": growth_outputs.rows,
        "architectures": growth_architectures.rows,
    }
)
"""Name -> what prints its rows, a line each."""


def main(words: Sequence[str] | None = None) -> None:
    """Print the sections that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all without any")
    chosen = parser.parse_args(words).sections or list(SECTIONS)
    unknown = [name for name in chosen if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    for name in chosen:
        print(f"\n{name}")
        for row in SECTIONS[name]():
            print(f"  {row}", flush=True)


if __name__ == "__main__":
    main()
