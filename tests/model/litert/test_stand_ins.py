"""What the converter makes of a graph with numbers for its weights, beside what it makes of the graph itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from graph_writing import normal, placeholder

from autoquant.errors import ModelError
from autoquant.model.graph import Graph
from autoquant.model.litert import flatbuffer, stand_ins
from autoquant.model.litert.convert import convert
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.numbered_names import without_numbers
from autoquant.model.litert.stand_ins import with_stand_ins
from autoquant.model.normalize import normalize

RNG = np.random.default_rng(4)
Write = Callable[[Any], Any]


def weight(*shape: int) -> Any:
    return tf.constant(normal(RNG, *shape), name="kernel")


def conv(x: Any, value: Any, stride: int = 1, *, name: str = "layer") -> Any:
    return tf.nn.conv2d(x, value, stride, "SAME", name=name)


def depthwise(x: Any, value: Any) -> Any:
    return tf.compat.v1.nn.depthwise_conv2d_native(x, value, (1, 1, 1, 1), "SAME", name="layer")


def flat(x: Any) -> Any:
    return tf.reshape(x, (-1, 6 * 6 * 64))


def transposed(x: Any, value: Any) -> Any:
    shape = tf.stack([tf.shape(x)[0], 12, 12, value.shape[2]])
    return tf.nn.conv2d_transpose(x, value, shape, 2, name="layer")


def matmul(x: Any, value: Any, **options: Any) -> Any:
    return tf.raw_ops.MatMul(a=x, b=value, name="layer", **options)


def batches(x: Any, value: Any, **options: Any) -> Any:
    return tf.raw_ops.BatchMatMulV2(x=x, y=value, name="layer", **options)


def looked_up(x: Any, value: Any) -> Any:
    return tf.gather(value, tf.cast(tf.abs(x[:, :3, 0, 0]) * 10, tf.int32), name="layer")


def two_convolutions(x: Any) -> Any:
    """Two layers alike, which the converter makes one of, and one that differs in a value."""
    value = normal(RNG, 1, 1, 64, 64)
    other = value.copy()
    other[0, 0, 31, 31] += 1.0
    branches = [conv(x, tf.constant(one), name=f"layer_{n}") for n, one in enumerate((value, value, other))]
    return tf.concat(branches, -1)


def two_layouts(x: Any) -> Any:
    """A matrix that one operator has as it is, and one like it transposed."""
    value, rows = normal(RNG, 64, 64), tf.reshape(x, (-1, 36, 64))
    stack = tf.raw_ops.BatchMatMulV2(x=rows, y=tf.constant(value), adj_x=False)
    return stack + tf.reshape(matmul(tf.reshape(rows, (-1, 64)), tf.constant(value)), (-1, 36, 64))


def named_like_numbers(x: Any) -> Any:
    """Tensors whose names are those that the converter makes distinct by numbers."""
    for name in ("layer", "layer1", "layer2", "layer_1", "layer3"):
        x = conv(x, weight(1, 1, 64, 64), name=name)
    return x


KINDS: Mapping[str, Write] = {
    "convolution": lambda x: conv(x, weight(3, 3, 64, 32), 2),
    "of as many channels": lambda x: conv(x, weight(3, 3, 64, 64)),
    "as many of all": lambda x: conv(tf.tile(x[..., :14], (1, 3, 3, 1)), weight(14, 14, 14, 14)),
    "pointwise": lambda x: tf.nn.relu(tf.nn.bias_add(conv(x, weight(1, 1, 64, 64)), weight(64))),
    "dilated": lambda x: tf.nn.conv2d(x, weight(3, 3, 64, 8), 1, "VALID", dilations=2, name="layer"),
    "groups": lambda x: conv(x, weight(3, 3, 16, 64)),
    "conv1d": lambda x: tf.nn.conv1d(x[:, 0], weight(3, 64, 64), 1, "SAME", name="layer/conv"),
    "depthwise": lambda x: depthwise(x, weight(5, 5, 64, 1)),
    "depthwise, twice": lambda x: depthwise(x, weight(5, 5, 64, 2)),
    "transposed": lambda x: transposed(x, weight(3, 3, 24, 64)),
    "transposed, as many channels": lambda x: transposed(x, weight(3, 3, 64, 64)),
    "matmul": lambda x: matmul(flat(x), weight(6 * 6 * 64, 7)),
    "square matmul": lambda x: matmul(tf.reshape(x, (-1, 64)), weight(64, 64)),
    "large matmul": lambda x: tf.nn.relu(matmul(flat(x), weight(6 * 6 * 64, 50)) + weight(50)),
    "matmul of the transpose": lambda x: matmul(tf.reshape(x, (-1, 64)), weight(64, 64), transpose_b=True),
    "batches": lambda x: batches(x, weight(64, 64)),
    "batches of three axes": lambda x: batches(x[:, 0], weight(64, 32)),
    "batches of the transpose": lambda x: batches(x, weight(64, 64), adj_y=True),
    "two of one name": lambda x: matmul(matmul(tf.reshape(x, (-1, 64)), weight(64, 64)), weight(64, 900)),
    "lookup": lambda x: looked_up(x, weight(300, 64)),
    "two_convolutions": two_convolutions,
    "two of one matrix": two_layouts,
    "transposed data": lambda x: matmul(tf.reshape(tf.transpose(x, (0, 3, 1, 2)), (-1, 6 * 6 * 64)), weight(2304, 9)),
    "names like numbers": named_like_numbers,
    "a transposition of nothing": lambda x: matmul(tf.reshape(tf.transpose(x, (0, 1, 2, 3)), (-1, 64)), weight(64, 64)),
    "einsum": lambda x: matmul(tf.reshape(tf.einsum("bhwc,cd->bdhw", x, weight(64, 16)), (-1, 576)), weight(576, 9)),
    "rescaled": lambda x: conv(x * weight(64), weight(1, 1, 64, 32)),
    "transposition of one channel": lambda x: matmul(
        tf.reshape(tf.transpose(x[..., :1], (0, 3, 1, 2)), (-1, 36)), weight(36, 64)
    ),
    "zeros beside it": lambda x: conv(x, weight(3, 3, 64, 64)) + np.zeros((6, 6, 64), np.float32),
}
COMPUTED: Mapping[str, Write] = {
    "times a vector": lambda x: conv(x, weight(3, 3, 64, 32)) * weight(32),
    "times almost one": lambda x: conv(x, weight(3, 3, 64, 32)) * np.nextafter(np.float32(1), np.float32(0)),
    "matmul times a vector": lambda x: matmul(tf.reshape(x, (-1, 64)), weight(64, 64)) * weight(64),
}
"""What is not certain to be the same."""


@pytest.fixture
def small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers for weights of a few thousand bytes too."""
    monkeypatch.setattr(stand_ins, "LEAST", 4096)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of the constants in each graph that the converter is given."""
    from autoquant.model.litert import convert as module

    sizes, content = [], module._content

    def noted(graph: Graph, **options: Any) -> bytes:
        sizes.append(graph.size)
        return content(graph, **options)

    monkeypatch.setattr(module, "_content", noted)
    return sizes


def plain(graph: Graph, **options: Any) -> LiteGraph:
    """The graph converted with its weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stand_ins, "LEAST", 1 << 60)
        return convert(graph, **options)


