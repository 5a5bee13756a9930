"""A fused LSTM, whose states are variables of the file, starts anew for every batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recurrent import lstm, sequences

from autoquant.evaluation.engines.litert import LiteRTEngine
from autoquant.model.litert import flatbuffer
from autoquant.model.litert.flatbuffer import schema
from autoquant.model.litert.survey import survey_lite
from autoquant.model.model import Model
from autoquant.model.open import open_model

RNG = np.random.default_rng(7)
KERNEL, BACK, BIAS = (RNG.normal(0, 0.6, shape).astype(np.float32) for shape in ((4, 20), (5, 20), (20,)))
HEAD = RNG.normal(size=(5, 3)).astype(np.float32)


def tensor(graph: Any, name: str, *shape: int, variable: bool = False) -> int:
    made = schema.TensorT()
    made.name, made.shape, made.type, made.buffer = name.encode(), list(shape), schema.TensorType.FLOAT32, 0
    made.isVariable, made.hasRank = variable, True
    graph.tensors.append(made)
    return len(graph.tensors) - 1


def operator(model: Any, code: int, inputs: list[int], output: int, kind: int, options: Any) -> None:
    entry = schema.OperatorCodeT()
    entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), 1
    model.operatorCodes.append(entry)
    op = schema.OperatorT()
    op.opcodeIndex, op.inputs, op.outputs = len(model.operatorCodes) - 1, inputs, [output]
    op.builtinOptionsType, op.builtinOptions = kind, options
    model.subgraphs[0].operators.append(op)


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """UNIDIRECTIONAL_SEQUENCE_LSTM for one sample, and a FULLY_CONNECTED behind it."""
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.buffers, model.subgraphs, model.operatorCodes = 3, [schema.BufferT()], [graph], []
    graph.tensors, graph.operators = [], []

    def gates(name: str, values: Any) -> list[int]:
        parts = np.split(values.T, 4)
        return [
            flatbuffer.add_constant(model, graph, f"{name}{i}", np.ascontiguousarray(p)) for i, p in enumerate(parts)
        ]

    x, series, y = tensor(graph, "x", 1, 6, 4), tensor(graph, "series", 1, 6, 5), tensor(graph, "y", 1, 6, 3)
    states = [tensor(graph, name, 1, 5, variable=True) for name in ("output state", "cell state")]
    options = schema.UnidirectionalSequenceLSTMOptionsT()
    options.fusedActivationFunction = schema.ActivationFunctionType.TANH
    inputs = [x, *gates("w", KERNEL), *gates("u", BACK), -1, -1, -1, *gates("b", BIAS), -1, -1, *states, *[-1] * 4]
    kinds = schema.BuiltinOptions
    lstm_code = schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM
    operator(model, lstm_code, inputs, series, kinds.UnidirectionalSequenceLSTMOptions, options)
    head = schema.FullyConnectedOptionsT()
    head.keepNumDims = True
    weight = flatbuffer.add_constant(model, graph, "head", np.ascontiguousarray(HEAD.T))
    code = schema.BuiltinOperator.FULLY_CONNECTED
    operator(model, code, [series, weight, -1], y, kinds.FullyConnectedOptions, head)
    graph.inputs, graph.outputs = [x], [y]
    flatbuffer.add_signature(model, ["x"], ["y"])
    path = tmp_path_factory.mktemp("fused") / "fused.tflite"
    path.write_bytes(flatbuffer.write(model))
    return open_model(path)


def wanted(x: Any) -> Any:
    return lstm(x.astype(np.float64), KERNEL, BACK, BIAS) @ HEAD


def test_results_do_not_depend_on_what_ran_before(fused: Model, tmp_path: Path) -> None:
    runner = LiteRTEngine().open_graph(fused.program)
    x = sequences(5)
    for batch in (x, x[::-1], x[2:3]):
        found = runner({"x": batch})["y"]
        np.testing.assert_allclose(found[:, -1], wanted(batch), atol=1e-5)


def test_it_stays_in_float(fused: Model) -> None:
    found = survey_lite(fused.program)  # type: ignore[arg-type]  # a .tflite has no other
    assert [layer.name for layer in found.layers] == ["y"]
    assert [one.op for one in found.rejected] == ["UNIDIRECTIONAL_SEQUENCE_LSTM"]
