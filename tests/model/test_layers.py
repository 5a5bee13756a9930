import numpy as np
import pytest

from autoquant.errors import ModelError
from autoquant.model.layers import CHANNEL_AXES, Layer, survey
from autoquant.model.normalize import normalize


def placeholder(*shape, name: str = "x", dtype: str = "float32"):
    import tensorflow as tf

    return tf.compat.v1.placeholder(dtype, shape, name=name)


def ones(*shape):
    return np.ones(shape, np.float32)


def depthwise(x, weight, stride=1, padding="SAME", dilation=1):
    import tensorflow as tf

    return tf.raw_ops.DepthwiseConv2dNative(
        input=x,
        filter=tf.constant(weight),
        strides=[1, stride, stride, 1],
        padding=padding,
        dilations=[1, dilation, dilation, 1],
        name="layer",
    )


def conv(weight, stride=1, padding="SAME", dilation=1):
    import tensorflow as tf

    return lambda x: tf.nn.conv2d(x, tf.constant(weight), stride, padding, dilations=dilation, name="layer")


def matmul(weight):
    import tensorflow as tf

    return lambda x: tf.matmul(x, tf.constant(weight), name="layer")


# what, input shape, how the layer is made, output shape for one sample, multiply-adds by hand
MACS = [
    ("same", (None, 8, 8, 3), lambda: conv(ones(3, 3, 3, 5)), (1, 8, 8, 5), 8 * 8 * 5 * 27),
    ("same, stride 2", (None, 9, 8, 3), lambda: conv(ones(3, 3, 3, 5), 2), (1, 5, 4, 5), 5 * 4 * 5 * 27),
    ("valid", (None, 8, 8, 3), lambda: conv(ones(3, 5, 3, 4), 1, "VALID"), (1, 6, 4, 4), 6 * 4 * 4 * 45),
    ("valid, stride 2", (None, 8, 8, 3), lambda: conv(ones(3, 3, 3, 4), 2, "VALID"), (1, 3, 3, 4), 9 * 4 * 27),
    ("dilated", (None, 9, 9, 2), lambda: conv(ones(3, 3, 2, 4), 1, "VALID", 2), (1, 5, 5, 4), 25 * 4 * 18),
    (
        "explicit",
        (None, 6, 6, 1),
        lambda: conv(ones(3, 3, 1, 2), 1, [[0, 0], [2, 0], [0, 0], [0, 0]]),
        (1, 6, 4, 2),
        432,
    ),
    ("grouped", (None, 4, 4, 6), lambda: conv(ones(1, 1, 2, 9)), (1, 4, 4, 9), 16 * 9 * 2),
    ("depthwise", (None, 6, 6, 4), lambda: lambda x: depthwise(x, ones(3, 3, 4, 2)), (1, 6, 6, 8), 36 * 8 * 9),
    ("depthwise, stride", (None, 7, 7, 4), lambda: lambda x: depthwise(x, ones(3, 3, 4, 1), 2), (1, 4, 4, 4), 576),
    ("matmul", (None, 10), lambda: matmul(ones(10, 7)), (1, 7), 70),
    ("a fixed batch", (16, 10), lambda: matmul(ones(10, 7)), (16, 7), 70),
    ("an unknown height", (None, None, 8, 3), lambda: conv(ones(3, 3, 3, 5)), (1, None, 8, 5), None),
    ("an unknown rank", None, lambda: conv(ones(3, 3, 3, 5)), (None, None, None, 5), None),
]


@pytest.mark.parametrize(("shape", "make", "output_shape", "macs"), [m[1:] for m in MACS], ids=[m[0] for m in MACS])
def test_multiply_adds_for_one_sample(build, shape, make, output_shape, macs) -> None:
    import tensorflow as tf

    graph = build(lambda: make()(tf.compat.v1.placeholder(tf.float32, shape, name="x")), outputs=("layer",))
    (layer,) = survey(graph).layers
    assert (layer.output_shape, layer.macs) == (output_shape, macs)


