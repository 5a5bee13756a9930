"""Trains what rounding leaves open in an INT8 model, on calibration data, to give what the FP32 model gives.

Nothing but the FP32 model's own results is compared with: no labels. Thresholds of activations are trained as in TQT
(Jain et al. 2019, arXiv:1903.08066); of each weight the integer below or above it is chosen, as in AdaRound (Nagel et
al. 2020, arXiv:2004.10568), for the results of all layers together (compare BRECQ, Li et al. 2021, arXiv:2102.05426);
biases move freely. Some samples are held out: of all steps that one is taken which is best on them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autoquant import __version__
from autoquant.array import Array
from autoquant.cache import CacheEntry, cached, digest_of
from autoquant.calibration.plan import Plan
from autoquant.errors import ModelError, TrialError
from autoquant.evaluation.engines.table import open_engine
from autoquant.evaluation.passes import CalibrationRunner
from autoquant.formats.config_json import config_text
from autoquant.model.layer import Layer
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.model import Model, Program
from autoquant.quantization.affine import Affine
from autoquant.targets.base import Compiler, Corrections, Int8File, Target
from autoquant.tuning.repairs.training.descent import Adam, Parameter, cosine_rate
from autoquant.tuning.repairs.training.lite_functions import FUNCTIONS
from autoquant.tuning.repairs.training.runner import WAY_OUT, TrainingRunner
from autoquant.tuning.repairs.training.student import BIAS, BothModels, Trainable

STEPS = 300
"""Steps of a training, where PASSES allow as many."""
SAMPLES = 64
"""Calibration samples of a step."""
PASSES = 64
"""How often a training sees each of its samples at most."""
MOST = 1024
"""Calibration samples that are used at most."""
BYTES = 1 << 28
"""Bytes that they have at most."""
HELD_OUT = 4
"""One of so many samples is held out."""
EVERY = 25
"""Steps from one look at the samples that are held out to the next."""
LEAST_GAIN = 0.05
"""By what part the loss on them must fall before anything is changed: less, of a few samples, is as good as nothing."""
RATE = 0.005
"""Of the first step, in the units of the parameters; it falls to 0."""
NO_GRADIENT = "training does not know the gradient of this kind of operator of a .tflite"
VERSION = 1
"""Of the arithmetic, and of what is cached."""
AGREE = 1e-3
"""By how much the float model may differ in TensorFlow from the same on its own engine, relative to its largest."""


@dataclass(frozen=True)
class Trainer:
    """Trains plans; `cache` is a folder for what was computed, in which each file has a key of its own."""

    target: Target
    layers: Mapping[str, Layer]
    calibration: CalibrationRunner
    cache: Path | None = None

    def trained(self, plan: Plan, model: Model, compiler: Compiler, start: Corrections) -> Corrections:
        """Other corrections than those to start from, or these where nothing is better on samples held out.

        Raises as `Compiler.compile`, ModelError where an operator of a .tflite has no gradient, DataError where the
        data cannot be read, TrialError where there are too few samples or TensorFlow does not run the model.
        """
        calibration = self.calibration
        versions = VERSION, __version__, open_engine("tensorflow").version, calibration.engine.version
        source = model.digest, calibration.data.digest, calibration.batch_size
        key = digest_of("training", *versions, self.target, *source, *sorted(self.layers), config_text(plan))
        path = self.cache / f"{key[:16]}.npz" if self.cache else None
        entry = cached(path, lambda: _entry(self._trained(plan, compiler, start)), key=key, version=VERSION)
        return _corrections(entry)

    def _trained(self, plan: Plan, compiler: Compiler, start: Corrections) -> Corrections:
        program = compiler.reference(plan)
        if kind := without_gradient(program):
            raise ModelError(kind, NO_GRADIENT, hint=WAY_OUT)
        samples = self._samples()
        powers = any(settings.power_of_two for settings in plan.int8.values())
        trainable = Trainable(plan.fp16_scales, powers)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / self.target.file_name("untrained")
            made = compiler.compile(plan, path, corrections=start)
            layers = {name: self.layers[name] for name in plan.int8}
            models = open_both_models(path, plan, made, program, compiler, layers, start, trainable)
        count = len(next(iter(samples.values())))
        held = {name: values[: count // HELD_OUT] for name, values in samples.items()}
        rest = {name: values[count // HELD_OUT :] for name, values in samples.items()}
        with closing(TrainingRunner(models, trainable, held)) as runner:
            self._check_agreement(program, runner, held)
            parameters = in_units_of_layers(trainable.parameters, runner.deviations)
            values = descend(runner, parameters, rest, held, self.calibration.on_progress)
        return start if values is None else trainable.corrections(values)

    def _samples(self) -> Mapping[str, Array]:
        """Those of the calibration that are used. Raises TrialError where there are too few."""
        one = self.calibration.samples(1)
        each = sum(values.nbytes for values in one.values())
        found = self.calibration.samples(min(MOST, max(2 * HELD_OUT, BYTES // max(each, 1))))
        count = len(next(iter(found.values())))
        if count < HELD_OUT:
            hint = "give more calibration data, or set training to false"
            raise TrialError("training", f"takes {HELD_OUT} calibration samples at least, got {count}", hint=hint)
        return found

    def _check_agreement(self, program: Program, runner: TrainingRunner, samples: Mapping[str, Array]) -> None:
        """Raise TrialError where a .tflite computes something else in TensorFlow than on LiteRT."""
        if not isinstance(program, LiteGraph):
            return
        few = {name: values[: runner.part] for name, values in samples.items()}
        computed = runner.outputs(few)
        with closing(self.calibration.engine.open_graph(program, list(computed))) as engine:
            wanted = engine(few)
        for name, values in wanted.items():
            error = np.abs(computed[name][: len(values)] - values).max(initial=0.0)
            if not error <= AGREE * max(np.abs(values).max(initial=0.0), 1.0):
                what = f"TensorFlow computes '{name}' otherwise than LiteRT, by up to {error:.3g}"
                raise TrialError("training", what, hint=WAY_OUT)


def without_gradient(program: Program) -> str:
    """The first kind of operator of a .tflite that training knows no gradient of; '' where there is none."""
    if not isinstance(program, LiteGraph):
        return ""
    kinds = (program.kind(index) for index in range(len(program.operators)))
    return next((kind for kind in kinds if kind not in FUNCTIONS), "")


def in_units_of_layers(parameters: Mapping[str, Parameter], deviations: Mapping[str, float]) -> Mapping[str, Parameter]:
    """The same parameters, the unit of each bias times the standard deviation of its layer's result."""
    return {
        name: replace(one, unit=one.unit * deviations[name.removeprefix(BIAS)]) if name.startswith(BIAS) else one
        for name, one in parameters.items()
    }


