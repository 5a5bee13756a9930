"""How often early decisions and certificates are wrong, end to end, through the public search on synthetic networks.

    python tests/benchmarks/error_rate.py [--runs 2000] [--samplers guided,tpe,random] [--seconds 3600] [--seed 0]

Each run draws its samples from a pool of many, and its tolerance near what INT8 loses of the network on that pool, so
that plans nearly miss, or are nearly within. A decision to stop a trial early is wrong where the drop of its file on
all search samples is on the other side of the tolerance; --error-rate bounds the share of runs with any. A certificate
is wrong where the drop on the pool is more than its bound; that is bounded by 1 - confidence. Both are computed here,
with a plain interpreter. Shares come with their Clopper-Pearson interval of 95 %.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import numpy as np
from plain_lite import lite_outputs
from scipy.stats import beta

import autoquant
from autoquant.array import Array
from autoquant.model.open import open_model
from autoquant.tuning.study.trial import State

POOL, CALIBRATION, CLASSES, SIDE = 80_000, 64, 4, 5
SAMPLES = (2000, 6000, 12_000)
"""Of a run, drawn for each: half of them are the holdout."""
SPACE = """
[global]
batch_num = [1]
bias_correction = ["none"]
equalize = [false]
[layer]
act_algo = ["minmax", "percentile"]
dmq_balancer = false
quant_enable = [true, false]
"""
NEAR = (0.3, 0.6, 0.8, 0.9, 0.95, 1.05, 1.2)
"""Tolerances, as parts of what plain INT8 loses."""
ERROR_RATE, CONFIDENCE = 0.05, 0.95


@dataclass(frozen=True, eq=False)
class Network:
    """A float .tflite, the samples of its pool, the labels of these, and which FP32 has right."""

    path: Path
    x: Array
    y: Array
    right: Array
    loss: float


def make_networks(folder: Path, count: int) -> list[Network]:
    """Random networks of four layers whose channels differ much in scale; one label in ten is wrong."""
    import tensorflow as tf

    from autoquant.model.litert.convert import convert

    layers, found = tf.keras.layers, []
    for number in range(count):
        tf.keras.utils.set_random_seed(number)
        random = np.random.default_rng(number)
        net = tf.keras.Sequential(
            [
                tf.keras.Input((SIDE, SIDE, 2)),
                layers.Conv2D(4, 3, activation="relu"),
                layers.DepthwiseConv2D(2, activation="relu"),
                layers.Flatten(),
                layers.Dense(8, activation="relu"),
                layers.Dense(CLASSES),
            ]
        )
        weights = [value * np.exp(random.normal(0.0, 0.6, value.shape[-1:])) for value in net.get_weights()]
        net.set_weights(weights)
        path = folder / f"net{number}.tflite"
        net.save(path.with_suffix(".keras"))
        path.write_bytes(convert(open_model(path.with_suffix(".keras")).graph).content)
        x = random.normal(size=(POOL, SIDE, SIDE, 2)).astype(np.float32)
        classes = classes_of(path, x)
        y = np.where(random.random(POOL) < 0.1, random.integers(0, CLASSES, POOL), classes)
        found.append(Network(path, x, y, classes == y, 0.0))
    return found


def classes_of(path: Path, x: Array) -> Array:
    """The answers of a .tflite, by a plain interpreter."""
    return np.asarray(lite_outputs(path, x).argmax(axis=1))


def with_loss(network: Network, folder: Path) -> Network:
    """The network with what plain INT8 loses of it on the pool, found by a search of one trial."""
    with searched(network, np.arange(300), folder, certify="none", max_trials=1, tolerance=0.9) as found:
        return replace(network, loss=drop_of(network, found.model, slice(None)))


def drop_of(network: Network, model: Path, chosen: Any) -> float:
    """What an INT8 file loses on some samples."""
    right = classes_of(model, network.x[chosen]) == network.y[chosen]
    return float(network.right[chosen].mean() - right.mean())


@contextmanager
def searched(network: Network, chosen: Array, folder: Path, **options: Any) -> Iterator[Any]:
    """A search on some samples of the pool, whose last ones calibrate; its run is gone afterwards."""
    (folder / "space.toml").write_text(SPACE)
    shared: dict[str, Any] = {"target": "litert", "space": folder / "space.toml", "batch_size": 64}
    with tempfile.TemporaryDirectory(dir=folder) as place:
        data, calibration = (network.x[chosen], network.y[chosen]), (network.x[-CALIBRATION:], None)
        run = Path(place) / "run"
        yield autoquant.search(network.path, data, calibration=calibration, run=run, **shared, **options)


def judged(network: Network, chosen: Array, found: Any) -> Counter[str]:
    """What was decided and certified, and what of it is wrong."""
    facts, splits = Counter(runs=1), found.run / "splits.npz"
    search = chosen[np.load(splits)["search"]] if splits.is_file() else chosen
    wrong = False
    for trial in found.trials:
        facts["trials"] += 1
        if trial.state is not State.STOPPED:
            continue
        facts["screened out" if trial.undecided else "stopped early"] += 1
        if trial.within is None:
            continue
        file = found.run / "trials" / f"{trial.number:04d}" / f"{network.path.stem}_int8.tflite"
        drop = drop_of(network, file, search)
        facts["near misses"] += found.max_drop < drop <= 1.5 * found.max_drop
        wrong |= trial.within != (drop <= found.max_drop + 1e-12)
    facts["runs with a wrong decision"] += wrong
    if found.certificate is not None:
        true = drop_of(network, found.model, slice(None))
        facts["certificates"] += 1
        facts["bounds that are wrong"] += true > found.certificate.upper_bound
        if found.certificate.verdict == "certified":
            facts["certified"] += 1
            facts["certified and not within"] += true > found.certificate.max_drop
    return facts


def share(part: int, whole: int) -> str:
    """A share with its interval."""
    if not whole:
        return "-"
    low = float(beta.ppf(0.025, part, whole - part + 1)) if part else 0.0
    high = float(beta.ppf(0.975, part + 1, whole - part)) if part < whole else 1.0
    return f"{part} of {whole} = {part / whole:.4f} ({low:.4f} to {high:.4f})"


def lines(sampler: str, facts: Counter[str]) -> Sequence[str]:
    """What came of a sampler."""
    told = ("trials", "stopped early", "screened out", "near misses")
    wrong, certified = facts["runs with a wrong decision"], facts["certified and not within"]
    bounds = share(facts["bounds that are wrong"], facts["certificates"])
    return (
        f"{sampler}: {facts['runs']:,} runs, " + ", ".join(f"{facts[name]:,} {name}" for name in told),
        f"    a wrong early decision (at most {ERROR_RATE}): {share(wrong, facts['runs'])}",
        f"    a wrong bound (at most {1 - CONFIDENCE:.2f}): {bounds}",
        f"    certified, and not within on the pool, of all runs: {share(certified, facts['runs'])}",
    )


def main(write: Callable[[str], None] = print) -> None:
    """Search again and again, the samplers in turn, and write what came of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--samplers", default="guided,tpe,random")
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--networks", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    samplers, begin = args.samplers.split(","), time.monotonic()
    facts = {sampler: Counter[str]() for sampler in samplers}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        networks = [with_loss(network, folder) for network in make_networks(folder, args.networks)]
        write("losses of plain INT8 on the pool: " + ", ".join(f"{network.loss:.4f}" for network in networks))
        for number in range(args.runs):
            random = np.random.default_rng((args.seed, number))
            network = networks[int(random.integers(len(networks)))]
            chosen = random.permutation(POOL - CALIBRATION)[: int(random.choice(SAMPLES))]
            options: dict[str, Any] = {"tolerance": max(network.loss, 0.008) * float(random.choice(NEAR))}
            options |= {"max_trials": 6, "seed": number, "keep_all_models": True}
            options |= {"confidence": CONFIDENCE, "error_rate": ERROR_RATE}
            for sampler in samplers:
                with searched(network, chosen, folder, sampler=sampler, **options) as found:
                    facts[sampler] += judged(network, chosen, found)
            if time.monotonic() - begin > args.seconds:
                break
        for sampler in samplers:
            for line in lines(sampler, facts[sampler]):
                write(line)


if __name__ == "__main__":
    main()
