"""What becomes of many kinds of networks, on both targets, beside TFLiteConverter and LiteRT Quantizer.

    python tests/benchmarks/model_zoo.py [--networks A,B] [--targets T,U] [--folder F] [--search]

Each network is built (zoo_networks.py; nothing is downloaded), opened, and quantized with all layers in INT8, without
any search, in a process of its own. A line for each target: layers, operators that compute in integers (for the
TensorFlow target the layers), conversions between INT8 and float, agreement with the Keras model, CPU seconds to open,
calibrate and build, and the peak of memory; and a line of what each of two others makes of it. Agreement is the share
of places with the same best class, or for values the ratio of signal to error in dB, over evaluation samples that
nobody calibrated with. `--search` searches those that are trained to their tolerance as well. `--folder` keeps the
networks for the next time; a folder in it with a model of its own name, calibration.npz, evaluation.npz and
expected.npy is taken as well. `--targets "litert --integer-only"` asks for files without float, and notes how many
operators of each have float all the same.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import numpy as np
from zoo_networks import NETWORKS, Entry, save

HEADINGS = (
    "network",
    "by",
    "layers",
    "integer",
    "conversions",
    "agreement",
    "open",
    "calibrate",
    "build",
    "GB",
    "note",
)
OTHERS = ("TFLiteConverter", "LiteRT Quantizer")
FLOAT, INTEGER_ONLY = "float.tflite", " --integer-only"
BATCH = 32
FILE = Entry(lambda: (None, {}, None), classes=False)
"""What is known of a network that is given as a file."""


@dataclass(frozen=True)
class Row:
    """What one converter makes of one network; `note` says why where it makes nothing."""

    layers: str = "-"
    integer: int | None = None
    conversions: int | None = None
    agreement: str = "-"
    seconds: tuple[float, ...] = ()
    note: str = ""


def ours(folder: Path, entry: Entry, target: str) -> Row:
    """Quantize all layers with the settings that AMCT has by default; a target may have INTEGER_ONLY behind it."""
    from autoquant.calibration.plan import Plan, layer_plan
    from autoquant.errors import AutoquantError
    from autoquant.evaluation.engines.table import open_engine
    from autoquant.model.open import open_model
    from autoquant.targets.table import TARGETS, open_target
    from autoquant.tuning.builder import builder_of_plan
    from autoquant.tuning.inputs import open_dataset
    from autoquant.tuning.study.model_request import DataRequest
    from autoquant.tuning.study.workload import Workload

    asked, target = target, target.removesuffix(INTEGER_ONLY)
    laps = [time.process_time()]
    try:
        opened = open_model(model_in(folder), for_litert=TARGETS[target].cuts_front)
        chosen = open_target(target, integer_only=INTEGER_ONLY in asked)
        paths = {part: folder / f"{part}.npz" for part in ("calibration", "evaluation")}
        request = DataRequest(data=paths["evaluation"], calibration=paths["calibration"])
        data = open_dataset(request, opened, request.calibration)
        lowered = chosen.lowered(opened)
        workload = Workload.of(chosen, lowered, data)
        laps.append(time.process_time())
        layers = {name: layer for name, layer in workload.layers.items() if not layer.tensor_only}
        plan = Plan({name: layer_plan(layer) for name, layer in layers.items()})
        engine = open_engine(TARGETS[target].runtime)
        builder = builder_of_plan(plan, lowered, workload, chosen, engine, data, batch_size=BATCH)
        laps.append(time.process_time())
        built = builder.build(plan, folder).path
        laps.append(time.process_time())
        evaluation = open_dataset(request, opened, request.data)
        with closing(engine.open_file(built, lowered.program)) as runner:
            found = [runner(batch.inputs) for batch in evaluation.batches(BATCH)]
    except AutoquantError as error:
        return Row(note=str(error))
    results = [np.concatenate([part[name] for part in found]) for name in sorted(lowered.program.outputs)]
    integer, conversions = (len(plan.int8), None) if target == "tensorflow" else counted(built.read_bytes())
    seconds = tuple(after - before for before, after in pairwise(laps))
    note = f"{operators_in_float(built.read_bytes())} operators in float" if INTEGER_ONLY in asked else ""
    return Row(f"{len(layers)}", integer, conversions, agreement(folder, entry, results), seconds, note)


def operators_in_float(content: bytes) -> int:
    """How many operators of a .tflite read or make float, but for conversions of inputs and outputs."""
    from autoquant.model.litert import flatbuffer
    from autoquant.model.litert.flatbuffer import schema

    model = flatbuffer.read(content)
    graph, found = model.subgraphs[0], 0
    ends = {*map(int, graph.inputs), *map(int, graph.outputs)}
    for op in graph.operators:
        tensors = [int(index) for index in (*op.inputs, *op.outputs) if index >= 0]
        real = [index for index in tensors if graph.tensors[index].type == schema.TensorType.FLOAT32]
        converts = flatbuffer.op_name(model, op) in ("QUANTIZE", "DEQUANTIZE") and ends.issuperset(real)
        found += bool(real) and not converts
    return found


def others(folder: Path, entry: Entry, name: str) -> Row:
    """What another converter makes of the same network with the same calibration samples."""
    begin = time.process_time()
    try:
        content = (by_tflite_converter if name == OTHERS[0] else by_litert_quantizer)(folder)
    except Exception as error:  # whatever they raise is what their users see
        return Row(note=f"{type(error).__name__}: {' '.join(str(error).split())[:100]}")
    integer, conversions = counted(content)
    seconds = (time.process_time() - begin,)
    return Row("-", integer, conversions, agreement(folder, entry, run_lite(content, folder)), seconds)


def by_tflite_converter(folder: Path) -> bytes:
    """Post-training quantization of the converter, float where an operator has no INT8."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model(folder)))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    arrays = arrays_of(folder, "calibration")
    count = len(next(iter(arrays.values())))

    def samples() -> Iterator[Mapping[str, Any]]:
        for number in range(min(count, 64)):
            yield {name: value[number : number + 1] for name, value in arrays.items()}

    converter.representative_dataset = samples
    return bytes(converter.convert())