def test_a_layer_says_what_it_reads_and_what_it_has(build) -> None:
    import tensorflow as tf

    def write():
        x = tf.nn.relu(placeholder(None, 4, 4, 2), name="before")
        t = tf.nn.conv2d(x, tf.constant(ones(1, 1, 2, 5), name="w"), 1, "SAME", name="c")
        t = tf.nn.bias_add(t, ones(5), name="b")
        t = depthwise(t, ones(3, 3, 5, 2))
        tf.nn.relu(t, name="y")

    first, second = survey(build(write)).layers
    shape = (1, 4, 4, 5)
    assert first == Layer("c", "Conv2D", "before", "w", (1, 1, 2, 5), (3,), "b", shape, 160)
    assert (first.channels, first.parameters) == (5, 15)
    assert (second.bias, second.channel_axes, second.channels, second.parameters) == (None, (2, 3), 10, 90)


@pytest.mark.parametrize("given", [(6, 7, 3), (1, 6, 7, 3), (50, 6, 7, 3)], ids=["sample", "one", "batch"])
@pytest.mark.parametrize("shape", [(None, None, None, 3), (None, 6, None, None)])
def test_open_shapes_can_be_given(build, given, shape) -> None:
    graph = build(lambda: conv(ones(3, 3, 3, 2))(placeholder(*shape)), outputs=("layer",))
    assert survey(graph, input_shapes={"x": given}).layers[0].macs == 6 * 7 * 2 * 27


def test_a_shape_of_unknown_rank_can_be_given_with_its_batch(build) -> None:
    import tensorflow as tf

    graph = build(lambda: conv(ones(3, 3, 3, 2))(tf.compat.v1.placeholder(tf.float32, name="x")), outputs=("layer",))
    assert survey(graph, input_shapes={"x": (8, 6, 7, 3)}).layers[0].macs == 6 * 7 * 2 * 27


@pytest.mark.parametrize(
    ("given", "message"),
    [({"x": (5, 5, 4)}, r"\(5, 5, 4\) is given but the file says"), ({"z": (1,)}, "no input; inputs: x")],
)
def test_a_shape_that_contradicts_the_file_is_refused(build, given, message) -> None:
    graph = build(lambda: conv(ones(3, 3, 3, 2))(placeholder(None, 5, 5, 3)), outputs=("layer",))
    with pytest.raises(ModelError, match=message):
        survey(graph, input_shapes=given)


def test_a_dense_layer_over_a_sequence_counts_every_step(build) -> None:
    import tensorflow as tf

    def write():
        x = placeholder(None, 12, 10)
        t = tf.matmul(tf.reshape(x, [-1, 10]), ones(10, 7), name="m")
        tf.reshape(t, [-1, 12, 7], name="y")

    assert survey(build(write)).layers[0].macs == 12 * 10 * 7


