"""What samplers find on networks small enough to know the best plan, and what that takes.

    python tests/benchmarks/small_networks.py DATA_FOLDER [--networks ten,kws] [--targets T,U] [--samplers S,R]
        [--seeds N] [--max-trials N] [--images N] [--train N]
    python tests/benchmarks/small_networks.py --workers 1,2,4,8 [--samplers guided,tpe] [--seeds N] [--max-trials N]

`ten` are ten layers of which INT8 ruins two (bad_layers.py), within 1 %; `kws` is the real model, whose tolerance is 0,
as its layers lose nothing otherwise. The exhaustive optimum: all 2^n choices of layers in INT8, with the settings that
the search begins with, equalized and not, from the most multiply-adds on, each scored on everything until one is within
tolerance; of the rest none can be better. The searches choose more settings, so they may find more than that optimum.

A line for each sampler, medians over seeds: the share found after 10 full evaluations (evaluated samples / samples),
relative to the optimum; the evaluations until 99 % of it were found, '-' where they never were; and of the whole
search, which all samplers end after so many trials if not by themselves: share, evaluations, trials.

With --workers, what it takes with so many trials at a time, on networks that are formulas (simulated_workers.py).
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import simulated_workers
from bad_layers import make_network
from opened_search import opened_search

import autoquant
from autoquant.errors import TrialError
from autoquant.evaluation.statistics.tolerance import drop_from, within
from autoquant.tuning.result import SearchResult
from autoquant.tuning.session import SearchSession
from autoquant.tuning.study.space import Parameters, switch_of

GOOD, EVALUATIONS = 0.99, 10
HEADINGS = (
    "network",
    "target",
    "sampler",
    "after 10 / optimum",
    "evals to 99 %",
    "share at the end",
    "evals",
    "trials",
)


@dataclass(frozen=True)
class Network:
    """A model, its data, and its tolerance."""

    name: str
    model: Path
    data: Path
    calibration: Path
    tolerance: str


@dataclass(frozen=True)
class Optimum:
    """The largest share of multiply-adds within tolerance, the layers in float, and how many plans were scored."""

    share: float
    in_float: tuple[str, ...]
    scored: int


@dataclass(frozen=True)
class Found:
    """Of one search: share within tolerance after EVALUATIONS, evaluations until GOOD, and all of it."""

    early: float
    until: float
    share: float
    evaluations: float
    trials: int


def main(words: Sequence[str] | None = None, write: Callable[[str], None] = print) -> None:
    """Enumerate, search, and write a table, a line at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--workers", default="")
    parser.add_argument("--networks", default="ten,kws")
    parser.add_argument("--targets", default="tensorflow,litert")
    parser.add_argument("--samplers", default="guided,tpe,random,amct")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-trials", type=int, default=40)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--train", type=int, default=20000)
    arguments = parser.parse_args(words)
    if arguments.workers:
        samplers, workers = arguments.samplers.split(","), list(map(int, arguments.workers.split(",")))
        for row in simulated_workers.rows(samplers, workers, seeds=arguments.seeds, most=arguments.max_trials):
            write(row)
        return
    if arguments.folder is None:
        parser.error("give the folder of the data, or --workers")
    with tempfile.TemporaryDirectory() as folder:
        for network in networks(arguments, Path(folder)):
            for target in arguments.targets.split(","):
                _compare(network, target, arguments, write)


def networks(arguments: argparse.Namespace, folder: Path) -> Iterator[Network]:
    """Those that were asked for."""
    for name in arguments.networks.split(","):
        if name == "ten":
            fashion = arguments.folder / "fashion_mnist"
            yield Network(
                name, *make_network(fashion, folder, train=arguments.train, evaluate=arguments.images), tolerance="1%"
            )
        else:
            kws = arguments.folder / "kws"
            yield Network(
                name, kws / "kws_ref_model.pb", kws / "evaluation.npz", kws / "calibration.npz", tolerance="0"
            )


def options(network: Network, target: str) -> dict[str, Any]:
    """What enumeration and searches share: all samples are searched on, so that all seeds have the same optimum."""
    shared = {"certify": "none", "target": target}
    return {"calibration": network.calibration, "tolerance": network.tolerance, **shared}