def by_litert_quantizer(folder: Path) -> bytes:
    """Its static recipe of 8 bits, calibrated by itself."""
    import tensorflow as tf
    from litert_quantizer import quantizer, recipe

    path = folder / FLOAT
    if not path.exists():
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(saved_model(folder))).convert())
    arrays = arrays_of(folder, "calibration")
    count = min(len(next(iter(arrays.values()))), 64)
    samples = [{name: value[number : number + 1] for name, value in arrays.items()} for number in range(count)]
    chosen = quantizer.Quantizer(str(path), recipe.static_wi8_ai8())
    return bytes(chosen.quantize(chosen.calibrate({"serving_default": samples})).quantized_model)


def counted(content: bytes) -> tuple[int, int]:
    """Operators whose result is INT8, but for QUANTIZE, and conversions between INT8 and float."""
    from autoquant.model.litert import flatbuffer
    from autoquant.targets.litert_file import count_qdq_ops

    model = flatbuffer.read(content)
    graph = model.subgraphs[0]
    kinds = [flatbuffer.op_name(model, op) for op in graph.operators if _makes_int8(graph, op)]
    return sum(kind != "QUANTIZE" for kind in kinds), count_qdq_ops(model)


def _makes_int8(graph: Any, op: Any) -> bool:
    from autoquant.model.litert.flatbuffer import schema

    return len(op.outputs) > 0 and graph.tensors[op.outputs[0]].type == schema.TensorType.INT8


