"""The function library against the arithmetic that AMCT documents, computed in NumPy float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoquant.model.graph import GraphDef, make_const, make_node
from autoquant.model.shapes import make_placeholder
from autoquant.targets.ascend_functions import FLOAT, WINDOW, library, type_attr


def run(nodes, fetch, feeds):
    import tensorflow as tf

    graph_def = GraphDef(node=nodes, library=library())
    graph_def.versions.producer = 1882
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(graph_def, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            return session.run(f"{fetch}:0", {f"{name}:0": value for name, value in feeds.items()})


@settings(max_examples=10, deadline=None)
@given(
    scale=st.floats(2.0**-10, 2.0**10, width=32),
    offset=st.integers(-128, 127),
    values=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20),
)
def test_quant_gives_offset_free_integers(scale: float, offset: int, values: list[float]):
    x = np.array(values, np.float32)
    quant = make_node(
        "y", "AscendQuant", ["x"], T=type_attr(FLOAT), quant_bits=8, scale=float(scale), offset=float(offset)
    )
    got = run([make_placeholder("x", FLOAT, None), quant], "y", {"x": x})
    product = (x * np.float32(scale)).astype(np.float64)  # the operator multiplies in float32
    want = np.clip(np.rint(product) + offset, -128, 127) - offset
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 1, 3, 2), (1, 1, 1, 2)])
def test_weight_quant_takes_the_offset_away(shape: tuple[int, ...]):
    rng = np.random.default_rng(0)
    weight = rng.integers(-128, 128, (2, 2, 3, 2), np.int8)
    offset = rng.integers(-128, 128, shape, np.int8)
    nodes = [
        make_const("w", weight),
        make_const("offset", offset),
        make_node("y", "AscendWeightQuant", ["w", "offset"], T=type_attr(FLOAT)),
    ]
    np.testing.assert_array_equal(run(nodes, "y", {}), weight.astype(np.float64) - offset)


@pytest.mark.parametrize("channels", [1, 5])
def test_dequant_reads_the_scale_from_the_low_bits(channels: int):
    rng = np.random.default_rng(1)
    scales = rng.uniform(1e-4, 1e-2, channels).astype(np.float32)
    packed = scales.view(np.uint32).astype(np.uint64) | np.uint64(9 << 40)  # bits 47:40 are offset_w, not the scale
    x = rng.integers(-(2**20), 2**20, (2, 3, 5)).astype(np.float32)
    dequant = make_node("y", "AscendDequant", ["x", "scale"], T=type_attr(FLOAT), ksize=WINDOW, data_format=b"NHWC")
    got = run([make_placeholder("x", FLOAT, None), make_const("scale", packed), dequant], "y", {"x": x})
    np.testing.assert_allclose(got, x.astype(np.float64) * scales.astype(np.float64), rtol=1e-6)


def test_signatures_are_those_of_amct():
    """Attributes and argument names as AMCT registers them: a deployed graph is matched by them."""
    found = {
        f.signature.name: (
            [argument.name for argument in f.signature.input_arg],
            sorted(attribute.name for attribute in f.signature.attr),
        )
        for f in library().function
    }
    assert found == {
        "AscendQuant": (["x"], ["T", "offset", "quant_bits", "scale"]),
        "AscendWeightQuant": (["x", "offset_w"], ["T"]),
        "AscendDequant": (["x", "deq_scale"], ["T", "data_format", "ksize"]),
    }
