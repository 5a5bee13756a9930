"""Records that do not fit the model: every message names the entry and the way out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from graph_networks import Network

from autoquant.calibration.record import LayerRecord, record_layers
from autoquant.errors import PlanError
from autoquant.quantization.affine import Affine

SYMMETRIC, ASYMMETRIC = Affine(0.5, 0), Affine(0.5, -7)


@pytest.fixture(scope="module")
def layers(network: Callable[..., Network]) -> Mapping[str, Any]:
    """A convolution of 2 to 4 channels, one of groups, a pooling, a product of two activations, a MatMul, an Add."""

    def write(x: Any) -> None:
        import tensorflow as tf

        raw = tf.raw_ops
        y = raw.Conv2D(input=x, filter=tf.ones([1, 1, 2, 4]), strides=[1] * 4, padding="SAME", name="conv")
        raw.Conv2D(input=y, filter=tf.ones([1, 1, 2, 4]), strides=[1] * 4, padding="SAME", name="groups")
        y = raw.AvgPool(value=y, ksize=[1, 2, 2, 1], strides=[1, 2, 2, 1], padding="SAME", name="pool")
        rows = tf.reshape(y, [-1, 4, 4])
        rows = raw.BatchMatMulV2(x=rows, y=raw.Relu(features=rows), name="product")
        flat = raw.MatMul(a=tf.reduce_sum(rows, 1), b=tf.ones([4, 3]), name="dense")
        raw.AddV2(x=flat, y=raw.Sigmoid(x=flat), name="y")

    return network(write, outputs=("y", "groups"), x=(None, 4, 4, 2)).layers


def entry(scale_w: int = 0, activation: Affine = SYMMETRIC, **more: Any) -> LayerRecord:
    return LayerRecord(activation, (0.5,) * scale_w, **more)


UNKNOWN = "no layer has this name"
WRONG = {
    "unknown": ({"cnov": entry(1)}, f"cnov: find cnov failure in the model: {UNKNOWN}; did you mean 'conv'?"),
    "foreign": (
        {"xyz": entry(1)},
        f"xyz: find xyz failure in the model: {UNKNOWN}; please match the model and the record",
    ),
    "second factor": (
        {"product": entry()},
        "product:1: cannot find scale_d of layer product:1 in the record; please check the data calibration process",
    ),
    "first factor": (
        {"product:1": entry()},
        "product: cannot find scale_d of layer product in the record; please check the data calibration process",
    ),
    "offset of a factor": (
        {"product": entry(), "product:1": entry(0, ASYMMETRIC)},
        "product:1: offset_d is -7, but both factors of the product are activations; calibrate it symmetrically",
    ),
    "scale_w of a first factor": (
        {"product": entry(1), "product:1": entry()},
        "product: scale_w is given, but this BatchMatMulV2 has no weight; remove scale_w, or please match",
    ),
    "balance of a second factor": (
        {"product": entry(), "product:1": entry(0, balance=(1.0,))},
        "product:1: tensor_balance_factor is given, but this BatchMatMulV2 has no weight; remove tensor_balance_factor",
    ),
    "scale_w of a pooling": (
        {"pool": entry(1)},
        "pool: scale_w is given, but this AvgPool has no weight; remove scale_w, or please match",
    ),
    "balance of a pooling": (
        {"pool": entry(0, balance=(1.0,) * 4)},
        "pool: tensor_balance_factor is given, but this AvgPool has no weight; remove tensor_balance_factor",
    ),
    "scale_w of an input": (
        {"y:0": entry(1)},
        "y:0: scale_w is given, but this AddV2 has no weight; remove scale_w",
    ),
    "both inputs": (
        {"y:0": entry(), "y:1": entry()},
        "y:1: 'y:0' of the same operator is in the record too; remove one of them",
    ),
    "no scale_w": (
        {"conv": entry()},
        "conv: cannot find scale_w of layer conv in the record; please check the data calibration process",
    ),
    "too few scale_w": (
        {"conv": entry(3)},
        "conv: scale_w's length 3 should be 1 or the number of channels, 4; please match the model and the record",
    ),
    "scale_w per channel": (
        {"dense": entry(3)},
        "dense: scale_w's length 3 should be 1: channel_wise must be false for layer type MatMul; calibrate",
    ),
    "bits": (
        {"dense": entry(1, weight_bits=6)},
        "dense: a weight of 6 bits is for Conv2D only, not for MatMul; quantize it with 8 bits",
    ),
    "too many factors": (
        {"conv": entry(1, balance=(1.0,) * 4)},
        "conv: tensor_balance_factor's length 4 should be the number of input channels, 2; please match",
    ),
    "groups": (
        {"groups": entry(1, balance=(1.0,) * 2)},
        "groups: tensor_balance_factor is given, but a convolution with groups of channels cannot be balanced; calib",
    ),
}
"""A record, and how the message begins."""


@pytest.mark.parametrize(("record", "message"), WRONG.values(), ids=WRONG)
def test_layers_that_do_not_fit_the_record_are_named(
    layers: Mapping[str, Any], record: dict[str, LayerRecord], message: str
) -> None:
    with pytest.raises(PlanError, match="^" + re.escape(message)):
        record_layers(layers, record)


def test_layers_come_in_the_order_of_the_record(layers: Mapping[str, Any]) -> None:
    record = {
        "y:1": entry(0, ASYMMETRIC),
        "product:1": entry(),
        "conv": entry(4, ASYMMETRIC, weight_bits=7, balance=(1.0, 2.0), shift_bit=(1, 2, 3, 4)),
        "product": entry(),
        "dense": entry(1),
        "pool": entry(0, ASYMMETRIC),
    }
    found = [(layer.name, entries) for layer, entries in record_layers(layers, record)]
    assert found == [
        ("y:1", (record["y:1"],)),
        ("product", (record["product"], record["product:1"])),
        ("conv", (record["conv"],)),
        ("dense", (record["dense"],)),
        ("pool", (record["pool"],)),
    ]
