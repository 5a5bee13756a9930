"""Mistakes that are found before TensorFlow is loaded, whatever the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoquant.cli import process
from autoquant.cli.main import main

SEARCH = "search model.pb --data data.npz --tolerance 1% --json"


@pytest.fixture
def without_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with all files that the rows do not name, and no TensorFlow to go on with."""

    def forbidden(*args: Any, **options: Any) -> None:
        raise AssertionError("loads TensorFlow")

    monkeypatch.setattr(process, "import_tensorflow", forbidden)
    monkeypatch.chdir(tmp_path)
    for name in ("model.pb", "taken/file", "model.xyz"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    np.savez("data.npz", x=np.zeros((2, 2)))
    Path("bad.toml").write_text("version = [")
    Path("run").mkdir()
    digests = "\n".join(f'{what} = "{"0" * 64}"' for what in ("model", "data", "calibration", "metric"))
    request = 'model = "gone.pb"\ndata = "data.npz"\ntolerance = "1%"'
    Path("run/run.toml").write_text(f"[request]\n{request}\n[digests]\n{digests}\n")


@pytest.mark.usefixtures("without_tensorflow")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("search model.pb", "search: the following arguments are required: --data, --tolerance; see `autoquant sea"),
        ("search gone.pb --data data.npz --tolerance 1%", "gone.pb: there is no such file; a frozen .pb"),
        ("search model.xyz --data data.npz --tolerance 1%", "model.xyz: cannot open a '.xyz' file"),
        ("search model.pb --data gone.npz --tolerance 1%", "gone.npz: there is no such file or folder"),
        ("search model.pb --data model.xyz --tolerance 1%", "model.xyz: is a file of an unknown kind"),
        ("search model.pb --data gone:batches --tolerance 1%", "there is no module 'gone'"),
        ("search model.pb --data gone.py:batches --tolerance 1%", "there is no file gone.py"),
        (f"{SEARCH} --calibration gone/*.tfrecord", "gone/*.tfrecord: matches no file"),
        (f"{SEARCH} --certify gone.npz", "gone.npz: there is no such file or folder"),
        (f"{SEARCH} --run taken", "taken: exists already"),
        (f"{SEARCH} --space bad.toml", "bad.toml: is not valid TOML"),
        (f"{SEARCH} --space quik", "quik: is neither a file nor a preset; did you mean 'quick'?"),
        (f"{SEARCH} --metric top2", "--metric: unknown 'top2'"),
        (f"{SEARCH} --metric gone:f1", "there is no module 'gone'"),
        (f"{SEARCH} --metric gone.py:f1@output=a", "there is no file gone.py"),
        (f"{SEARCH} --preprocess tff", "--preprocess: unknown 'tff'"),
        (f"{SEARCH} --preprocess gone:f", "there is no module 'gone'"),
        (f"{SEARCH} --scale x", "--scale: 'x' is not a number"),
        (f"{SEARCH} --max-trials 0", "--max-trials: must be at least 1, got 0"),
        ("resume run", "gone.pb: there is no such file"),
        ("inspect gone.keras", "gone.keras: there is no such file"),
        ("inspect model.pb --sensitivity --calibration gone.npz", "gone.npz: there is no such file or folder"),
        ("quantize gone.pb --config c.json --calibration data.npz --to out", "gone.pb: there is no such file"),
        ("quantize model.pb --config c.json --calibration data.npz --to out", "c.json: cannot be read"),
        ("check gone.pb", "gone.pb: there is no such file"),
        ("convert --model gone.pb --outputs y --save_path s", "gone.pb: there is no such file"),
        ("calibration --model gone.pb --outputs y --save_path s --evaluator e.py", "gone.pb: there is no such file"),
        ("benchmark gone.keras", "gone.keras: there is no such file"),
    ],
)
def test_a_mistake_is_found_before_tensorflow_is_loaded(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words.split()) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