def rejections():
    """What, how it is written over x (None, 4, 4, 2), what is rejected."""
    import tensorflow as tf

    raw = tf.raw_ops

    def flat(x):
        return tf.reshape(x, [-1, 32])

    def shared(x):
        w = tf.constant(ones(32, 32), name="w")
        return tf.matmul(tf.nn.relu(tf.matmul(flat(x), w, name="first")), w, name="second")

    def halves(x):
        weight = np.ones((1, 1, 2, 3), np.float16)
        return tf.nn.conv2d(tf.cast(x, tf.float16), weight, 1, "SAME", name="r")

    def looped(x):
        body = tf.function(lambda t: tf.matmul(t, ones(32, 32))).get_concrete_function(tf.TensorSpec([None, 32]))
        return tf.raw_ops.PartitionedCall(args=[flat(x)], Tout=[tf.float32], f=body, name="r")[0]

    nan = np.array([[np.nan]], np.float32) * ones(32, 3)
    cube = ones(1, 1, 1, 2, 3)
    later = "not supported by this version"
    return {
        "dynamic weight": (
            lambda x: tf.matmul(flat(x), tf.transpose(flat(x)), name="r"),
            "its weight 'transpose' is not",
        ),
        "transpose_a": (
            lambda x: tf.matmul(flat(x), ones(4, 3)[:4], transpose_a=True, name="r"),
            "transposes a factor",
        ),
        "transpose_b": (lambda x: tf.matmul(flat(x), ones(3, 32), transpose_b=True, name="r"), "transposes a factor"),
        "shared": (shared, "its weight 'w' is shared with"),
        "half": (halves, "computes in half, not in float"),
        "not finite": (lambda x: tf.matmul(flat(x), nan, name="r"), "holds NaN or infinity"),
        "depthwise": (lambda x: depthwise(x, ones(3, 3, 2, 1), 2, dilation=2), "both a stride and a dilation"),
        "Conv3D": (lambda x: tf.nn.conv3d(x[:, None], cube, [1] * 5, "SAME", name="r"), later),
        "Conv2DBackpropInput": (
            lambda x: tf.nn.conv2d_transpose(x, ones(2, 2, 3, 2), [4, 8, 8, 3], 2, name="r"),
            later,
        ),
        "Conv3DBackpropInputV2": (
            lambda x: tf.nn.conv3d_transpose(x[:, None], ones(1, 2, 2, 3, 2), [4, 1, 8, 8, 3], 2, name="r"),
            later,
        ),
        "BatchMatMulV2": (lambda x: raw.BatchMatMulV2(x=x, y=ones(1, 1, 2, 3), name="r"), later),
        "BatchMatMul": (lambda x: raw.BatchMatMul(x=x, y=x, adj_y=True, name="r"), "both factors are activations"),
        "Einsum": (lambda x: raw.Einsum(inputs=[x, ones(2, 3)], equation="abcd,de->abce", name="r"), later),
        "AvgPool": (lambda x: tf.nn.avg_pool2d(x, 2, 2, "SAME", name="r"), later),
        "MaxPool": (lambda x: tf.nn.max_pool2d(x, 2, 2, "SAME", name="r"), later),
        "function": (looped, "inside its body stays in float"),
    }


REJECTED = ["dynamic weight", "transpose_a", "transpose_b", "shared", "half", "not finite", "depthwise", "function"]
REJECTED += ["Conv3D", "Conv2DBackpropInput", "Conv3DBackpropInputV2", "BatchMatMulV2", "BatchMatMul", "Einsum"]
REJECTED += ["AvgPool", "MaxPool"]


@pytest.mark.parametrize("what", REJECTED)
def test_what_looks_quantizable_but_is_not_has_a_reason(build, what: str) -> None:
    import tensorflow as tf

    def write():
        x = placeholder(4, 4, 4, 2)
        tf.nn.conv2d(x, ones(1, 1, 2, 3), 1, "SAME", name="good")
        tf.identity(rejections()[what][0](x), name="y")

    found = survey(build(write, outputs=("good", "y")))
    assert [layer.name for layer in found.layers] == ["good"]
    assert set(REJECTED) == set(rejections())
    assert {r.op for r in found.rejected} <= {*CHANNEL_AXES, what, "PartitionedCall"}
    assert len(found.rejected) == (2 if what == "shared" else 1)
    assert all(rejections()[what][1] in r.reason for r in found.rejected)


def test_a_graph_without_a_layer_is_refused_with_the_reasons(build) -> None:
    import tensorflow as tf

    graph = build(lambda: tf.nn.max_pool2d(placeholder(None, 4, 4, 2), 2, 2, "SAME", name="y"))
    with pytest.raises(ModelError, match=r"no layer that can be quantized: 'y' \(MaxPool\): not supported"):
        survey(graph)
    plain = build(lambda: tf.nn.relu(placeholder(None, 2), name="y"))
    with pytest.raises(ModelError, match="it has no Conv2D, DepthwiseConv2dNative, MatMul"):
        survey(plain)


def test_layers_are_in_the_order_of_the_data(build) -> None:
    import tensorflow as tf

    def write():
        t = placeholder(None, 4)
        for i in range(4):
            t = tf.nn.relu(tf.matmul(t, ones(4, 4), name=f"m{i}") * ones(4))
        tf.identity(t, name="y")

    found = survey(normalize(build(write)))
    assert [layer.name for layer in found.layers] == ["m0", "m1", "m2", "m3"]
    assert all(layer.bias is not None for layer in found.layers)
    assert found.rejected == ()
