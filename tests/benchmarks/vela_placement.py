"""What Vela, the compiler of Arm Ethos-U, leaves to the CPU of small INT8 files, beside what the profiles say.

    pip install ethos-u-vela==5.2.0    # in an environment of its own
    python tests/benchmarks/vela_placement.py --vela ENVIRONMENT/bin/vela [--networks conv,gather]

Each network is a kind of layer, or an operator, with sizes within and beyond the limits of SUPPORTED_OPS.md. It is
built for ethos-u55 and ethos-u85, with a scale for every channel and with one, all of it in INT8 whatever the profile
says: what `violations` lists must then be the operators that Vela reports as left to the CPU, but for those in float.
A line for each file that differs, and how many agree.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lite_networks import SavedLite, calibrated

from autoquant.model.graph import Graph
from autoquant.model.model import Model
from autoquant.model.open import prepare_graph
from autoquant.targets.litert import LiteRTTarget
from autoquant.targets.profiles.check import violations
from autoquant.targets.profiles.table import PROFILES

DEVICES = {"ethos-u55": "ethos-u55-128", "ethos-u85": "ethos-u85-256"}
"""Profile -> Vela's name of an accelerator."""
ON_CPU = re.compile(r"operator: (\w+), ofm")
IMAGE, ROW, ROWS = (1, 24, 24, 4), (1, 16), (1, 6, 16)


def tf() -> Any:
    import tensorflow

    return tensorflow


def weight(*shape: int) -> Any:
    return tf().constant(np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32))


def conv(x: Any, kernel: int = 3, results: int = 4, stride: int = 1, padding: str = "SAME", **options: Any) -> Any:
    channels = options.pop("channels", 4)
    return tf().nn.conv2d(x, weight(kernel, kernel, channels, results), stride, padding, **options)


def depthwise(x: Any, kernel: int = 3, multiplier: int = 1, stride: int = 1, padding: str = "SAME") -> Any:
    return tf().nn.depthwise_conv2d(x, weight(kernel, kernel, 4, multiplier), (1, stride, stride, 1), padding)


def transposed(x: Any, stride: int) -> Any:
    size = 8 * stride
    return tf().nn.conv2d_transpose(x, weight(stride, stride, 5, 4), [1, size, size, 5], stride, "SAME")


def dense(x: Any) -> Any:
    return tf().linalg.matmul(x, weight(16, 5))


def in_two(x: Any) -> Any:
    """A convolution between reshapes from and to five dimensions; a slice of five ends the process of Vela 5.2.0."""
    return tf().reshape(conv(tf().reshape(x, (2, *IMAGE[1:]))), (1, 2, *IMAGE[1:]))


