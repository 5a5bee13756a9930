"""The demo, its network and its data: trained once, by the command without options; targets are given the files."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from autoquant.cli import demo_network, inspect, search
from autoquant.cli.arguments import Parser
from autoquant.cli.demo import commands, unused
from autoquant.cli.demo_network import DemoFiles, make_demo, shifted
from autoquant.cli.main import main
from autoquant.errors import UsageError
from autoquant.formats.space_toml import load_space

# Keras 3.15 copies TensorFlow variables in a way that NumPy 2 deprecates; not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

LESSON = (
    r"^demo +0\.9\d{3}  FP32\n"
    r" +(below )?0\.[0-8]\d{3}  plain INT8 \(all INT8: minmax, per-tensor\)\n"
    r" +0\.9\d{3}  found \("
)
"""That plain INT8 loses much of the accuracy of FP32, and that what is found does not."""


@dataclass(frozen=True)
class Demo:
    """`autoquant demo` where autoquant-demo is taken: what it said, and what it left in autoquant-demo-2."""

    folder: Path
    code: int
    out: str
    err: str

    @property
    def files(self) -> DemoFiles:
        return DemoFiles(*(self.folder / name for name in ("digits.keras", "evaluation.npz", "calibration.npz")))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, tensorflow: Any) -> Demo:
    place, out, err = tmp_path_factory.mktemp("demo"), io.StringIO(), io.StringIO()
    (place / "autoquant-demo").touch()
    with contextlib.chdir(place), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["demo"])
    return Demo(place / "autoquant-demo-2", code, out.getvalue(), err.getvalue())


@pytest.fixture
def trained_before(demo: Demo, monkeypatch: pytest.MonkeyPatch, tensorflow: Any) -> None:
    """The demo is given copies of what it made before, instead of training again."""
    made = demo.files

    def copied(folder: Path) -> DemoFiles:
        folder.mkdir()
        return DemoFiles(*(Path(shutil.copy(p, folder)) for p in (made.model, made.evaluation, made.calibration)))

    monkeypatch.setattr("autoquant.cli.demo.make_demo", copied)


def test_folders_that_hold_anything_are_left_alone() -> None:
    assert unused(Path("demo")) == Path("demo")
    Path("demo").mkdir()
    assert unused(Path("demo")) == Path("demo")
    Path("demo/file").touch()
    Path("demo-2").touch()
    assert unused(Path("demo")) == Path("demo-3")


@pytest.mark.parametrize("target", ["", "litert"])
def test_commands_to_go_on_with_are_real_commands(target: str) -> None:
    for _, line in commands(DemoFiles(Path("a b/m.keras"), Path("a b/e.npz"), Path("a b/c.npz")), target):
        program, command, *words = shlex.split(line)
        assert program == "autoquant"
        parser = Parser(prog=command)
        {"inspect": inspect, "search": search}[command].add_arguments(parser)
        asked = parser.parse_args(words)
        assert asked.model == "a b/m.keras"
        assert getattr(asked, "target", "") == target


def test_space_begins_with_plain_int8() -> None:
    space = load_space("demo")
    assert space.shared.channel_wise == (False, True)
    assert [type(setting).__name__ for setting in space.shared.activation] == ["MinMax", "Ifmr"]


def test_demo_leaves_model_data_and_run_and_says_how_to_go_on(demo: Demo) -> None:
    assert demo.code == 0
    assert re.search(LESSON, demo.out, re.MULTILINE)
    assert "autoquant export autoquant-demo-2/run --to digits_quantized_export\n" in demo.out
    assert "autoquant inspect autoquant-demo-2/digits.keras\n" in demo.out
    assert "handwritten digits" in demo.err
    check_left(demo.folder, "digits_quantized.pb")
    check_certified(demo.out, demo.folder, "tensorflow")


@pytest.mark.usefixtures("trained_before")
@pytest.mark.parametrize(("target", "model"), [("tensorflow", "digits_quantized.pb"), ("litert", "digits_int8.tflite")])
def test_demo_of_a_target_ends_certified(
    demo: Demo, target: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--target", target]) == 0
    out, err = capsys.readouterr()
    assert re.search(LESSON, out, re.MULTILINE)
    assert f"autoquant export autoquant-demo/run --to {Path(model).stem}_export\n" in out
    assert f"autoquant inspect autoquant-demo/digits.keras --target {target}\n" in out
    assert "handwritten digits" in err
    folder = Path("autoquant-demo")
    assert (folder / "digits.keras").read_bytes() == demo.files.model.read_bytes()  # not trained again
    check_left(folder, model)
    check_certified(out, folder, target)


def check_certified(out: str, folder: Path, target: str) -> None:
    """That the result is certified on the holdout, on the kernels of the target, and that it is true."""
    assert re.search(
        r"^certified +14 of 14 layers in INT8, and with 95% confidence the drop is at most 0\.0", out, re.MULTILINE
    )
    assert re.search(r"^holdout +450 samples that the search has not seen: ", out, re.MULTILINE)
    kernels = {"tensorflow": "stock kernels", "litert": r"xnnpack [1-9]\d*(, builtin \d+)?"}[target]
    assert re.search(rf"^ +measured on {target} [\d.]+, {kernels} on \w+; bound: ", out, re.MULTILINE)
    claim = json.loads((folder / "run/best/certificate.json").read_text())
    assert claim["upper_bound"] <= claim["max_drop"] == pytest.approx(0.02 * 0.9711, abs=0.001)


def check_left(folder: Path, model: str) -> None:
    """That model, data and run lie there and nothing else, and that plain INT8 was not all that was tried."""
    assert {path.name for path in folder.iterdir()} == {"digits.keras", "evaluation.npz", "calibration.npz", "run"}
    assert (folder / "run/best" / model).is_file()
    assert len(json.loads((folder / "run/result.json").read_text())["all_trials"]) >= 2


def test_data_are_digits_in_the_unit_range(demo: Demo) -> None:
    for file, count in ((demo.files.evaluation, 900), (demo.files.calibration, 897)):
        with np.load(file) as data:
            x, y = data["x"], data["y"]
        assert x.shape == (count, 8, 8, 1)
        assert x.dtype == np.float32
        assert (x.min(), x.max()) == (0.0, 1.0)
        assert y.shape == (count,)
        assert set(y) == set(range(10))


def test_evaluation_and_calibration_share_no_image(demo: Demo) -> None:
    with np.load(demo.files.evaluation) as evaluation, np.load(demo.files.calibration) as calibration:
        seen = {image.tobytes() for image in calibration["x"]}
        assert not any(image.tobytes() in seen for image in evaluation["x"])


def test_network_reads_digits_and_one_weight_scale_per_layer_would_ruin_it(demo: Demo) -> None:
    import keras

    with np.load(demo.files.evaluation) as data:
        x, y = data["x"], data["y"]
    model = keras.models.load_model(demo.files.model)
    assert _accuracy(model, x, y) > 0.9
    _round_folded_weights(model, per_channel=True)
    per_channel = _accuracy(model, x, y)
    model = keras.models.load_model(demo.files.model)
    _round_folded_weights(model, per_channel=False)
    assert per_channel > 0.9
    assert _accuracy(model, x, y) < per_channel - 0.05


@pytest.mark.usefixtures("tensorflow")
def test_folders_are_made_where_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_network, "_train", lambda x, y, seed: demo_network._network())  # that it learns is above
    made = make_demo(tmp_path / "new" / "folder")
    assert made.model.parent == tmp_path / "new" / "folder"
    assert all(path.is_file() for path in (made.model, made.evaluation, made.calibration))


def test_shifts_move_every_pixel_by_one_each_way() -> None:
    x = np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1)
    images = shifted(x)[..., 0]
    assert images.shape == (9, 3, 3)
    np.testing.assert_array_equal(images[0], [[0, 0, 0], [0, 0, 1], [0, 3, 4]])  # right and down
    np.testing.assert_array_equal(images[4], x[0, ..., 0])
    np.testing.assert_array_equal(images[8], [[4, 5, 0], [7, 8, 0], [0, 0, 0]])  # left and up


def test_without_scikit_learn_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)  # what Python itself does to forbid an import
    with pytest.raises(UsageError, match=r"needs scikit-learn; pip install 'autoquant\[demo\]'"):
        make_demo(tmp_path)


def _accuracy(model: Any, x: NDArray[Any], y: NDArray[Any]) -> float:
    return float(np.mean(model.predict(x, batch_size=900, verbose=0).argmax(-1) == y))


def _round_folded_weights(model: Any, *, per_channel: bool) -> None:
    """Round each convolution's weights to 127 steps of what they are once batch normalization is folded in."""
    for layer, norm in zip(model.layers, model.layers[1:], strict=False):
        if type(norm).__name__ != "BatchNormalization":
            continue
        gamma, _, _, variance = norm.get_weights()
        factor = gamma.astype(float) / np.sqrt(variance.astype(float) + norm.epsilon)
        depthwise = type(layer).__name__ == "DepthwiseConv2D"
        factor = factor[:, None] if depthwise else factor
        folded = layer.get_weights()[0] * factor
        axes = None if not per_channel else (0, 1, 3) if depthwise else (0, 1, 2)
        step = np.abs(folded).max(axis=axes, keepdims=True) / 127.0
        layer.set_weights([np.rint(folded / step) * step / factor])
