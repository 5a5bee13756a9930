"""Files without float: what they hold, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import TensorType
from lite_networks import IMAGE, LiteNetwork, SavedLite, between_layers, conv, error, named
from tiny_model import Tiny

import autoquant
from autoquant.cli.main import main
from autoquant.errors import ModelError, UsageError
from autoquant.formats.space_toml import parse_space
from autoquant.model.model import Model
from autoquant.targets.litert import LiteRTTarget
from autoquant.targets.profiles.check import violations
from autoquant.targets.profiles.table import PROFILES, chosen_profile
from autoquant.tuning.study.space import SearchSpace


def in_float(saved: SavedLite) -> list[str]:
    """The operators in float that are no conversion of an input or an output, by the file alone."""
    graph, found = saved.graph, []
    ends = {*map(int, graph.inputs), *map(int, graph.outputs)}
    for op, kind in zip(graph.operators, saved.kinds, strict=True):
        tensors = [int(index) for index in (*op.inputs, *op.outputs) if index >= 0]
        real = [index for index in tensors if saved.tensor(index).type == TensorType.FLOAT32]
        if real and not (kind.rstrip("*") in ("QUANTIZE", "DEQUANTIZE") and ends.issuperset(real)):
            found.append(kind)
    return found


def integer_only(net: LiteNetwork, io: str = "float32", profile: str = "") -> tuple[LiteRTTarget, Model]:
    target = LiteRTTarget(io, chosen_profile(profile, integer_only=True))
    return target, target.lowered(net.model)


@pytest.mark.parametrize("io", ["float32", "int8"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", list(between_layers()))
def test_nothing_is_in_float(
    lite_network: Callable[..., LiteNetwork], tmp_path: Path, kind: str, bits: int, io: str
) -> None:
    write, _ = between_layers()[kind]
    net = lite_network(lambda x: named(conv(write(conv(x, "a")), "b", relu=False)), IMAGE)
    target, model = integer_only(net, io)
    layers = target.survey(model, {}).by_name
    plan = net.plan(activation_bits=bits)
    target.compiler(model, layers, net.statistics).compile(plan, tmp_path / "m")
    saved = SavedLite((tmp_path / "m").read_bytes())
    assert in_float(saved) == []
    assert not violations(saved.content, target.profile or PROFILES["edgetpu"])
    if io == "float32":
        assert error(net, saved) < 0.05
    else:
        assert not [one for one in saved.kinds if one.endswith("*")] or bits == 16


def test_what_has_no_integer_kernel_is_named(lite_network: Callable[..., LiteNetwork]) -> None:
    import tensorflow as tf

    net = lite_network(lambda x: named(conv(tf.math.ceil(tf.floor(conv(x, "a"))), "b")), IMAGE)
    target, model = integer_only(net)
    with pytest.raises(
        ModelError, match=r"--integer-only leaves nothing in float, .* \(FLOOR\): there is no integer kernel.*\(CEIL\)"
    ):
        target.survey(model, {})


def test_16_bits_are_offered_where_the_space_says_nothing_of_them(lite_network: Callable[..., LiteNetwork]) -> None:
    """And float never is; what the space says of them holds, and so does the profile of a device."""
    net = lite_network(lambda x: named(conv(conv(x, "a"), "b")), IMAGE)
    for profile, text, bits in (
        ("", "", (8, 16)),
        ("", "activation_bits = 8", None),
        ("edgetpu", "", None),
        ("ethos-u55", "", (8, 16)),
    ):
        target, model = integer_only(net, profile=profile)
        file = parse_space(f"[layer]\nquant_enable = [true, false]\n{text}", "a")
        space = SearchSpace(file, target.survey(model, {}).layers, batches=1)
        assert not [name for name in space.dimensions if name.endswith("quant_enable")]
        assert space.dimensions.get("a:activation_bits") == bits


@pytest.mark.parametrize("io", ["float32", "int8"])
def test_a_search_ends_with_a_file_without_float(tiny: Tiny, tmp_path: Path, io: str) -> None:
    options: dict[str, Any] = {"target": "litert", "integer_only": True, "io": io, "tolerance": 1.0, "batch_size": 50}
    result = autoquant.search(
        tiny.model, tiny.evaluation, calibration=tiny.calibration, run=tmp_path / "run", max_trials=3, **options
    )
    assert result.model is not None
    assert in_float(SavedLite(result.model.read_bytes())) == []
    assert result.device is not None and result.device.violations == ()
    assert json.loads((tmp_path / "run" / "result.json").read_text())["device"]["violations"] == []
    made = autoquant.quantize(
        tiny.model,
        tmp_path / "run" / "best" / "config.json",
        tiny.calibration,
        tmp_path / "again",
        target="litert",
        integer_only=True,
        io=io,
    )
    assert in_float(SavedLite(made.model.read_bytes())) == []
    saved = autoquant.export(tmp_path / "run", tmp_path / "same")
    assert saved.model.read_bytes() == result.model.read_bytes()


def test_layers_that_int8_ruins_end_with_16_bits(tmp_path: Path, lite_network: Callable[..., LiteNetwork]) -> None:
    """A network whose output is a small difference of large numbers, of which 8 bits leave nothing."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    weight = random.normal(size=(4, 6)).astype(np.float32)

    def write(x: Any) -> None:
        large = tf.matmul(tf.concat([x, 300.0 * tf.ones_like(x)], -1), np.eye(8, dtype=np.float32), name="large")
        tf.identity(tf.matmul(large[:, :4], weight, name="scores"), name="y")

    x = random.normal(size=(500, 4)).astype(np.float32)
    net = lite_network(write, (None, 4), x=x)
    labels = np.argmax(x @ weight, axis=1)
    path = tmp_path / "m.tflite"
    path.write_bytes(net.lite.content)
    np.savez(tmp_path / "data.npz", x=x[100:], y=labels[100:])
    options: dict[str, Any] = {"target": "litert", "tolerance": "3%", "certify": "none", "calibration": x[:100]}
    space = tmp_path / "space.toml"
    space.write_text("[layer]\nquant_enable = [true, false]\nact_algo = 'minmax'")
    whole = autoquant.search(
        path, tmp_path / "data.npz", integer_only=True, space=space, run=tmp_path / "a", max_trials=12, **options
    )
    assert whole.best is not None and whole.best.meets(whole.max_drop)
    assert whole.best.int16_layers >= 1
    assert whole.best.int8_layers + whole.best.int16_layers == 2
    assert whole.model is not None and in_float(SavedLite(whole.model.read_bytes())) == []


def test_it_is_for_tflite_files_alone(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=r"--integer-only: is for a \.tflite, of which --target tensorflow makes none"):
        autoquant.search(tiny.model, tiny.evaluation, tolerance="1%", integer_only=True)
    assert main(["inspect", str(tiny.model), "--integer-only"]) == 0
    assert "by all that is known, every operator can run on the device" in capsys.readouterr().out