def descend(
    runner: TrainingRunner,
    parameters: Mapping[str, Parameter],
    samples: Mapping[str, Array],
    held: Mapping[str, Array],
    on_progress: Any,
) -> Mapping[str, Array] | None:
    """The values of the parameters after that step which is best on the samples held out; None where none is better.

    Better is what takes off LEAST_GAIN of the loss at the start. Samples of each step are drawn without return
    until all were seen. Reports every step.
    """
    count = len(next(iter(samples.values())))
    size = min(SAMPLES, count)
    steps = max(1, min(STEPS, PASSES * count // size))
    values: Mapping[str, Array] = {name: one.start for name, one in parameters.items()}
    best, lowest = None, (1 - LEAST_GAIN) * runner.loss(values, held)
    if not np.isfinite(lowest):
        what = "the quantized model gives no numbers to compare"
        raise TrialError("training", what, hint=WAY_OUT)
    adam, rng, order = Adam(parameters), np.random.default_rng(0), np.zeros(0, np.int64)
    for step in range(steps):
        on_progress(step, steps)
        if len(order) < size:
            order = rng.permutation(count)
        rows, order = order[:size], order[size:]
        found = runner.descent(values, {name: array[rows] for name, array in samples.items()})
        values = adam.step(values, found.gradients, cosine_rate(step, steps, RATE))
        if (step + 1) % EVERY == 0 or step + 1 == steps:
            loss = runner.loss(values, held)
            if loss < lowest:
                best, lowest = values, loss
    on_progress(steps, steps)
    return best


def open_both_models(
    path: Path,
    plan: Plan,
    made: Int8File,
    program: Program,
    compiler: Compiler,
    layers: Mapping[str, Layer],
    start: Corrections,
    trainable: Trainable,
) -> BothModels:
    """The float `program` of a plan and its quantized form, from the file at the path. Raises ModelError."""
    if isinstance(program, LiteGraph):
        from autoquant.targets.litert import LiteRTCompiler
        from autoquant.tuning.repairs.lite_pair import LitePair
        from autoquant.tuning.repairs.training.lite_student import open_lite_student

        assert isinstance(compiler, LiteRTCompiler)
        pair = LitePair(flatbuffer.read(path.read_bytes()), program, layers)
        return open_lite_student(pair, compiler.shared_scales(plan), start, trainable)
    from autoquant.model.graph import Graph
    from autoquant.tuning.repairs.training.graph_student import open_graph_student

    assert isinstance(program, Graph)
    return open_graph_student(program, layers, made.record, start, trainable)


def _entry(found: Corrections) -> CacheEntry:
    arrays = {f"bias {n}": values for n, values in enumerate(found.biases.values())}
    arrays |= {f"weight {n}": values for n, values in enumerate(found.weights.values())}
    arrays["scales"] = np.array([affine.scale for affine in found.activations.values()], np.float64)
    arrays["offsets"] = np.array([affine.offset for affine in found.activations.values()], np.int64)
    names = {"biases": list(found.biases), "weights": list(found.weights), "activations": list(found.activations)}
    return CacheEntry(names, arrays)


def _corrections(entry: CacheEntry) -> Corrections:
    names, arrays = entry.header, entry.arrays
    affines = map(Affine, map(float, arrays["scales"]), map(int, arrays["offsets"]))
    return Corrections(
        {name: arrays[f"bias {number}"] for number, name in enumerate(names["biases"])},
        {name: arrays[f"weight {number}"] for number, name in enumerate(names["weights"])},
        dict(zip(names["activations"], affines, strict=True)),
    )
