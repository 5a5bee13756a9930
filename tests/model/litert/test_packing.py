"""Files against those that the schema's own Pack writes: the same objects, whatever was known before."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy, deepcopy
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools.flatbuffer_utils import flatbuffers
from lite_models import network

from autoquant.model.litert import flatbuffer, packing
from autoquant.model.litert.interpreter import plain_interpreter


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(packing, "KNOWN", packing._Cache())
    yield


@pytest.fixture(scope="module")
def content() -> bytes:
    return network()


def plainly(model: Any) -> bytes:
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), file_identifier=flatbuffer.IDENTIFIER)
    return bytes(builder.Output())


def same(one: bytes, other: bytes) -> bool:
    return bool(packing._content(flatbuffer.read(one)) == packing._content(flatbuffer.read(other)))


def test_a_file_has_the_same_objects(content: bytes) -> None:
    model = flatbuffer.read(content)
    first, second = flatbuffer.write(model), flatbuffer.write(model)
    assert first == second, "whether it was known or not"
    assert same(first, plainly(model)) and same(first, content)
    assert len(first) < len(plainly(model)) + 4 * len(model.subgraphs[0].tensors)


def test_a_change_is_written(content: bytes) -> None:
    """Scales, options, shapes, and names: whatever differs is another table."""
    model = flatbuffer.read(content)
    before = flatbuffer.write(model)
    changed = deepcopy(model)
    graph = changed.subgraphs[0]
    tensor = graph.tensors[graph.outputs[0]]
    tensor.quantization = schema.QuantizationParametersT()
    for scale in (np.array([0.5], np.float32), np.array([0.25], np.float32), [0.125]):
        tensor.quantization.scale, tensor.quantization.zeroPoint = scale, [3]
        written = flatbuffer.write(changed)
        assert same(written, plainly(changed)) and not same(written, before)
        (found,) = flatbuffer.read(written).subgraphs[0].tensors[graph.outputs[0]].quantization.scale
        assert found == scale[0]
    graph.operators.append(copy(graph.operators[0]))
    graph.operators[-1].outputs = [*graph.operators[0].outputs, 0]
    tensor.name, tensor.shape = b"another", np.array([7, 8], np.int32)
    assert same(flatbuffer.write(changed), plainly(changed))
    assert flatbuffer.write(model) == before


def test_the_cache_is_bounded(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MOST_BYTES", 1000)
    model = flatbuffer.read(content)
    first = flatbuffer.write(model)
    assert packing.KNOWN._size < 1000 + 4 * 1000
    assert flatbuffer.write(model) == first


def test_it_runs(content: bytes) -> None:
    model = flatbuffer.read(content)
    results = []
    for written in (content, flatbuffer.write(model), flatbuffer.write(model)):
        interpreter = plain_interpreter(written)
        interpreter.allocate_tensors()
        (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
        interpreter.set_tensor(given["index"], np.ones(given["shape"], given["dtype"]))
        interpreter.invoke()
        results.append(interpreter.get_tensor(made["index"]))
    assert all((result == results[0]).all() for result in results)
