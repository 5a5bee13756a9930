"""What was found in a model that has every kind of layer."""

from __future__ import annotations

import pytest

from autoquant.model.layer import Layer, Rejected, Survey


def layer(name: str, op: str, *, weight: bool = True, factors: int = 1) -> Layer:
    return Layer(
        name=name,
        op=op,
        activations=tuple(f"{name}/x{index}" for index in range(factors)),
        data_axis=-1,
        weight=f"{name}/w" if weight else None,
        weight_shape=(3, 3, 2, 4) if weight else (),
        channel_axes=(3,) if weight else (),
        bias=None,
        output_shape=None,
        macs=None,
    )


@pytest.fixture(scope="session")
def found() -> Survey:
    """Layers `conv`, `conv2`, `depthwise`, `fc`, `pool`, `scores` (two factors); inputs `max:0`, `add:0`, `add:1`."""
    return Survey(
        layers=(
            layer("conv", "Conv2D"),
            layer("conv2", "Conv2D"),
            layer("depthwise", "DepthwiseConv2dNative"),
            layer("fc", "MatMul"),
            layer("pool", "AvgPool", weight=False),
            layer("scores", "BatchMatMulV2", weight=False, factors=2),
        ),
        tensors=(
            layer("max:0", "MaxPool", weight=False),
            layer("add:0", "AddV2", weight=False),
            layer("add:1", "AddV2", weight=False),
        ),
        rejected=(Rejected("shared", "Conv2D", "its weight 'w' is shared with 'conv9'"),),
    )
