"""`check` accepts saved models, and none that was changed afterwards."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_networks import Network
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tensorflow.core.framework import types_pb2

from autoquant.calibration.record import LayerRecord
from autoquant.errors import AutoquantError, ModelError, PlanError
from autoquant.model.graph import GraphDef
from autoquant.model.nodes import FLOAT, make_const, make_node
from autoquant.quantization.affine import Affine
from autoquant.targets.attributes import type_attr
from autoquant.targets.check import check

AFFINE = Affine(0.125, -3)
RECORD = {
    "conv": LayerRecord(AFFINE, (0.5, 0.25, 0.5, 0.125), balance=(0.5, 2.0), weight_bits=7, shift_bit=(1, 2, 3, 4)),
    "pool": LayerRecord(AFFINE),
    "product": LayerRecord(Affine(0.25, 0)),
    "product:1": LayerRecord(Affine(0.5, 0)),
    "y:1": LayerRecord(Affine(0.0625, 5)),
}


@pytest.fixture(scope="module")
def made(network: Callable[..., Network]) -> Network:
    def write(x: Any) -> None:
        import tensorflow as tf

        raw = tf.raw_ops
        kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 4)) * 8
        y = raw.Conv2D(input=x, filter=tf.constant(kernel, tf.float32), strides=[1] * 4, padding="SAME", name="conv")
        y = raw.BiasAdd(value=y, bias=tf.constant([1.0, -2.0, 3.0, 100.0]), name="bias")
        y = raw.AvgPool(value=y, ksize=[1, 2, 3, 1], strides=[1, 2, 2, 1], padding="SAME", name="pool")
        y = tf.reshape(y, [-1, 4, 4])
        y = raw.BatchMatMulV2(x=y, y=raw.Relu(features=y), name="product")
        raw.AddV2(x=y, y=raw.Sigmoid(x=y, name="sigmoid"), name="y")

    return network(write, x=(None, 4, 4, 2))


@pytest.fixture
def saved(made: Network, tmp_path: Path) -> Path:
    return made.save(RECORD, tmp_path / "net_quantized.pb")


def edited(path: Path, change: Callable[..., Any]) -> Path:
    """The file with a change, without the map that would give it away."""
    graph_def = GraphDef.FromString(path.read_bytes())
    nodes = {node.name: node for node in graph_def.node}
    change(graph_def, nodes)
    path.write_bytes(graph_def.SerializeToString())
    path.with_name("net_quant.json").unlink(missing_ok=True)
    return path


def test_saved_models_are_accepted(made: Network, tmp_path: Path) -> None:
    for simulation in (True, False):
        found = check(made.save(RECORD, tmp_path / "net_quantized.pb", simulation=simulation), RECORD)
        assert found.layers == {"AddV2": 1, "AvgPool": 1, "BatchMatMulV2": 1, "Conv2D": 1}
        assert (found.weights, found.simulation, found.mapping) == (3 * 3 * 2 * 4, simulation, True)
    (tmp_path / "net_quant.json").unlink()
    assert not check(tmp_path / "net_quantized.pb", RECORD).mapping


SCALE, HALF, NCHW = {"f": 0.3}, {"type": types_pb2.DT_HALF}, {"s": b"NCHW"}
QUANT = {"T": HALF, "quant_bits": {"i": 4}, "scale": SCALE, "offset": {"f": 1.5}}
DEQUANT = {"T": HALF, "data_format": NCHW, "ksize": {"list": {"i": [7, 7]}}}
OPERATORS = {
    "conv/act_quant/AscendQuant": QUANT,
    "pool/act_quant/AscendQuant": QUANT,
    "product/act_quant/AscendQuant": QUANT,
    "product/act_quant_1/AscendQuant": QUANT,
    "y/act_quant_1/AscendQuant": QUANT,
    "y/act_quant_1/AscendAntiQuant": {"T": HALF, "scale": SCALE, "offset": {"f": 5.0}},
    "conv/weight_quant/AscendWeightQuant": {"T": HALF},
    "bias": DEQUANT,
    "pool": DEQUANT,
    "product": DEQUANT,
}
NEIGHBOURS = {
    "conv/act_quant/Mul": {"T": HALF},
    "conv/bias_quant/Cast": {"SrcT": HALF, "DstT": HALF},
    "conv": {"T": HALF},
    "conv/bias_quant/BiasAdd": {"T": HALF, "data_format": NCHW},
}
"""AMCT's operators and the nodes that belong to them, with other values for all their attributes."""
WRONG = [
    pytest.param(name, key, value, id=f"{name}.{key}")
    for name, attributes in (OPERATORS | NEIGHBOURS).items()
    for key, value in attributes.items()
]


