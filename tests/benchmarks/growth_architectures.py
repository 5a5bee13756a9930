"""What precedes the first trial of networks of keras.applications: CPU seconds and memory by phase, on both targets.

    python tests/benchmarks/growth_architectures.py [--networks A,B] [--targets T,U] [--folder F] [--phases]

Random weights, 96 x 96, 64 samples to calibrate with and as many to score. A search in a process of its own ends after
one trial, which any drop passes. TensorFlow and Keras are loaded before, and give back what they freed, as on the
command line: memory is the peak beside that, as a multiple of the model's weights. Opening is reading (what Keras and
TensorFlow take), normalizing, and lowering for the target. Beside it stands what `tf.lite.TFLiteConverter` takes to
convert the same model to float, which reads it too. Peaks of single phases need Linux. `--folder` keeps the networks
for the next time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")

import numpy as np
from growth_outputs import MB, peak_of_process
from zoo_networks import application, write

NETWORKS = ("ResNet50", "DenseNet121", "InceptionV3", "Xception", "NASNetMobile", "EfficientNetB0")
TARGETS = ("litert", "tensorflow")
SIZE, SAMPLES = 96, 64
CONVERTER = "TFLiteConverter"
READING, NORMALIZING = "reading", "normalizing"
GROUPS: Mapping[str, str] = {
    READING: "read",
    NORMALIZING: "normalize",
    "lowering the model for": "lower",
    "LiteRT beside TensorFlow": "engine",
    "baseline": "baseline",
    "operators between layers": "between",
    "sensitivity of layers": "sensitivity",
    "calibration for sensitivity": "sensitivity",
    "calibration": "calibrate",
    "equalization": "repairs",
    "bias correction": "repairs",
    "building trial": "build",
}
"""How the name of a phase begins -> the column where it is counted, the first that fits.

All other time before the first score is `else`.
"""
COLUMNS = tuple(dict.fromkeys((*GROUPS.values(), "else")))
OPENING = ("read", "normalize", "lower")


@dataclass(frozen=True)
class Phase:
    """CPU seconds of a phase, and the peak of memory in it, MB beside TensorFlow's own."""

    name: str
    seconds: float
    peak: float


@dataclass
class Watch:
    """Takes the phases of a process one after another."""

    phases: list[Phase] = field(default_factory=list)
    name: str = ""
    _since: float = field(default_factory=time.process_time)
    _base: float = 0.0

    def __post_init__(self) -> None:
        reset_peak()
        self._base = peak_of_process()

    def enter(self, name: str) -> None:
        """End the phase that lasts, and begin this one."""
        if name == self.name:
            return
        now = time.process_time()
        if self.name:
            self.phases.append(Phase(self.name, now - self._since, peak_of_process() - self._base))
        reset_peak()
        self.name, self._since = name, time.process_time()


def reset_peak() -> None:
    """Let the peak of memory be what the process has now; where Linux does not offer that, peaks are of all before."""
    try:
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    except OSError:
        return


def rows(
    names: Sequence[str] = NETWORKS,
    targets: Sequence[str] = TARGETS,
    folder: Path | None = None,
    *,
    phases: bool = False,
) -> Iterator[str]:
    """The table: CPU seconds by phase up to the first score, and peaks as multiples of the weights."""
    with tempfile.TemporaryDirectory() as made:
        yield "CPU s up to the first score; peak memory beside TensorFlow's, in multiples of the weights"
        cells = "".join(f"{name:>12}" for name in COLUMNS)
        yield f"{'network':15}{'MB':>5} {'target':11}{cells}{'sum':>8}{'opening x':>10}{'search x':>9}"
        for name in names:
            place = (folder or Path(made)) / name
            if not place.exists():
                _run("--make", name, str(place))
            for target in targets:
                yield from _rows(name, target, _run("--search", target, str(place)), phases=phases)
            found = _run("--convert", CONVERTER, str(place))
            (one,) = found["phases"]
            times = one["peak"] / found["weights"]
            yield f"{name:15}{found['weights']:5.0f} {CONVERTER}: {one['seconds']:.1f} s, {times:.1f} x"


