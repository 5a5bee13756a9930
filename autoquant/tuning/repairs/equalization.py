"""Equalized models: other constants, the same operators and names, with channels of neighbouring layers made alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from autoquant.cache import digest_of
from autoquant.evaluation.passes import CalibrationRunner
from autoquant.model.layer import Layer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.model import Model, Program
from autoquant.quantization.equalize import VERSION
from autoquant.targets.base import Compiler
from autoquant.tuning.repairs.chains import MomentsOf, equalized_constants


class ModelVariant(NamedTuple):
    """A calibrated model in the form that the target lowered, equalized or not, and what makes INT8 files of it."""

    model: Model
    compiler: Compiler


def equalized_program(program: Program, layers: Mapping[str, Layer], moments_of: MomentsOf) -> Program:
    """A program of the same layers that computes the same; itself where there is nothing to do.

    Raises TrialError where a constant would be beyond float32.
    """
    if isinstance(program, LiteGraph):
        from autoquant.tuning.repairs import lite_chains

        changed = equalized_constants(lite_chains.find_chains(program, layers), moments_of)
        return lite_chains.with_constants(program, changed) if changed else program
    from autoquant.model.graph import Graph
    from autoquant.tuning.repairs import graph_chains

    assert isinstance(program, Graph)
    changed = equalized_constants(graph_chains.find_chains(program, layers), moments_of)
    return graph_chains.with_constants(program, layers, changed) if changed else program


def equalized(model: Model, layers: Mapping[str, Layer], runner: CalibrationRunner, batch_num: int) -> Model:
    """The model with an equalized program and a digest of its own; itself where there is nothing to do.

    What it takes to absorb biases is seen in `batch_num` batches. Raises as `equalized_program` and as
    `CalibrationRunner.moments`.
    """
    program = equalized_program(model.program, layers, lambda axes: runner.moments(model, axes, batch_num))
    if program is model.program:
        return model
    seen = (runner.engine.version, runner.data.digest, runner.batch_size, batch_num)
    return replace(model, program=program, digest=digest_of("equalized", VERSION, model.digest, *seen))
