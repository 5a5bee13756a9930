"""What a choice of INT16 activations brings a search on target litert: each case without it and with it.

    python tests/benchmarks/wide_activations.py DATA_FOLDER RESULTS.jsonl [--cases bed,fsrcnn,...] [--seeds 0,1]
        [--max-trials N] [--networks FOLDER] [--runs FOLDER]

Cases are some of last_tenth.py, and two networks of the model zoo. Both searches of a case have the same space, but
for `activation_bits = [8, 16]`. Networks are made once for a folder of networks; --runs keeps the folders of the
searches. Each search is a line of JSON, appended when it ends; one that RESULTS already has is not repeated. The
table has a row for each: layers in INT8, in 16x8 and in float, the objective (multiply-adds in float, and half of
those in 16x8, as a share of all), conversions, the drop of the metric beside the largest within tolerance, the bytes
of the file, its latency relative to the float .tflite (batch 1, one thread), evaluated samples (the baseline not
counted), trials, and CPU seconds of the process.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import last_tenth
import model_zoo
from last_tenth import Task

from autoquant.formats.space_toml import presets
from autoquant.tuning.result import SearchResult

TENTH = "bed,fsrcnn,espcn,depthwise"
ZOO = ("transformer", "LSTM")
AGREEING = {"depthwise": "0.5%", "depthwise, powers of two": "0.5%", "transformer": "0.05%", "LSTM": "0.1%"}
"""Models and the tolerance of their agreement with FP32: of right answers all INT8 loses none."""
TOLERANCES = {"mid": "0.1%", "fsrcnn": "0.1", "espcn": "0.1", **AGREEING}
CHOICE = "[layer]\nactivation_bits = [8, 16]\n"
KEY = ("model", "wide", "tolerance", "seed", "max_trials")
"""What distinguishes a search from others."""
COUNTS = ("int8", "wide_layers", "in_float", "objective", "conversions")
"""What is written of a plan."""
HEADINGS = (
    *("model", "tolerance", "seed", "bits", "INT8", "16x8", "float", "objective", "conversions", "drop"),
    "largest within",
    *("bytes", "latency", "images", "trials", "CPU s"),
)


def tasks(arguments: argparse.Namespace, folder: Path) -> Iterator[Task]:
    """Those that were asked for, with one tolerance each; networks are made in `folder`, unless they are there."""
    wanted = arguments.cases.split(",")
    tenth = [name for name in TENTH.split(",") if name in wanted]
    own = argparse.Namespace(folder=arguments.folder, cases=",".join(tenth), models="mid", calibrations="first")
    found = [
        *(last_tenth.tasks(own, folder) if tenth else ()),
        *(_of_zoo(folder / name) for name in ZOO if name in wanted),
    ]
    for task in found:
        metric = {"metric": "agreement"} if task.name in AGREEING else {}
        yield replace(task, tolerances=(TOLERANCES[task.name],), options={**task.options, **metric})


def _of_zoo(place: Path) -> Task:
    if not (place / "expected.npy").exists():
        model_zoo.build(place, place.name)
    data = {part: place / f"{part}.npz" for part in ("calibration", "evaluation")}
    return Task(place.name, model_zoo.model_in(place), data["evaluation"], {"all": data["calibration"]}, ())


def widened(task: Task, folder: Path) -> Task:
    """The same with a choice of 16 bits in its space, which is written to `folder`."""
    given = Path(task.options.get("space", presets()["litert"]))
    space = folder / f"{task.name}-wide.toml"
    space.write_text(given.read_text().replace("[layer]\n", CHOICE))
    return replace(task, options={**task.options, "space": space})


def facts_of(result: SearchResult) -> dict[str, Any]:
    """What is written of a search; the numbers of its best plan are null where nothing was within tolerance."""
    best, latency = result.best, result.latency
    met = best is not None and best.meets(result.max_drop)
    found: dict[str, Any] = dict.fromkeys((*COUNTS, "bytes", "latency"))
    if best is not None and met and result.model is not None:
        in_float = result.layers - best.int8_layers - best.int16_layers
        found |= {"int8": best.int8_layers, "wide_layers": best.int16_layers, "in_float": in_float}
        found |= {
            "objective": round(best.objective, 4),
            "conversions": best.qdq_ops,
            "bytes": result.model.stat().st_size,
        }
        found["latency"] = None if latency is None else round(1.0 / latency.models[-1].speed.median, 3)
    images = sum(trial.samples for trial in result.trials)
    scores = {"drop": result.drop, "max_drop": result.max_drop}
    return {**found, **scores, "images": images, "trials": len(result.trials)}


def table(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A row for each search."""
    yield "| " + " | ".join(HEADINGS) + " |"
    yield "|" + "---|" * len(HEADINGS)
    for one in sorted(found, key=lambda one: (one["model"], one["seed"], one["wide"])):
        counts = [one[name] for name in COUNTS]
        cells = [one["model"], one["tolerance"], one["seed"], "8, 16" if one["wide"] else "8", *counts]
        cells += ["-" if one["drop"] is None else f"{one['drop']:.4g}", f"{one['max_drop']:.4g}"]
        cells += [one[name] for name in ("bytes", "latency", "images", "trials", "cpu")]
        yield "| " + " | ".join("-" if cell is None else str(cell) for cell in cells) + " |"


def main(words: Sequence[str] | None = None, write: Callable[[str], None] = print) -> None:
    """Search what RESULTS does not have yet, and write the table of all that it has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--cases", default=",".join((TENTH, *ZOO)))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--max-trials", type=int, default=40)
    parser.add_argument("--networks", type=Path)
    parser.add_argument("--runs", type=Path)
    arguments = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as made:
        _search_all(arguments, arguments.networks or Path(made))
    for line in table(last_tenth.read(arguments.results)):
        write(line)


def _search_all(arguments: argparse.Namespace, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    known = {tuple(one[name] for name in KEY) for one in last_tenth.read(arguments.results)}
    for task in tasks(arguments, folder):
        for seed in map(int, arguments.seeds.split(",")):
            for wide in (False, True):
                values = (task.name, wide, task.tolerances[0], seed, arguments.max_trials)
                if values not in known:
                    found = _searched(task, dict(zip(KEY, values, strict=True)), folder, arguments.runs)
                    with arguments.results.open("a") as file:
                        file.write(json.dumps(found) + "\n")


def _searched(task: Task, key: Mapping[str, Any], folder: Path, runs: Path | None) -> dict[str, Any]:
    chosen = widened(task, folder) if key["wide"] else task
    (calibration,) = task.calibration
    run = None if runs is None else runs / f"{task.name}-{key['seed']}-{'wide' if key['wide'] else 'narrow'}"
    options = {"target": "litert", "sampler": "guided", "calibration": calibration}
    return last_tenth.searched(chosen, {**key, **options}, facts_of, run)


if __name__ == "__main__":
    main()