def run_lite(content: bytes, folder: Path) -> list[Any]:
    """The outputs of a .tflite for the evaluation samples, one by one, in a plain interpreter, in real units."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    arrays = arrays_of(folder, "evaluation")
    runner = interpreter.get_signature_runner()
    inputs, outputs = runner.get_input_details(), runner.get_output_details()
    found: list[list[Any]] = []
    for number in range(len(next(iter(arrays.values())))):
        given = {name: _steps(value[number : number + 1], inputs[name]) for name, value in arrays.items()}
        result = runner(**given)
        found.append([_real(result[name], outputs[name]) for name in sorted(result)])
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def _steps(value: Any, detail: Mapping[str, Any]) -> Any:
    scale, zero = detail["quantization"]
    if detail["dtype"] != np.int8:
        return value.astype(detail["dtype"])
    return np.clip(np.rint(value / scale) + zero, -128, 127).astype(np.int8)


def _real(value: Any, detail: Mapping[str, Any]) -> Any:
    scale, zero = detail["quantization"]
    return (value.astype(np.float32) - zero) * scale if value.dtype == np.int8 else value


def agreement(folder: Path, entry: Entry, results: Sequence[Any]) -> str:
    """Of the first output by name with what the Keras model, or the file itself, gives: a share of places, or dB."""
    want, found = np.load(folder / "expected.npy"), np.asarray(results[0], np.float64)
    if want.shape != found.shape:
        return f"shape {found.shape}, not {want.shape}"
    if entry.classes:
        return f"{(want.argmax(axis=-1) == found.argmax(axis=-1)).mean():.1%}"
    return f"{10 * np.log10(np.square(want).sum() / max(np.square(want - found).sum(), 1e-300)):.1f} dB"


def searched(folder: Path, entry: Entry, target: str) -> Row:
    """Search a trained network to its tolerance."""
    import autoquant
    from autoquant.errors import AutoquantError

    assert entry.tolerance is not None, folder.name
    begin, run = time.process_time(), folder / f"run-{target}-{os.getpid()}"
    options: Any = {"calibration": folder / "calibration.npz", "metric": entry.metric, "max_trials": 25, "run": run}
    try:
        data = folder / "evaluation.npz"
        result = autoquant.search(model_in(folder), data, tolerance=entry.tolerance, target=target, **options)
    except AutoquantError as error:
        return Row(note=str(error))
    best = result.best
    if best is None:
        return Row(note=f"{result.verdict}: {result.ended}")
    note = f"{result.verdict}, {entry.metric} {result.baseline:.4g} to {best.score:.4g}, {len(result.trials)} trials"
    layers = f"{best.int8_layers} of {best.layers}"
    return Row(layers, None, best.qdq_ops, f"{best.int8_share:.0%}", (time.process_time() - begin,), note)


def model_in(folder: Path) -> Path:
    """The model of a folder of the zoo."""
    return next(path for path in folder.iterdir() if path.stem == folder.name and path.suffix != ".npz")


def arrays_of(folder: Path, part: str) -> Mapping[str, Any]:
    """The inputs of samples, by name."""
    with np.load(folder / f"{part}.npz") as stored:
        return {name: stored[name] for name in stored.files if name != "y"}


def saved_model(folder: Path) -> Path:
    """The network as a SavedModel, which the other converters take."""
    model, made = model_in(folder), folder / "saved_model"
    if model.is_dir():
        return model
    if not made.exists():
        import keras

        keras.models.load_model(model, compile=False).export(made, verbose=False)
    return made


def build(folder: Path, name: str) -> None:
    """Make a network, its data, and what it says of the evaluation samples."""
    import keras

    folder.mkdir(parents=True)
    save(NETWORKS[name], folder, name)
    model = keras.models.load_model(model_in(folder), compile=False)
    arrays = {name: texts_as_bytes(value) for name, value in arrays_of(folder, "evaluation").items()}
    np.save(folder / "expected.npy", np.asarray(model.predict(arrays, verbose=0), np.float32))


def texts_as_bytes(value: Any) -> Any:
    """Texts as Keras takes them; numbers as they are."""
    import tensorflow as tf

    return tf.constant(value) if value.dtype.kind == "U" else value


STEPS: Mapping[str, Callable[[Path, Entry, str], Row]] = {"ours": ours, "others": others, "search": searched}


def in_a_process(step: str, folder: Path, by: str) -> tuple[Row, float]:
    """What a step says in a process of its own, and the most memory that it had, in GB."""
    command = [sys.executable, __file__, "--folder", str(folder), "--step", step, "--by", by]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        return Row(note=f"failed: {done.stderr.strip().splitlines()[-1:]}"), 0.0
    facts = json.loads(lines[-1])
    return Row(**facts["row"]), facts["gigabytes"]


def cells(name: str, by: str, row: Row, gigabytes: float) -> list[str]:
    """A line of the table."""
    seconds = [f"{one:.1f}" for one in row.seconds] + ["-"] * (3 - len(row.seconds))
    counts = ["-" if one is None else str(one) for one in (row.integer, row.conversions)]
    return [name, by, row.layers, *counts, row.agreement, *seconds, f"{gigabytes:.1f}", row.note]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, a line as soon as it is known."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--targets", default="litert,tensorflow")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--step", choices=["build", *STEPS], help=argparse.SUPPRESS)
    parser.add_argument("--by", default="", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.step:
        _step(given.step, given.folder, given.by)
        return
    with tempfile.TemporaryDirectory() as temporary:
        print("\t".join(HEADINGS))
        for name in given.networks.split(","):
            _print(given.folder or Path(temporary), name, given.targets.split(","), search=given.search)


def _step(step: str, folder: Path, by: str) -> None:
    if step == "build":
        build(folder, folder.name)
        row = Row()
    else:
        row = STEPS[step](folder, NETWORKS.get(folder.name, FILE), by)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"row": asdict(row), "gigabytes": peak}))


def _print(zoo: Path, name: str, targets: Sequence[str], *, search: bool) -> None:
    folder = zoo / name
    if not (folder / "expected.npy").exists():
        row, gigabytes = in_a_process("build", folder, "")
        if row.note:
            print("\t".join(cells(name, "build", row, gigabytes)), flush=True)
            return
    steps = [("ours", target) for target in targets]
    steps += [("others", one) for one in OTHERS]
    steps += [("search", target) for target in targets] if search and NETWORKS.get(name, FILE).tolerance else []
    for step, by in steps:
        row, gigabytes = in_a_process(step, folder, by)
        print("\t".join(cells(name, f"search {by}" if step == "search" else by, row, gigabytes)), flush=True)


if __name__ == "__main__":
    main()
