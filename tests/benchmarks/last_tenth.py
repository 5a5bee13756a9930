"""Whether a search depends on luck: the same networks at tight tolerances, with other calibration data and other seeds.

    python tests/benchmarks/last_tenth.py DATA_FOLDER RESULTS.jsonl [--cases bed,fsrcnn,espcn,depthwise,vit]
        [--models easy,mid,hard] [--targets T,U] [--calibrations 512,first,last] [--tolerances 0.1%] [--seeds 0,1]
        [--samplers guided,tpe,random,amct] [--max-trials N] [--networks FOLDER]
    python tests/benchmarks/last_tenth.py --summary RESULTS.jsonl

`bed` are the three networks of the real models within 0.1 %, calibrated with all 512 images, their first 256 or their
last 256; `fsrcnn` is the real super-resolution network, within 0.1 and 0.3 dB; the others are trained
(tight_networks.py), once for a folder: `espcn` within 0.1 dB, `depthwise` with one scale per tensor, of any size and
powers of two, within 0.5 %, `vit` within 0.3 %. All samples are searched on, none certify.

Each search is a line of JSON, appended when it ends; one that RESULTS already has is not repeated. It has the layers in
INT8 of all, their share of the multiply-adds, trials, evaluated samples (the baseline not counted), CPU seconds of the
process, and the full evaluations until the first trial proven within tolerance. The summary has a row for each case,
target, tolerance and sampler.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import autoquant
from autoquant.tuning.result import SearchResult

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from real_cases import CASES
from super_resolution import OUTPUT, images, psnr
from tight_networks import PER_TENSOR, make_depthwise, make_espcn, make_vit

BED = ("easy", "mid", "hard")
PARTS = {"512": slice(None), "first": slice(256), "last": slice(-256, None)}
"""Calibration samples of `bed`, by name."""
KEY = ("model", "target", "calibration", "tolerance", "sampler", "seed", "max_trials")
"""What distinguishes a search from others."""
HEADINGS = (
    "model",
    "target",
    "tolerance",
    "sampler",
    "searches",
    "INT8, median",
    "all INT8",
    "worst INT8",
    "share, worst",
    "images, median",
    "images, worst",
    "CPU s, median",
    "full evals to the first within, median",
    "worst",
)


Facts = Callable[[SearchResult], Mapping[str, Any]]


@dataclass(frozen=True)
class Task:
    """A model with its data, and the tolerances that it is to keep."""

    name: str
    model: Path
    data: Any
    calibration: Mapping[str, Any]
    tolerances: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    targets: tuple[str, ...] = ("tensorflow", "litert")


def tasks(arguments: argparse.Namespace, folder: Path) -> Iterator[Task]:
    """Those that were asked for; networks are trained in `folder`, unless they are there."""
    makers: dict[str, Callable[[], Iterator[Task]]] = {
        "bed": lambda: _bed(arguments, folder),
        "fsrcnn": lambda: _fsrcnn(arguments.folder / "super_resolution"),
        "espcn": lambda: _espcn(arguments.folder, folder),
        "depthwise": lambda: _depthwise(arguments.folder, folder),
        "vit": lambda: _vit(arguments.folder, folder),
    }
    for name in arguments.cases.split(","):
        yield from makers[name]()


def _bed(arguments: argparse.Namespace, folder: Path) -> Iterator[Task]:
    data = arguments.folder / "bed"
    with np.load(data / "calibration.npz") as stored:
        calibration = dict(stored)
    parts = {}
    for name in arguments.calibrations.split(","):
        parts[name] = folder / f"bed_{name}.npz"
        np.savez(parts[name], **{key: own[PARTS[name]] for key, own in calibration.items()})
    for name in arguments.models.split(","):
        case = CASES[name]
        yield Task(name, arguments.folder / case.model, data / "evaluation.npz", parts, ("0.1%",), case.options)


def _fsrcnn(place: Path) -> Iterator[Task]:
    options = {"metric": psnr, "outputs": (OUTPUT,), "batch_size": 1}
    calibration = {"all": images(place / "set14")}
    yield Task("fsrcnn", place / "FSRCNN_x3.pb", images(place / "set5"), calibration, ("0.3", "0.1"), options)


def _espcn(data: Path, folder: Path) -> Iterator[Task]:
    made = make_espcn(data / "super_resolution", folder)
    yield Task("espcn", made.model, made.evaluation, {"all": made.calibration}, ("0.1",), {"metric": "psnr"})


def _depthwise(data: Path, folder: Path) -> Iterator[Task]:
    made = make_depthwise(data / "fashion_mnist", folder)
    powers = PER_TENSOR.replace("[global]\n", "[global]\npower_of_two = true\n")
    for name, text in (("depthwise", PER_TENSOR), ("depthwise, powers of two", powers)):
        space = folder / f"{name}.toml"
        space.write_text(text)
        yield Task(name, made.model, made.evaluation, {"all": made.calibration}, ("0.5%",), {"space": space})


def _vit(data: Path, folder: Path) -> Iterator[Task]:
    made = make_vit(data / "fashion_mnist", folder)
    yield Task("vit", made.model, made.evaluation, {"all": made.calibration}, ("0.3%",))


def searched(task: Task, key: Mapping[str, Any], facts: Facts | None = None, run: Path | None = None) -> dict[str, Any]:
    """The facts of one search, those of `facts_of` unless others are wanted; its folder is `run`, or is removed."""
    begin = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        result = autoquant.search(
            task.model,
            task.data,
            calibration=task.calibration[key["calibration"]],
            certify="none",
            run=run or Path(folder) / "run",
            **{name: key[name] for name in ("target", "tolerance", "sampler", "seed", "max_trials")},
            **task.options,
        )
        spent = round(time.process_time() - begin, 1)
        return {**key, **(facts or facts_of)(result), "cpu": spent}


def facts_of(result: SearchResult) -> dict[str, Any]:
    """What is written of a search; `first` is null where nothing was within tolerance."""
    best, spent, first = result.best, 0, None
    for trial in result.trials:
        spent += trial.samples
        if trial.within and first is None:
            first = round(spent / result.search_samples, 3)
    met = best is not None and best.meets(result.max_drop)
    return {
        "layers": result.layers,
        "int8": best.int8_layers if best is not None and met else 0,
        "share": round(best.int8_share, 6) if best is not None and met else 0.0,
        "drop": result.drop,
        "max_drop": result.max_drop,
        "trials": len(result.trials),
        "samples": result.search_samples,
        "images": spent,
        "first": first,
    }


def summary(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A table of what was found; all of `bed` together come last."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for one in found:
        groups.setdefault((one["model"], one["target"], one["tolerance"], one["sampler"]), []).append(one)
        if one["model"] in BED:
            groups.setdefault(("bed", "both", one["tolerance"], one["sampler"]), []).append(one)
    yield "| " + " | ".join(HEADINGS) + " |"
    yield "|" + "---|" * len(HEADINGS)
    for group in sorted(groups, key=lambda group: (group[0] == "bed", group)):
        yield "| " + " | ".join([*group, *_cells(groups[group])]) + " |"


def _cells(found: Sequence[Mapping[str, Any]]) -> list[str]:
    first = [math.inf if one["first"] is None else one["first"] for one in found]
    worst = min(found, key=lambda one: (one["int8"] / one["layers"], one["share"]))
    return [
        str(len(found)),
        f"{median(one['int8'] for one in found):g}",
        str(sum(one["int8"] == one["layers"] for one in found)),
        f"{worst['int8']}/{worst['layers']}",
        f"{min(one['share'] for one in found):.4f}",
        f"{median(one['images'] for one in found):,.0f}",
        f"{max(one['images'] for one in found):,}",
        f"{median(one['cpu'] for one in found):.0f}",
        f"{median(first):.2f}",
        f"{max(first):.2f}",
    ]


def read(path: Path) -> list[dict[str, Any]]:
    """The searches that a file has; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def main(words: Sequence[str] | None = None, write: Callable[[str], None] = print) -> None:
    """Search what RESULTS does not have yet, and write the summary of all that it has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("results", type=Path, nargs="?")
    parser.add_argument("--summary", type=Path)
    parser.add_argument("--cases", default="bed,fsrcnn,espcn,depthwise,vit")
    parser.add_argument("--models", default=",".join(BED))
    parser.add_argument("--targets", default="tensorflow,litert")
    parser.add_argument("--calibrations", default=",".join(PARTS))
    parser.add_argument("--tolerances", default="")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--samplers", default="guided")
    parser.add_argument("--max-trials", type=int, default=60)
    parser.add_argument("--networks", type=Path)
    arguments = parser.parse_args(words)
    if arguments.summary is None:
        if arguments.folder is None or arguments.results is None:
            parser.error("give the folder of the data and the file of the results, or --summary")
        with tempfile.TemporaryDirectory() as made:
            _search_all(arguments, arguments.networks or Path(made), write)
    for line in summary(read(arguments.summary or arguments.results)):
        write(line)


def _search_all(arguments: argparse.Namespace, folder: Path, write: Callable[[str], None]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    known = {tuple(one[name] for name in KEY) for one in read(arguments.results)}
    for task in tasks(arguments, folder):
        for key in _keys(task, arguments):
            if tuple(key[name] for name in KEY) in known:
                continue
            found = searched(task, key)
            with arguments.results.open("a") as file:
                file.write(json.dumps(found) + "\n")
            write(json.dumps(found))


def _keys(task: Task, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What is asked for of a task, the seeds last: a table that is not finished has a bit of everything."""
    for seed in map(int, arguments.seeds.split(",")):
        for target in [name for name in arguments.targets.split(",") if name in task.targets]:
            for tolerance in arguments.tolerances.split(",") if arguments.tolerances else task.tolerances:
                for calibration in task.calibration:
                    for sampler in arguments.samplers.split(","):
                        values = (task.name, target, calibration, tolerance, sampler, seed, arguments.max_trials)
                        yield dict(zip(KEY, values, strict=True))


if __name__ == "__main__":
    main()