def _compare(network: Network, target: str, arguments: argparse.Namespace, write: Callable[[str], None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        session = opened_search(network.model, network.data, Path(folder) / "run", **options(network, target))
        optimum = exhaustive(session, Path(folder))
        total, layers = len(session.scorer.subset), len(session.space.layers)
    write(
        f"{network.name} on {target}: {layers} layers, {total} samples, tolerance {network.tolerance}, "
        f"optimum {optimum.share:.4f}, in float {', '.join(optimum.in_float) or 'nothing'} ({optimum.scored} plans)"
    )
    write("| " + " | ".join(HEADINGS) + " |")
    write("|" + "---|" * len(HEADINGS))
    for sampler in arguments.samplers.split(","):
        found = [searched(network, target, sampler, seed, arguments, optimum) for seed in range(arguments.seeds)]
        write("| " + " | ".join([network.name, target, sampler, *_cells(found, optimum)]) + " |")


def _cells(found: Sequence[Found], optimum: Optimum) -> list[str]:
    until = median(each.until for each in found)
    return [
        f"{median(each.early for each in found) / optimum.share:.4f}",
        f"{until:.2f}" if math.isfinite(until) else "-",
        f"{median(each.share for each in found):.4f}",
        f"{median(each.evaluations for each in found):.2f}",
        f"{median(each.trials for each in found):g}",
    ]


def exhaustive(session: SearchSession, folder: Path) -> Optimum:
    """The best plan with the settings of the start, equalized and not. Raises RuntimeError where there is none."""
    builder, scorer = session.builder, session.scorer
    baseline, better = session.terms.baseline, session.metric.higher_is_better
    for number, parameters in enumerate(_by_share(session)):
        plan = session.space.plan(parameters)
        try:
            score = scorer.score_all(builder.build(plan, folder).path).score
        except TrialError:  # scales too far apart for a kernel, say: such a trial fails in a search as well
            continue
        if within(drop_from(baseline, score.value, higher_is_better=better), session.max_drop):
            in_float = tuple(name for name in session.space.layers if name not in plan.int8)
            return Optimum(builder.workload.int8_share(plan), in_float, number + 1)
    raise RuntimeError("no plan is within tolerance")


def _by_share(session: SearchSession) -> Iterator[Parameters]:
    """All plans but those with every layer in float, from the most multiply-adds in INT8 on, then fewest in float."""
    start = next(session.space.starts()).parameters
    layers = [name for name in session.space.layers if session.space.may_be_float(name)]
    costs = session.builder.workload.costs
    chosen = [[name for bit, name in enumerate(layers) if bits >> bit & 1] for bits in range(2 ** len(layers) - 1)]
    chosen.sort(key=lambda in_float: (sum(costs[name] for name in in_float), len(in_float)))
    for in_float in chosen:
        for equalize in session.space.dimensions["equalize"]:
            yield {**start, "equalize": equalize, **{switch_of(name): False for name in in_float}}


def searched(
    network: Network, target: str, sampler: str, seed: int, arguments: argparse.Namespace, optimum: Optimum
) -> Found:
    """One search, in a folder that is removed."""
    with tempfile.TemporaryDirectory() as folder:
        result = autoquant.search(
            network.model,
            network.data,
            sampler=sampler,
            seed=seed,
            max_trials=arguments.max_trials,
            run=Path(folder) / "run",
            **options(network, target),
        )
    return found_in(result, optimum)


def found_in(result: SearchResult, optimum: Optimum) -> Found:
    """How the share within tolerance grew with the evaluated samples."""
    spent, share, early, until = 0.0, 0.0, 0.0, math.inf
    for trial in result.trials:
        spent += trial.samples / result.search_samples
        if trial.meets(result.max_drop):
            share = max(share, trial.int8_share)
        if spent <= EVALUATIONS:
            early = share
        if share >= GOOD * optimum.share:
            until = min(until, spent)
    return Found(early, until, share, spent, len(result.trials))


if __name__ == "__main__":
    main()
