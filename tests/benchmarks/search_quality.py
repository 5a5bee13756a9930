"""What searches find, and what that takes: every model, target and sampler, side by side.

    python tests/benchmarks/search_quality.py DATA_FOLDER [--models A,B] [--targets T,U] [--samplers S,R]
        [--tolerances 1%,0.1%] [--max-trials N] [--seed S]

DATA_FOLDER holds the real models (tests/real/real_cases.py names them, and FSRCNN). A line for each search: trials,
evaluated samples in full evaluations of the samples that are searched on (trials and certification; not the baseline),
wall time in units of one FP32 pass over these samples on LiteRT (measured after it, in the same process; the time is of
the whole search, model opened and files written), layers in INT8, their share of the multiply-adds, the drop on the
samples that were searched on and on those that certify, and the verdict.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import autoquant
from autoquant.evaluation.data.dataset import open_data
from autoquant.evaluation.data.preprocessing import open_preprocess
from autoquant.evaluation.engines.engine import run_batch
from autoquant.evaluation.engines.table import open_engine
from autoquant.model.open import open_model
from autoquant.targets.table import open_target
from autoquant.tuning.result import SearchResult

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from real_cases import CASES
from super_resolution import OUTPUT, images, psnr

SEARCHED = ("model", "target", "sampler", "tolerance", "trials", "full evals", "FP32 passes", "INT8", "share", "drop")
HEADINGS = (*SEARCHED, "certified on", "drop there", "bound", "verdict")
BATCH = 50


@dataclass(frozen=True)
class Task:
    """A model with its data, and the tolerances that it is to keep."""

    name: str
    model: Path
    data: Any
    calibration: Any
    tolerances: tuple[str, ...]
    options: dict[str, Any]


def tasks(folder: Path) -> Iterator[Task]:
    """All there are."""
    for name, case in CASES.items():
        if name == "kws keras":
            continue
        data = folder / case.data
        tolerances = ("1%", "0.1%") if case.data == "bed" else (case.tolerance,)
        files = data / "evaluation.npz", data / "calibration.npz"
        yield Task(name, folder / case.model, *files, tolerances, case.options)
    place = folder / "super_resolution"
    options = {"metric": psnr, "outputs": (OUTPUT,), "batch_size": 1}
    yield Task("fsrcnn", place / "FSRCNN_x3.pb", images(place / "set5"), images(place / "set14"), ("0.3",), options)


def fp32_pass(task: Task, target: str, samples: int) -> float:
    """Seconds of one FP32 pass over so many samples on LiteRT, opening the model not counted."""
    asked = {name: task.options[name] for name in ("inputs", "outputs") if name in task.options}
    model = open_target(target).lowered(open_model(task.model, **asked))
    given = {name: task.options.get(name) for name in ("preprocess", "scale")}
    preprocess = open_preprocess(given["preprocess"], scale=given["scale"], mean=None, std=None)
    data = open_data(task.data, model.inputs, preprocess=preprocess)
    runner = open_engine("litert").open_graph(model.program)
    size, seconds = task.options.get("batch_size", BATCH), []
    for _ in range(3):
        begin = time.perf_counter()
        for batch in data.batches(size):
            run_batch(runner, batch)
        seconds.append(time.perf_counter() - begin)
    runner.close()
    return median(seconds) * samples / len(data)


def line(task: Task, target: str, sampler: str, tolerance: str, result: SearchResult, unit: float) -> list[str]:
    """The cells of one search."""
    best, searched = result.best, result.search_samples
    certificate = result.certificate
    evaluated = (result.evaluated_samples + (certificate.samples if certificate else 0)) / searched
    found = [f"{best.int8_layers}/{result.layers}", f"{best.int8_share:.4f}"] if best else ["-", "-"]
    held = ["-", "-", "-"]
    if certificate is not None:
        held = [f"{certificate.samples}", f"{certificate.drop:.4f}", f"{certificate.upper_bound:.4f}"]
    return [
        task.name,
        target,
        sampler,
        tolerance,
        str(len(result.trials)),
        f"{evaluated:.2f}",
        f"{result.seconds / unit:.1f}",
        *found,
        "-" if result.drop is None else f"{result.drop:.4f}",
        *held,
        result.verdict.value,
    ]


def searched(task: Task, target: str, sampler: str, tolerance: str, arguments: argparse.Namespace) -> list[str]:
    """One search, in a folder that is removed."""
    with tempfile.TemporaryDirectory() as folder:
        result = autoquant.search(
            task.model,
            task.data,
            calibration=task.calibration,
            tolerance=tolerance,
            target=target,
            sampler=sampler,
            max_trials=arguments.max_trials,
            seed=arguments.seed,
            run=Path(folder) / "run",
            **task.options,
        )
    return line(task, target, sampler, tolerance, result, fp32_pass(task, target, result.search_samples))


def main(words: Sequence[str] | None = None, write: Callable[[str], None] = print) -> None:
    """Search, and write a table, a line at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", default="")
    parser.add_argument("--targets", default="tensorflow,litert")
    parser.add_argument("--samplers", default="guided,tpe,random,amct")
    parser.add_argument("--tolerances", default="")
    parser.add_argument("--max-trials", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(words)
    write("| " + " | ".join(HEADINGS) + " |")
    write("|" + "---|" * len(HEADINGS))
    chosen = arguments.models.split(",") if arguments.models else []
    for task in tasks(arguments.folder):
        if chosen and task.name not in chosen:
            continue
        tolerances = arguments.tolerances.split(",") if arguments.tolerances else task.tolerances
        for target in arguments.targets.split(","):
            for tolerance in tolerances:
                for sampler in arguments.samplers.split(","):
                    write("| " + " | ".join(searched(task, target, sampler, tolerance, arguments)) + " |")


if __name__ == "__main__":
    main()
