"""`--profile` on the command line: what a device could not take, files that are checked, and what is refused."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_files import Files

import autoquant
from autoquant.cli.main import main
from autoquant.targets.profiles.profile import DOCUMENTATION
from autoquant.targets.profiles.table import PROFILES


@pytest.fixture(scope="module")
def attention(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`x` (?, 8, 8, 2), a convolution, FLOOR, a product of its result with itself, a matmul -> y (?, 3)."""
    import tensorflow as tf

    rng = np.random.default_rng(3)
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 8, 8, 2), name="x")
        t = tf.nn.conv2d(x, tf.constant(rng.normal(size=(3, 3, 2, 4)), tf.float32), 1, "SAME", name="conv")
        t = tf.floor(tf.reshape(t, (-1, 64, 4)))
        t = tf.linalg.matmul(t, t, transpose_a=True, name="product")
        tf.linalg.matmul(tf.reduce_mean(t, 1), tf.constant(rng.normal(size=(4, 3)), tf.float32), name="y")
    path = tmp_path_factory.mktemp("attention") / "attention.pb"
    path.write_bytes(graph.as_graph_def().SerializeToString())
    return path


@pytest.fixture(scope="module")
def int8(files: Files, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that keeps to ethos-u55, and to no profile of an ESP32."""
    run = tmp_path_factory.mktemp("int8") / "run"
    options: dict[str, Any] = {"metric": "mse", "tolerance": 1000.0, "certify": "none", "max_trials": 1}
    result = autoquant.search(
        files.model, files.data, target="litert", profile="ethos-u55", calibration=files.calibration, run=run, **options
    )
    assert result.model is not None
    return result.model


@pytest.mark.parametrize("name", PROFILES)
def test_inspect_tells_of_every_profile(attention: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(attention), "--profile", name]) == 0
    said, profile = capsys.readouterr().out, PROFILES[name]
    assert f"profile {name}: {profile.device}\n" in said
    assert f"checked {profile.checked}\n" in said
    for source in profile.sources:
        assert f"source: {source.title} ({source.version}), {source.url}" in said
    for line in profile.not_known:
        assert f"not known: {line}" in said
    assert main(["inspect", str(attention), "--profile", name, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["profile"]
    assert (told["name"], told["device"], told["checked"]) == (name, profile.device, profile.checked)
    assert told["rules"] == list(profile.rules()) and told["not_known"] == list(profile.not_known)
    assert [one["url"] for one in told["sources"]] == [source.url for source in profile.sources]


def test_what_the_device_could_not_take(attention: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Operator by operator, with the reason and its share: 64 x 9 x 2 x 4, 64 x 4 x 4 and 12 multiply-adds."""
    assert main(["inspect", str(attention), "--profile", "ethos-u-vela3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["profile"]
    assert told["narrowed"] == ["channel_wise is false for FULLY_CONNECTED"]
    found = {one["kind"]: one for one in told["operators"]}
    product = found["BATCH_MATMUL"]
    assert product["reason"] == "it is none of the operators that the device takes"
    assert product["macs"] == 64 * 4 * 4
    assert product["share"] == pytest.approx(1024 / (64 * 9 * 2 * 4 + 1024 + 12))
    assert "FLOOR" in found and not told["impossible"]
    assert main(["inspect", str(attention), "--profile", "ethos-u-vela3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (row,) = (line for line in lines if "BATCH_MATMUL" in line and "none of the operators" in line)
    assert row.split()[-2:] == ["1,024", f"{1024 / 5644:.1%}"]
    assert any(line.endswith("cannot run on the device, with 18.1% of the multiply-adds; " + CPU) for line in lines)


CPU = "they stay in float, on the CPU"


def test_what_would_be_refused_is_said_before_a_search(attention: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(attention), "--profile", "edgetpu"]) == 0
    said = capsys.readouterr().out
    assert "refused by a search: profile edgetpu leaves nothing in float, in which these stay" in said
    assert "inputs and outputs must be int8: --io int8" in said
    assert "quant_enable is true for all layers" in said


def test_nothing_is_said_without_a_profile(attention: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(attention), "--target", "litert", "--json"]) == 0
    assert "profile" not in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inspect", "MODEL", "--profile", "edgetp"], "--profile: unknown 'edgetp': there are edgetpu, esp"),
        (["inspect", "MODEL", "--profile", "edgetpu", "--target", "tensorflow"], "give --target litert"),
        (["search", "MODEL", "--data", "DATA", "--tolerance", "1%", "--profile", "edgetpu"], "give --target litert"),
        (
            ["quantize", "MODEL", "--config", "c", "--calibration", "DATA", "--to", "t", "--profile", "x"],
            "--profile: unknown 'x'",
        ),
        (["check", "MODEL", "--profile", "edgetpu"], "--profile: is for .tflite files; leave it out"),
    ],
)
def test_refused(files: Files, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    places = {"MODEL": str(files.model), "DATA": str(files.data)}
    assert main([places.get(word, word) for word in words]) == 2
    assert message in capsys.readouterr().err


def test_a_file_that_keeps_to_it(int8: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(int8), "--profile", "ethos-u55"]) == 0
    assert capsys.readouterr().out == (
        f"device     {PROFILES['ethos-u55'].device}\n"
        f"profile    ethos-u55, which was checked {PROFILES['ethos-u55'].checked}\n"
        "ok\n"
    )


def test_a_file_that_breaks_it(int8: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(int8), "--profile", "esp32-s3"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"profile    esp32-s3, which was checked {DOCUMENTATION}"
    assert len(lines) > 4 and all(line.startswith("breaks it  ") for line in lines[2:])
    assert any(line.endswith("CONV_2D: its weight has 4 scales, and may have one") for line in lines)


def test_what_cannot_be_checked(int8: Path, files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*words: str) -> str:
        assert main(["check", *words]) == 2
        return capsys.readouterr().err

    assert "--profile: is missing: a .tflite is checked against a device" in told(str(int8))
    assert "--record: a device has none" in told(str(int8), "--profile", "edgetpu", "--record", "r.txt")
    assert "unknown 'edge'" in told(str(int8), "--profile", "edge")
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(int8.read_bytes()[:900])
    assert "is damaged" in told(str(broken), "--profile", "edgetpu")
    program: Any = autoquant.inspect(files.model, target="litert").model.program
    plain = tmp_path / "float.tflite"
    plain.write_bytes(program.content)
    said = told(str(plain), "--profile", "edgetpu")
    assert "is a float model" in said and f"`autoquant inspect {plain} --profile edgetpu`" in said


def test_options_for_a_device_are_written_and_searched(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, file in (("m.pb", files.model), ("d.npz", files.data)):
        shutil.copy(file, name)
    given = ["--profile", "edgetpu", "--io", "int8"]
    assert main(["init", "m.pb", "--data", "d.npz", *given]) == 0
    request = tomllib.loads(Path("run.toml").read_text(encoding="utf-8"))["request"]
    assert (request["target"], request["profile"], request["io"]) == ("litert", "edgetpu", "int8")
    words = ["--tolerance", "1000.0", "--certify", "none", "--max-trials", "1", "--run", "run", "--json"]
    assert main(["search", "--config", "run.toml", *words]) == 0
    device = json.loads(Path("run", "result.json").read_text(encoding="utf-8"))["device"]
    assert (device["profile"], device["violations"]) == ("edgetpu", [])
    assert main(["export", "run", "--to", "p4", "--profile", "esp32-p4", "--io", "float32"]) == 0
    (exported,) = Path("p4").glob("*.tflite")
    assert main(["check", str(exported), "--profile", "esp32-p4"]) == 0
