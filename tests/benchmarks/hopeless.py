"""How few samples it takes to see that a plan is hopeless.

    python tests/benchmarks/hopeless.py DATA_FOLDER [--models vww,kws,resnet] [--target T] [--numbers 0,1,10,50]

Plans with all layers in INT8 and settings that ruin the model, each to its degree: their ranges cut off values. Each is
carried out as several trials of a run, by number: a later one may err less often, and so has to see more. A line for
each model and plan: the drop on all samples of the search, half of the evaluation data where the other certifies, and
for each number how many samples it took until the trial was stopped. Then the medians for the model, of those plans
whose drop is at least HOPELESS times the allowed: of the search's samples, and of all evaluation data.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from opened_search import opened_search

from autoquant.calibration.plan import Plan
from autoquant.calibration.ranges import Percentile
from autoquant.errors import TrialError
from autoquant.evaluation.scoring.stopping import SequentialScore, StoppingRules
from autoquant.evaluation.statistics.sequential import alpha_of
from autoquant.tuning.session import SearchSession

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from real_cases import CASES

FRACTIONS = (0.6, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99)
"""Of the values of every activation that are kept."""
HOPELESS = 5.0


@dataclass(frozen=True)
class Cost:
    """Median shares that hopeless trials of a model take, and how many trials that were."""

    of_search: float
    of_evaluation: float
    trials: int


def main(words: Sequence[str] | None = None, write: Callable[[str], None] = print) -> dict[str, Cost]:
    """Measure and write; what is found of each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", default="vww,kws,resnet")
    parser.add_argument("--target", default="tensorflow")
    parser.add_argument("--numbers", default="0,1,10,50")
    arguments = parser.parse_args(words)
    numbers = [int(number) for number in arguments.numbers.split(",")]
    found = {}
    for name in arguments.models.split(","):
        with tempfile.TemporaryDirectory() as folder:
            session = _opened(name, arguments, Path(folder))
            found[name] = _measured(name, session, numbers, Path(folder), write)
    return found


def _opened(name: str, arguments: argparse.Namespace, folder: Path) -> SearchSession:
    case = CASES[name]
    data = arguments.folder / case.data
    return opened_search(
        arguments.folder / case.model,
        data / "evaluation.npz",
        folder / "run",
        calibration=data / "calibration.npz",
        tolerance=case.tolerance,
        target=arguments.target,
        **case.options,
    )


def _measured(
    name: str, session: SearchSession, numbers: Sequence[int], folder: Path, write: Callable[[str], None]
) -> Cost:
    subset = session.scorer.subset
    total, whole = len(subset), len(subset.baseline.score.rows)
    write(
        f"{name}: {total} samples, a drop of {session.max_drop:.4f} is allowed; trials {', '.join(map(str, numbers))}"
    )
    hopeless: list[int] = []
    for fraction in FRACTIONS:
        plan = _ruined(session, fraction)
        try:  # with a drop of 1 allowed all samples are scored
            drop = _carried_out(session, plan, folder, StoppingRules(max_drop=1.0, alpha=0.05)).drop
        except TrialError as error:  # scales so far apart that kernels refuse them: such a trial costs nothing
            write(f"  percentile {fraction:g}: cannot be built or run ({error.where})")
            continue
        rules = [
            StoppingRules(session.max_drop, alpha_of(number, session.budget.error_rate), number) for number in numbers
        ]
        samples = [_carried_out(session, plan, folder, each).samples for each in rules]
        counts = drop is not None and drop >= HOPELESS * session.max_drop
        hopeless += samples if counts else []
        write(f"  percentile {fraction:g}: drop {drop:.4f}, {samples} samples{'' if counts else ', not hopeless'}")
    cost = Cost(median(hopeless) / total, median(hopeless) / whole, len(hopeless))
    write(f"  median of {cost.trials}: {cost.of_search:.3f} of the search's, {cost.of_evaluation:.3f} of all {whole}")
    return cost


def _ruined(session: SearchSession, fraction: float) -> Plan:
    plan = session.space.fullest
    layers = {name: replace(own, activation=Percentile(fraction)) for name, own in plan.int8.items()}
    return replace(plan, layers=layers, bias_correction="none")


def _carried_out(session: SearchSession, plan: Plan, folder: Path, rules: StoppingRules) -> SequentialScore:
    return session.scorer.score(session.builder.build(plan, folder).path, rules)


if __name__ == "__main__":
    main()