def comparable(lite: LiteGraph) -> tuple[Any, ...]:
    """All that a file says, to the byte, but which versions of LiteRT run it: it may say one that knows FILL."""
    model = flatbuffer.read(lite.content)
    for entry in model.metadata or ():
        assert entry.name == b"min_runtime_version"
        model.buffers[entry.buffer].data = None
    return flatbuffer.write(model), lite.inputs, lite.outputs, lite.layers, lite.missing, lite.ops


def written(build: Callable[..., Graph], write: Write) -> Graph:
    return normalize(build(lambda: tf.identity(write(placeholder(None, 6, 6, 64)), name="y")))


@pytest.mark.parametrize("write", KINDS.values(), ids=KINDS.keys())
@pytest.mark.usefixtures("small_ones")
def test_a_file_is_the_same_as_with_the_weights(
    write: Write, build: Callable[..., Graph], given: list[int], run: Callable[..., list[Any]], ran_lite: Any
) -> None:
    graph = written(build, write)
    lite = convert(graph)
    assert given == [with_stand_ins(graph).graph.size]
    assert graph.size - given[0] >= 4096
    assert comparable(lite) == comparable(plain(graph))
    x = normal(np.random.default_rng(5), 2, 6, 6, 64)
    (want,) = run(graph, {"x": x})
    np.testing.assert_allclose(ran_lite(lite.content, {"x": x})["y"], want, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("write", COMPUTED.values(), ids=COMPUTED.keys())
@pytest.mark.usefixtures("small_ones")
def test_what_is_not_certain_is_converted_with_the_weights(
    write: Write, build: Callable[..., Graph], given: list[int]
) -> None:
    graph = build(lambda: tf.identity(write(placeholder(None, 6, 6, 64)), name="y"))
    lite = convert(graph)
    assert given[1:] == [graph.size]
    assert given[0] < graph.size
    assert comparable(lite) == comparable(plain(graph))


UNLIKE: Mapping[str, Write] = {
    "small": lambda x: conv(x, weight(1, 1, 64, 8)),
    "one number throughout": lambda x: conv(x, tf.ones((3, 3, 64, 32)) * 1.7),
    "of one channel": lambda x: depthwise(x[..., :1], weight(9, 9, 1, 64)),
    "of as many groups": lambda x: conv(x, weight(5, 5, 1, 64)),
    "read twice": lambda x: conv(x, (value := weight(3, 3, 64, 64))) + tf.reduce_sum(value),
    "a stack of matrices": lambda x: batches(x, weight(6, 64, 64)),
    "with infinity": lambda x: conv(x, tf.constant([[[[np.inf]]]]) * weight(3, 3, 64, 64)),
    "no weight": lambda x: x + weight(6, 6, 64),
    "looked up by columns": lambda x: tf.gather(weight(64, 64), tf.cast(x[:, 0, 0, 0], tf.int32), axis=1),
}


@pytest.mark.parametrize("write", UNLIKE.values(), ids=UNLIKE.keys())
@pytest.mark.usefixtures("small_ones")
def test_these_are_converted_as_they_are(write: Write, build: Callable[..., Graph], given: list[int]) -> None:
    graph = build(lambda: tf.identity(write(placeholder(None, 6, 6, 64)), name="y"))
    assert with_stand_ins(graph).weights == {}
    convert(graph)
    assert given == [graph.size]


@pytest.mark.usefixtures("small_ones")
def test_numbers_are_none_that_a_constant_begins_with(build: Callable[..., Graph]) -> None:
    """And equal weights have the same one."""

    def write(taken: tuple[float, ...] = ()) -> Graph:
        def compute() -> None:
            two_convolutions(placeholder(None, 6, 6, 64))
            for index, number in enumerate(taken):
                tf.constant(number, name=f"taken_{index}")

        return build(compute, outputs=["concat", *(f"taken_{index}" for index in range(len(taken)))])

    def numbers(graph: Graph) -> list[float]:
        return list(with_stand_ins(graph).weights)

    found = numbers(write())
    assert len(found) == len(set(found)) == 2
    assert all(1.5 <= number < 2 and number == np.float32(number) for number in found)
    others = numbers(write(tuple(found)))
    assert len(others) == 2
    assert not set(others) & set(found)


@pytest.mark.usefixtures("small_ones")
def test_a_graph_that_is_cut(build: Callable[..., Graph], given: list[int]) -> None:
    graph = written(build, lambda x: conv(conv(x, weight(3, 3, 64, 64), name="first"), weight(1, 1, 64, 64)))
    lite = convert(graph, cuts=["first"])
    assert max(given) == 0
    assert comparable(lite) == comparable(plain(graph, cuts=["first"]))


@pytest.mark.usefixtures("small_ones")
def test_a_weight_that_no_output_needs(build: Callable[..., Graph], given: list[int]) -> None:
    """As behind the last of the tensors that calibration fetches."""
    graph = written(build, lambda x: conv(conv(x, weight(3, 3, 64, 64), name="first"), weight(1, 1, 64, 64)))
    graph = replace(graph, outputs=("first",))
    lite = convert(graph)
    assert given == [0]
    assert comparable(lite) == comparable(plain(graph))


@pytest.mark.usefixtures("small_ones")
def test_a_refusal_is_that_of_the_graph(build: Callable[..., Graph], given: list[int]) -> None:
    graph = written(build, lambda x: tf.raw_ops.Betainc(a=conv(x, weight(3, 3, 64, 64)), b=x, x=x))
    with pytest.raises(ModelError) as refused:
        convert(graph)
    with pytest.raises(ModelError) as wanted:
        plain(graph)
    assert str(refused.value) == str(wanted.value)
    assert given[1:] == [graph.size] * 2


@pytest.mark.usefixtures("small_ones")
def test_a_loop_beside_a_weight(build: Callable[..., Graph], given: list[int]) -> None:
    """A file of several parts numbers the names of all together."""

    def write(x: Any) -> Any:
        y = conv(x, weight(3, 3, 64, 64))
        return tf.while_loop(lambda y: tf.reduce_sum(y) < 1e9, lambda y: [y * 2 + 1], [y])[0]

    graph = written(build, write)
    lite = convert(graph)
    assert given[-1] == graph.size
    assert comparable(lite) == comparable(plain(graph))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras and NumPy 2
@pytest.mark.parametrize("name", ["MobileNetV2", "MobileNetV3Small"])
def test_whole_networks(name: str, tmp_path: Any, given: list[int]) -> None:
    import keras

    from autoquant.model.open import open_model

    keras.utils.set_random_seed(1)
    options = {"alpha": 0.5} if "Mobile" in name and "V2" in name else {}
    network = getattr(keras.applications, name)(weights=None, input_shape=(96, 96, 3), **options)
    network.save(tmp_path / "network.keras")
    graph = open_model(tmp_path / "network.keras").graph
    lite = convert(graph)
    assert len(given) == 1
    assert given[0] < graph.size / 4
    assert comparable(lite) == comparable(plain(graph))


@pytest.mark.parametrize(
    ("names", "added", "first", "nodes", "want"),
    [
        (["a", "a1", "a2"], [(0, 1, 2)], (), ("a",), {2: "a"}),
        (["a", "a1", "a2", "b", "a3"], [(0, 1, 2)], (), (), {2: "a", 4: "a1"}),
        (["a", "a1", "a2", "a3", "a4", "a5"], [(0, 1, 2), (3, 4, 5)], (), (), {2: "a", 5: "a1"}),
        (["a1", "a2", "a3", "a4"], [(0, 1, 2)], (), (), {2: "a1", 3: "a2"}),
        (["a1", "a2", "a3", "b", "a"], [(0, 1, 2)], {4}, (), {4: "a", 2: "a1"}),
        (["a1", "a2", "a3", "b", "a"], [(0, 1, 2)], (), (), None),
        (["a", "a1", "a2", "a3"], [(0, 1, 2)], (), ("a3",), None),
        (["a", "a2", "a1", "a3"], [(0, 1, 2)], (), (), None),
        (["a11", "a12", "a13"], [(0, 1, 2)], (), (), None),
        (["a", "b", "c"], [(0, 1, 2)], (), (), None),
        (["a"], [], (), (), {}),
    ],
    ids=str,
)
def test_names_without_what_was_added(
    names: list[str], added: list[tuple[int, ...]], first: Any, nodes: Any, want: Mapping[int, str] | None
) -> None:
    assert without_numbers(names, added, first, nodes) == want