NETWORKS: Mapping[str, tuple[tuple[int, ...], Callable[[Any], Any]]] = {
    "conv": (IMAGE, conv),
    "conv-stride-4-padded": (IMAGE, lambda x: conv(x, 5, stride=4)),
    "conv-stride-4": (IMAGE, lambda x: conv(x, 5, stride=4, padding="VALID")),
    "conv-dilated": (IMAGE, lambda x: conv(x, dilations=2)),
    "conv-groups": (IMAGE, lambda x: conv(x, channels=2)),
    "conv-5d": ((1, 2, *IMAGE[1:]), in_two),
    "depthwise": (IMAGE, depthwise),
    "depthwise-2": (IMAGE, lambda x: depthwise(x, multiplier=2)),
    "depthwise-stride-4": (IMAGE, lambda x: depthwise(x, 5, stride=4, padding="VALID")),
    "dense": (ROW, dense),
    "dense-3d": (ROWS, lambda x: tf().reshape(dense(tf().reshape(x, [6, 16])), [1, 6, 5])),
    "product": (ROWS, lambda x: tf().linalg.matmul(x, x, transpose_b=True)),
    "transposed-2": ((1, 8, 8, 4), lambda x: transposed(x, 2)),
    "transposed-3": ((1, 8, 8, 4), lambda x: transposed(x, 3)),
    "average-9-padded": (IMAGE, lambda x: tf().nn.avg_pool2d(x, 9, 1, "SAME")),
    "average-8-padded": (IMAGE, lambda x: tf().nn.avg_pool2d(x, 8, 1, "SAME")),
    "average-12": (IMAGE, lambda x: tf().nn.avg_pool2d(x, 12, 1, "VALID")),
    "maximum-stride-4": (IMAGE, lambda x: tf().nn.max_pool2d(conv(x), 5, 4, "SAME")),
    "softmax": (ROW, lambda x: tf().nn.softmax(dense(x))),
    "gather": (ROW, lambda x: tf().gather(dense(x), [0, 2], axis=1)),
    "select": (ROW, lambda x: tf().where(dense(x) > 0, dense(x), tf().zeros((1, 5)))),
    "concatenation": (IMAGE, lambda x: tf().concat([conv(x, 1, 8), tf().nn.relu(conv(x, 1, 8))], -1)),
    "addition": (IMAGE, lambda x: tf().nn.relu(conv(x) + x)),
    "mean": (IMAGE, lambda x: tf().reduce_mean(conv(x), [1, 2])),
    "depth-to-space": (IMAGE, lambda x: tf().nn.depth_to_space(conv(x, 1, 8), 2)),
}


def lowered(shape: tuple[int, ...], write: Callable[[Any], Any]) -> Model:
    """A network as a float .tflite."""
    with tf().Graph().as_default() as graph:
        tf().identity(write(tf().compat.v1.placeholder(tf().float32, shape, name="x")), name="y")
    prepared = prepare_graph(Graph.from_graph_def(graph.as_graph_def(), inputs=["x"], outputs=("y",)))
    return LiteRTTarget("int8").lowered(Model("net", prepared, (), ""))


def compared(vela: str, name: str, folder: Path) -> Iterator[tuple[str, Counter[str], Counter[str]]]:
    """What each file of a network is, and the operators on the CPU by Vela and by the profile."""
    shape, write = NETWORKS[name]
    network = calibrated(lowered(shape, write), np.random.default_rng(5).normal(size=shape).astype(np.float32))
    for device, accelerator in DEVICES.items():
        for channel_wise in (True, False):
            path = folder / "net.tflite"
            network.make(path, network.plan(channel_wise=channel_wise), io="int8")
            told = violations(path.read_bytes(), PROFILES[device])
            said = Counter(one.what.split(":")[0] for one in told)
            placed = on_cpu(vela, path, accelerator)
            in_float = Counter(kind.rstrip("*") for kind in SavedLite(path.read_bytes()).kinds if kind.endswith("*"))
            if in_float:  # what brings INT8 to them is on the CPU as well
                in_float["QUANTIZE"] += placed["QUANTIZE"]
            what = f"{name}, {device}, {'a scale for every channel' if channel_wise else 'one scale'}"
            yield what, placed - in_float, said


def on_cpu(vela: str, path: Path, accelerator: str) -> Counter[str]:
    """The operators of a file that Vela leaves to the CPU."""
    words = [vela, str(path), "--accelerator-config", accelerator, "--show-cpu-operations"]
    done = subprocess.run(
        [*words, "--output-dir", str(path.parent)], capture_output=True, text=True, check=True, errors="replace"
    )
    return Counter(ON_CPU.findall(done.stdout + done.stderr))


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vela", default="vela")
    parser.add_argument("--networks", help="names, separated by commas (default: all)")
    asked = parser.parse_args(arguments)
    files = agreed = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.networks.split(",") if asked.networks else NETWORKS:
            for what, placed, said in compared(asked.vela, name, Path(folder)):
                files += 1
                agreed += placed == said
                if placed != said:
                    print(f"{what}: on the CPU by Vela {dict(placed)}, by the profile {dict(said)}")
    print(f"{agreed} of {files} files agree")


if __name__ == "__main__":
    main()