@pytest.mark.parametrize(("name", "key", "value"), WRONG)
def test_an_edited_attribute_is_named(saved: Path, name: str, key: str, value: dict[str, Any]) -> None:
    def change(graph_def: Any, nodes: dict[str, Any]) -> None:
        before = nodes[name].attr[key].SerializeToString()
        nodes[name].attr[key].CopyFrom(type(nodes[name].attr[key])(**value))
        assert nodes[name].attr[key].SerializeToString() != before

    with pytest.raises(PlanError, match=re.escape(f"net_quantized.pb: {name}.{key}: ")) as error:
        check(edited(saved, change), RECORD)
    assert "save it again" in error.value.hint


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("key", ["T", "dst_type"])
def test_an_attribute_that_is_missing_or_new_is_named(saved: Path, name: str, key: str) -> None:
    def change(graph_def: Any, nodes: dict[str, Any]) -> None:
        if key in nodes[name].attr:
            del nodes[name].attr[key]
        else:
            nodes[name].attr[key].s = b"INT8"

    with pytest.raises(PlanError, match=re.escape(f"{name}.{key}: is ")):
        check(edited(saved, change), RECORD)


CONSTANTS = [
    ("conv/act_quant/balance", np.array([2.0, 0.25], np.float32)),
    ("conv/weight_quant/weight", np.full((3, 3, 2, 4), 64, np.int8)),  # 7 bits end at 63
    ("conv/weight_quant/weight", np.zeros((3, 3, 2, 4), np.int32)),
    ("conv/weight_quant/weight", np.zeros((3, 3, 4), np.int8)),
    ("conv/weight_quant/offset_w", np.array([0, 0, 1, 0], np.int8).reshape(1, 1, 1, 4)),
    ("conv/weight_quant/offset_w", np.zeros((1, 1, 1, 1), np.int8)),
    ("conv/bias_quant/bias", np.zeros(4, np.float32)),
    ("conv/bias_quant/bias", np.zeros(3, np.int32)),
    ("conv/dequant/deq_scale", np.zeros(1, np.uint64)),
    ("pool/dequant/deq_scale", np.zeros(1, np.uint64)),
    ("product/dequant/deq_scale", np.zeros(1, np.uint64)),
]


@pytest.mark.parametrize(("name", "value"), CONSTANTS)
def test_an_edited_constant_is_named(saved: Path, name: str, value: NDArray[Any]) -> None:
    with pytest.raises(PlanError, match=re.escape(f"net_quantized.pb: {name}.")):
        check(edited(saved, lambda graph_def, nodes: nodes[name].CopyFrom(make_const(name, value))), RECORD)


@pytest.mark.parametrize("bit", [0, 31, 32, 39, 40, 47, 63])
@pytest.mark.parametrize("channel", [0, 3])
def test_every_bit_of_deq_scale_counts(saved: Path, bit: int, channel: int) -> None:
    def change(graph_def: Any, nodes: dict[str, Any]) -> None:
        from tensorflow.python.framework import tensor_util

        node = nodes["conv/dequant/deq_scale"]
        value = tensor_util.MakeNdarray(node.attr["value"].tensor).copy()
        value[channel] ^= np.uint64(1) << np.uint64(bit)
        node.CopyFrom(make_const(node.name, value))

    with pytest.raises(PlanError, match=rf"conv/dequant/deq_scale\.value: is \d+ at {channel}, expected is \d+;"):
        check(edited(saved, change), RECORD)


def rewired(name: str, index: int, source: str) -> Callable[..., None]:
    def change(graph_def: Any, nodes: dict[str, Any]) -> None:
        assert nodes[name].input[index] != source
        nodes[name].input[index] = source

    return change


def replaced(name: str, op: str) -> Callable[..., None]:
    def change(graph_def: Any, nodes: dict[str, Any]) -> None:
        nodes[name].op = op

    return change


def added(node: Any) -> Callable[..., Any]:
    return lambda graph_def, nodes: graph_def.node.append(node)


def removed(name: str) -> Callable[..., None]:
    def change(graph_def: Any, nodes: dict[str, Any]) -> None:
        graph_def.node.remove(nodes[name])

    return change


