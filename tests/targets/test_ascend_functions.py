"""The function library against the arithmetic that AMCT documents, computed in NumPy float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from autoquant.model.graph import Graph, GraphDef
from autoquant.model.nodes import FLOAT, make_const, make_node
from autoquant.model.shapes import make_placeholder
from autoquant.targets.ascend_functions import functions_for, library
from autoquant.targets.attributes import type_attr


def graph_of(nodes: list[Any], functions: Any) -> Any:
    graph_def = GraphDef(node=nodes, library=functions)
    graph_def.versions.producer = 1882
    return graph_def


def run(nodes: list[Any], fetch: str, feeds: dict[str, NDArray[Any]], functions: Any = None) -> Any:
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(graph_of(nodes, functions or library()), name="")
        with tf.compat.v1.Session(graph=graph) as session:
            return session.run(f"{fetch}:0", {f"{name}:0": value for name, value in feeds.items()})


def quant(bits: int, scale: float, offset: int) -> Any:
    attributes = {"quant_bits": bits, "scale": float(scale), "offset": float(offset)}
    return make_node("y", "AscendQuant", ["x"], T=type_attr(FLOAT), **attributes)


@settings(max_examples=10, deadline=None)
@given(
    bits=st.sampled_from([4, 8, 16]),
    scale=st.floats(2.0**-10, 2.0**10, width=32),
    offset=st.integers(-128, 127),
    values=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20),
)
def test_quant_gives_offset_free_integers(bits: int, scale: float, offset: int, values: list[float]) -> None:
    x = np.array(values, np.float32)
    got = run([make_placeholder("x", FLOAT, None), quant(bits, scale, offset)], "y", {"x": x})
    product = (x * np.float32(scale)).astype(np.float64)  # the operator multiplies in float32
    want = np.clip(np.rint(product) + offset, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) - offset
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("offset", [0.0, 128.0])
def test_anti_quant_only_scales(offset: float) -> None:
    attributes = {"scale": 0.25, "offset": offset}
    anti = make_node("y", "AscendAntiQuant", ["x"], T=type_attr(FLOAT), **attributes)
    got = run([make_placeholder("x", FLOAT, None), anti], "y", {"x": np.array([-128.0, 0.0, 255.0], np.float32)})
    assert got.tolist() == [-32.0, 0.0, 63.75]


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 1, 3, 2), (1, 1, 1, 2)])
def test_weight_quant_takes_the_offset_away(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    weight = rng.integers(-128, 128, (2, 2, 3, 2), np.int8)
    offset = rng.integers(-128, 128, shape, np.int8)
    nodes = [
        make_const("w", weight),
        make_const("offset", offset),
        make_node("y", "AscendWeightQuant", ["w", "offset"], T=type_attr(FLOAT)),
    ]
    np.testing.assert_array_equal(run(nodes, "y", {}), weight.astype(np.float64) - offset)


def packed(scales: NDArray[Any], shifts: NDArray[Any]) -> NDArray[Any]:
    """Bits 47:40 are offset_w, which is neither scale nor shift."""
    return scales.view(np.uint32).astype(np.uint64) | shifts.astype(np.uint64) << np.uint64(32) | np.uint64(9 << 40)


def dequant_nodes(deq_scale: NDArray[Any], ksize: list[int], data_format: str) -> list[Any]:
    example = library().function[1].attr["ksize"]
    window = type(example)()
    window.list.i.extend(ksize)
    attributes = {"T": type_attr(FLOAT), "ksize": window, "data_format": data_format.encode()}
    return [
        make_placeholder("x", FLOAT, None),
        make_const("scale", deq_scale),
        make_node("y", "AscendDequant", ["x", "scale"], **attributes),
    ]


@pytest.mark.parametrize("channels", [1, 5])
def test_plain_dequant_reads_the_scale_from_the_low_bits(channels: int) -> None:
    rng = np.random.default_rng(1)
    scales = rng.uniform(1e-4, 1e-2, channels).astype(np.float32)
    x = rng.integers(-(2**20), 2**20, (2, 3, 5)).astype(np.float32)
    nodes = dequant_nodes(packed(scales, np.zeros(channels)), [1, 1], "NHWC")
    got = run(nodes, "y", {"x": x}, library(complete=False))
    np.testing.assert_allclose(got, x.astype(np.float64) * scales.astype(np.float64), rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    shape=st.sampled_from([(4, 5), (2, 3, 5), (2, 3, 4, 5), (2, 3, 2, 4, 5)]),
    channels=st.sampled_from([1, 5]),
    first=st.booleans(),
    ksize=st.lists(st.integers(1, 9), min_size=2, max_size=2),
    shifts=st.one_of(st.just([0] * 5), st.lists(st.integers(0, 16), min_size=5, max_size=5)),
    seed=st.integers(0, 100),
)
def test_dequant_shifts_clips_and_scales_each_channel(
    shape: tuple[int, ...], channels: int, first: bool, ksize: list[int], shifts: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    scales = rng.uniform(1e-4, 1e-2, channels).astype(np.float32)
    shift = np.array(shifts[:channels])
    x = rng.integers(-(2**18), 2**18, shape).astype(np.float32)
    channel_axis = 1 if first else -1
    moved = np.moveaxis(x, -1, 1) if first else x
    got = run(dequant_nodes(packed(scales, shift), ksize, "NCHW" if first else "NHWC"), "y", {"x": moved})
    area = ksize[0] * ksize[1]
    sums = (x * np.float32(area)).astype(np.float64)  # the operator multiplies in float32
    kept = np.where(shift > 0, np.clip(np.floor(sums / 2.0**shift), -(2**15), 2**15 - 1), sums)
    want = kept * scales.astype(np.float64) * 2.0**shift / area
    np.testing.assert_allclose(np.moveaxis(got, channel_axis, -1), want, rtol=1e-5, atol=0.0)


def test_the_whole_formula_is_there_only_where_it_is_needed() -> None:
    """It costs time in every layer of every model, and nearly none needs it."""
    one = np.array([0.5], np.float32)
    cases = {("NHWC", 0): False, ("NHWC", 3): True, ("NCHW", 0): True}
    for (data_format, shift), complete in cases.items():
        nodes = dequant_nodes(packed(one, np.array([shift])) & np.uint64(2**40 - 1), [2, 2], data_format)
        graph = Graph.from_graph_def(GraphDef(node=nodes), inputs=["x"], outputs=["y"])
        assert functions_for(graph) == library(complete=complete)
    assert library(complete=True) != library(complete=False)


def test_signatures_are_those_of_amct() -> None:
    """Attributes and argument names as AMCT registers them: a deployed graph is matched by them."""
    for complete in (True, False):
        found = {
            f.signature.name: (
                [argument.name for argument in f.signature.input_arg],
                sorted(attribute.name for attribute in f.signature.attr),
            )
            for f in library(complete=complete).function
        }
        assert found == {
            "AscendAntiQuant": (["x"], ["T", "offset", "scale"]),
            "AscendDequant": (["x", "deq_scale"], ["T", "data_format", "ksize"]),
            "AscendQuant": (["x"], ["T", "offset", "quant_bits", "scale"]),
            "AscendWeightQuant": (["x", "offset_w"], ["T"]),
        }
