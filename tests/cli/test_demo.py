import json
import re
import shlex
from pathlib import Path

import pytest

from autoquant.cli import demo_network, inspect, search
from autoquant.cli.arguments import Parser
from autoquant.cli.demo import commands, unused
from autoquant.cli.demo_network import DemoFiles
from autoquant.cli.main import main
from autoquant.formats.space_toml import load_space


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


# Keras 3.15 copies TensorFlow variables in a way that NumPy 2 deprecates; not ours to mend.
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
@pytest.mark.parametrize(("target", "model"), [("tensorflow", "digits_quantized.pb"), ("litert", "digits_int8.tflite")])
def test_demo_leaves_model_data_and_run_and_says_how_to_go_on(
    target: str, model: str, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_network, "EPOCHS", 1)  # what it learns does not matter here
    Path("autoquant-demo").touch()
    assert main(["demo", *([] if target == "tensorflow" else ["--target", target])]) in (0, 1, 3)
    captured = capsys.readouterr()
    assert re.search(r"^demo +0\.\d{4}  FP32$", captured.out, re.MULTILINE)
    assert re.search(r"^ +(below )?0\.\d{4}  plain INT8 \(all INT8: minmax, per-tensor\)$", captured.out, re.MULTILINE)
    assert f"autoquant export autoquant-demo-2/run --to {Path(model).stem}_export\n" in captured.out
    asked = "" if target == "tensorflow" else f" --target {target}"
    assert f"autoquant inspect autoquant-demo-2/digits.keras{asked}\n" in captured.out
    assert "handwritten digits" in captured.err
    folder = Path("autoquant-demo-2")
    assert {path.name for path in folder.iterdir()} == {"digits.keras", "evaluation.npz", "calibration.npz", "run"}
    assert (folder / "run/best" / model).is_file()
    assert len(json.loads((folder / "run/result.json").read_text())["all_trials"]) >= 2


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")
@pytest.mark.parametrize("target", ["tensorflow", "litert"])
def test_demo_ends_certified(target: str, capsys) -> None:
    assert main(["demo", "--target", target]) == 0
    out = capsys.readouterr().out
    assert re.search(
        r"^certified +14 of 14 layers in INT8, and with 95% confidence the drop is at most 0\.0", out, re.M
    )
    assert re.search(r"^claim +on 450 samples that the search has not seen; ", out, re.MULTILINE)
    kernels = {"tensorflow": "stock kernels", "litert": r"xnnpack [1-9]\d*(, builtin \d+)?"}[target]
    assert re.search(rf"^ +measured on {target} [\d.]+, {kernels} on \w+; bound: ", out, re.MULTILINE)
    claim = json.loads(Path("autoquant-demo/run/best/certificate.json").read_text())
    assert claim["upper_bound"] <= claim["allowed"] == pytest.approx(0.02 * 0.9711, abs=0.001)