WIRING = {
    "activation past its quantizer": (rewired("conv", 0, "conv/act_quant/Mul"), "conv/act_quant/Mul"),
    "quantizer of another layer": (rewired("conv", 0, "pool/act_quant/AscendQuant"), "pool/act_quant/AscendQuant"),
    "factors swapped": (rewired("product", 0, "product/act_quant/AscendQuant"), "product"),
    "past the balancer": (rewired("conv/act_quant/AscendQuant", 0, "x"), "x"),
    "weight past its offsets": (rewired("conv", 1, "conv/weight_quant/weight"), "conv"),
    "bias not cast": (rewired("conv/bias_quant/BiasAdd", 1, "conv/bias_quant/bias"), "conv/bias_quant/bias"),
    "sums read by another": (added(make_node("spy", "Relu", ["conv"], T=type_attr(FLOAT))), "spy"),
    "integers read by another": (
        added(make_node("spy", "Relu", ["pool/act_quant/AscendQuant"], T=type_attr(FLOAT))),
        "spy",
    ),
    "weights read by another": (
        added(make_node("spy", "Relu", ["conv/weight_quant/AscendWeightQuant"], T=type_attr(FLOAT))),
        "spy",
    ),
    "sums with bias read by another": (
        added(make_node("spy", "Relu", ["conv/bias_quant/BiasAdd"], T=type_attr(FLOAT))),
        "spy",
    ),
    "a second output": (rewired("bias", 1, "conv/dequant/deq_scale:1"), "bias: its input 1 is"),
    "a constant with an attribute more": (
        lambda graph_def, nodes: nodes["conv/dequant/deq_scale"].attr["_more"].CopyFrom(type_attr(FLOAT)),
        "conv/dequant/deq_scale: is Const, where 'bias' needs a plain constant",
    ),
    "a constant that says another type": (
        lambda graph_def, nodes: nodes["conv/dequant/deq_scale"].attr["dtype"].CopyFrom(type_attr(types_pb2.DT_INT64)),
        "conv/dequant/deq_scale.dtype",
    ),
    "input past AscendAntiQuant": (rewired("y", 1, "y/act_quant_1/AscendQuant"), "y/act_quant_1/AscendAntiQuant"),
    "a quantizer too many": (
        added(make_node("more", "AscendQuant", ["x"], T=type_attr(FLOAT), quant_bits=8, scale=8.0, offset=-3.0)),
        "more",
    ),
    "no dequantizer": (replaced("pool", "Identity"), "find pool failure in net_quantized.pb"),
    "another operator": (replaced("conv/bias_quant/Cast", "Bitcast"), "conv/bias_quant/Cast"),
    "a node is missing": (removed("conv/weight_quant/offset_w"), "conv/weight_quant/AscendWeightQuant"),
}


@pytest.mark.parametrize("what", WIRING)
def test_other_connections_are_refused(saved: Path, what: str) -> None:
    change, place = WIRING[what]
    with pytest.raises((PlanError, ModelError)) as error:
        check(edited(saved, change), RECORD)
    assert place in str(error.value)
    assert error.value.hint


def test_functions_that_are_not_ours_are_refused(saved: Path) -> None:
    content = saved.read_bytes()

    def spoiled(graph_def: Any, nodes: dict[str, Any]) -> None:
        (dequant,) = (f for f in graph_def.library.function if f.signature.name == "AscendDequant")
        (node,) = (node for node in dequant.node_def if node.name == "real")
        node.op = "Sub"

    def fewer(graph_def: Any, nodes: dict[str, Any]) -> None:
        del graph_def.library.function[0]

    with pytest.raises(PlanError, match="function AscendDequant: is not the one that runs this graph"):
        check(edited(saved, spoiled), RECORD)
    saved.write_bytes(content)
    with pytest.raises(PlanError, match=r"functions: of AscendAntiQuant, .* each must be there once, or none"):
        check(edited(saved, fewer), RECORD)