def _rows(name: str, target: str, found: Mapping[str, Any], *, phases: bool) -> Iterator[str]:
    taken = [Phase(**one) for one in found["phases"]]
    before = list(takewhile(lambda one: not one.name.startswith("trial "), taken))
    spent = {column: sum(one.seconds for one in before if column_of(one.name) == column) for column in COLUMNS}
    opening = max((one.peak for one in taken if column_of(one.name) in OPENING), default=0.0) / found["weights"]
    whole = max(one.peak for one in taken) / found["weights"]
    cells = "".join(f"{spent[column]:12.1f}" for column in COLUMNS)
    yield f"{name:15}{found['weights']:5.0f} {target:11}{cells}{sum(spent.values()):8.1f}{opening:10.1f}{whole:9.1f}"
    for one in taken if phases else ():
        yield f"    {one.name:40}{one.seconds:8.1f} s{one.peak:8.0f} MB"


def column_of(phase: str) -> str:
    """Where a phase is counted.

    >>> column_of("building trial 0"), column_of("choosing a plan")
    ('build', 'else')
    """
    return next((column for prefix, column in GROUPS.items() if phase.startswith(prefix)), "else")


def _run(*words: str) -> dict[str, Any]:
    """What a child finds."""
    done = subprocess.run([sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def make(name: str, folder: Path) -> Mapping[str, Any]:
    """Write a network and its data."""
    folder.mkdir(parents=True)
    write(application(name, SIZE, 2 * SAMPLES), folder, name)
    return {}


def searched(target: str, folder: Path) -> Mapping[str, Any]:
    """The phases of a search that ends after one trial."""
    import autoquant
    import autoquant.model.load as reading

    watch, (path,) = Watch(), folder.glob("*.keras")
    load = reading.load

    def read(*arguments: Any, **options: Any) -> Any:
        watch.enter(READING)
        graph = load(*arguments, **options)
        watch.enter(NORMALIZING)
        return graph

    def listen(event: Any) -> None:
        if isinstance(event, autoquant.tuning.events.Progress):
            watch.enter(event.what)

    watch.enter("start")
    with tempfile.TemporaryDirectory() as run, patch.object(reading, "load", read):
        autoquant.search(
            path,
            folder / "evaluation.npz",
            calibration=folder / "calibration.npz",
            metric="agreement",
            tolerance=1.0,
            target=target,
            max_trials=1,
            run=Path(run) / "run",
            listener=listen,
        )
    watch.enter("end")
    return {"weights": weights(path), "phases": watch.phases}


def converted(folder: Path) -> Mapping[str, Any]:
    """What TensorFlow's converter takes."""
    import keras
    import tensorflow as tf

    watch, (path,) = Watch(), folder.glob("*.keras")
    watch.enter(CONVERTER)
    tf.lite.TFLiteConverter.from_keras_model(keras.models.load_model(path, compile=False)).convert()
    watch.enter("end")
    return {"weights": weights(path), "phases": watch.phases}


def weights(path: Path) -> float:
    """MB of a Keras model's weights."""
    import keras

    return float(sum(np.prod(weight.shape) for weight in keras.models.load_model(path, compile=False).weights) * 4 / MB)


def main(words: list[str] | None = None) -> None:
    """Print the table, or do one part of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--phases", action="store_true", help="print every phase as well")
    for part in ("--make", "--search", "--convert"):
        parser.add_argument(part, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    parts: Mapping[str, Callable[[str, Path], Mapping[str, Any]]] = {
        "make": make,
        "search": searched,
        "convert": lambda _, folder: converted(folder),
    }
    for part, work in parts.items():
        if asked := getattr(given, part):
            import keras  # noqa: F401  # loaded before anything is measured, with TensorFlow

            found = work(asked[0], Path(asked[1]))
            print(json.dumps(found, default=vars))
            return
    for row in rows(given.networks.split(","), given.targets.split(","), given.folder, phases=given.phases):
        print(row, flush=True)


if __name__ == "__main__":
    main()