def test_the_record_must_be_the_one_it_was_saved_with(made: Network, saved: Path) -> None:
    conv = RECORD["conv"]
    others = {
        "scale_d": {**RECORD, "conv": replace(conv, activation=Affine(0.25, -3))},
        "offset_d": {**RECORD, "pool": replace(RECORD["pool"], activation=Affine(0.125, -4))},
        "scale_w": {**RECORD, "conv": replace(conv, scale_w=(0.5, 0.25, 0.5, 0.25))},
        "fewer scale_w": {**RECORD, "conv": replace(conv, scale_w=(0.5,), shift_bit=())},
        "shift": {**RECORD, "conv": replace(conv, shift_bit=(1, 2, 3, 5))},
        "balance": {**RECORD, "conv": replace(conv, balance=(0.5, 4.0))},
        "not balanced": {name: RECORD[name] for name in RECORD if name != "conv"} | {"cnov": conv},
        "bits": {**RECORD, "conv": replace(conv, weight_bits=6)},
        "second factor": {**RECORD, "product:1": LayerRecord(Affine(0.25, 0))},
        "input": {**RECORD, "y:1": LayerRecord(Affine(0.0625, 4))},
        "other input": {("y:0" if name == "y:1" else name): entry for name, entry in RECORD.items()},
        "one less": {name: RECORD[name] for name in RECORD if name != "pool"},
        "one more": {**RECORD, "sigmoid": LayerRecord(AFFINE)},
    }
    for what, record in others.items():
        with pytest.raises(PlanError) as error:
            check(saved, record)
        assert error.value.hint, what
    with pytest.raises(PlanError, match=r"net_quantized.pb: pool: is in INT8, but not in the record; please match"):
        check(saved, others["one less"])
    with pytest.raises(PlanError, match="sigmoid: find sigmoid failure"):
        check(saved, others["one more"])


def test_files_that_are_no_quantized_graph(made: Network, saved: Path, tmp_path: Path) -> None:
    float_file = tmp_path / "float.pb"
    float_file.write_bytes(made.graph.to_graph_def().SerializeToString())
    with pytest.raises(ModelError, match=r"has no operator of AMCT: it is a float model; give a quantized .pb"):
        check(float_file, RECORD)
    (tmp_path / "text.pb").write_text("this is not a graph")
    with pytest.raises(ModelError, match=r"is not a GraphDef, or is incomplete; give a quantized .pb"):
        check(tmp_path / "text.pb", RECORD)
    with pytest.raises(ModelError, match="cannot be read: No such file"):
        check(tmp_path / "nothing.pb", RECORD)


def test_the_map_protects_what_the_record_does_not_tell(saved: Path) -> None:
    """One step more in one weight, which is a legal weight as well."""
    content = bytearray(saved.read_bytes())
    graph_def = GraphDef.FromString(bytes(content))
    (weight,) = (node for node in graph_def.node if node.name == "conv/weight_quant/weight")
    values = weight.attr["value"].tensor.tensor_content
    place = bytes(content).index(values) + values.index(next(v for v in values if 0 < v < 60))
    content[place] += 1
    saved.write_bytes(bytes(content))
    with pytest.raises(PlanError, match=r"sha256: is not the one in net_quant.json; the file or the record was cha"):
        check(saved, RECORD)


def test_a_map_of_other_nodes_is_refused(saved: Path) -> None:
    mapping = saved.with_name("net_quant.json")
    mapping.write_text(mapping.read_text().replace('"conv/quant', '"c/quant').replace('"pool":', '"pond":'))
    with pytest.raises(PlanError, match=r"pond: is in net_quant.json, but not in the graph"):
        check(saved, RECORD)


PATIENT = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@PATIENT
@given(data=st.data())
def test_any_byte_that_changes_is_noticed(saved: Path, data: Any) -> None:
    content = saved.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    spoiled = bytearray(content)
    spoiled[place] ^= data.draw(st.integers(1, 255))
    saved.write_bytes(bytes(spoiled))
    try:
        with pytest.raises((PlanError, ModelError)):
            check(saved, RECORD)
    finally:
        saved.write_bytes(content)


@PATIENT
@given(data=st.data())
def test_damage_is_never_a_crash(saved: Path, data: Any) -> None:
    """Without the map: a byte that changes, or a file that ends early, is refused or harmless."""
    saved.with_name("net_quant.json").unlink(missing_ok=True)
    content = saved.read_bytes()
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        saved.write_bytes(content[:place])
    else:
        saved.write_bytes(
            content[:place] + bytes([content[place] ^ data.draw(st.integers(1, 255))]) + content[place + 1 :]
        )
    try:
        check(saved, RECORD)
    except AutoquantError as error:
        assert error.hint
    finally:
        saved.write_bytes(content)
