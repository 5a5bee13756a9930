"""Every command and snippet of README and guide does what the page says, in one folder, page by page from the top."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from databases import postgresql
from loaded_python import Forked, client
from packages import install, site
from pages import PAGES, README, blocks, commands

from autoquant.cli.main import main
from autoquant.guide import guide_page

ELSEWHERE = ("pytest", "autoquant demo", "python tests/")
"""What commands begin with that are run in other tests: tests/cli/test_demo.py, tests/benchmarks, tests/fuzz."""
KERAS, OTHERS = (text for language, text in blocks(README) if language == "python")
DATA_FILE = """
import numpy as np

def batches():
    with np.load("digits.npz") as arrays:
        x, y = arrays["x"][:600], arrays["y"][:600]
    for first in range(0, len(x), 100):
        yield x[first : first + 100], y[first : first + 100]

def f1_score(outputs, labels):
    return outputs.argmax(axis=-1) == labels
f1_score.bounds = (0, 1)
"""
SCRIPT = """
import sys
import amct_tensorflow as amct
assert sys.argv[1:] == ["--model", "model.pb"]
assert amct.save_model
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the pages name: the digits of the README in all forms, images, scripts, and networks for AMCT's commands."""
    import tensorflow as tf

    where = tmp_path_factory.mktemp("guide")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(where)
        patch.syspath_prepend(where)
        patch.setattr("webbrowser.open", lambda url: True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Keras's own
            exec(KERAS.replace("epochs=20", "epochs=8"), {})  # the block of the README, in less time
            exec(OTHERS, {})
            model = tf.keras.models.load_model("digits.keras")
            model.save("model.keras")
        _freeze(model, Path("model.pb"))
        _freeze(model, Path("retrained.pb"))
        shutil.copy("digits.tflite", "model.tflite")
        with np.load("digits.npz") as arrays:
            x, y = arrays["x"], arrays["y"]
        np.savez("calibration.npz", x=x[:300], y=y[:300])
        np.savez("evaluation.npz", x=x[300:], y=y[300:])
        for number, (image, label) in enumerate(zip(x[:400], y[:400], strict=True)):
            file = Path("images", str(label), f"{number}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(tf.io.encode_png((image * 255).astype(np.uint8)).numpy())
        Path("my_data.py").write_text(DATA_FILE, encoding="utf-8")
        Path("script.py").write_text(SCRIPT, encoding="utf-8")
        _for_amct()
        yield where


def _for_amct() -> None:
    """`net.pb`, `input` (32, 8, 8, 1) -> `output`, raw data for it, and the same network trained with FakeQuant."""
    import tensorflow as tf

    rng, v1, fake = np.random.default_rng(0), tf.compat.v1, tf.quantization.fake_quant_with_min_max_args
    kernel, last = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 3, 1, 4), (4, 3)))
    for name, trained in (("net.pb", False), ("qat.pb", True)):
        with tf.Graph().as_default() as graph:
            x = v1.placeholder(tf.float32, (None, 8, 8, 1), name="input")
            weight = tf.constant(kernel)
            if trained:
                x, weight = fake(x, 0.0, 1.0), fake(weight, -3.0, 3.0, narrow_range=True)
            x = tf.reduce_mean(tf.nn.relu(tf.nn.conv2d(x, weight, 1, "SAME", name="conv")), (1, 2))
            tf.identity(tf.matmul(x, last, name="logits"), name="output")
        Path(name).write_bytes(graph.as_graph_def().SerializeToString())
    Path("data").mkdir()
    rng.random((32, 8, 8, 1)).astype(np.float32).tofile("data/batch.bin")


def _freeze(model: Any, file: Path) -> None:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    function = tf.function(model).get_concrete_function(tf.TensorSpec((None, 8, 8, 1)))
    file.write_bytes(convert_variables_to_constants_v2(function).graph.as_graph_def().SerializeToString())


def run(line: str) -> None:
    """Run a command, in this process where it is ours; it ends as the page says."""
    program, *words = shlex.split(line)
    other = [sys.executable, *words]
    code = main(words) if program == "autoquant" else subprocess.run(other, check=False).returncode
    assert code in ((0, 1, 3) if {"search", "resume", "evaluate"} & {*words} else (0,)), line


def typed(page: str) -> list[str]:
    """The commands of a page that are to be run here."""
    return [line for line in commands(PAGES[page]) if not line.startswith(ELSEWHERE)]


def test_the_readme_and_the_first_steps(folder: Path) -> None:
    assert KERAS in [text for _, text in blocks(guide_page("start"))]  # made once, for both pages
    for line in typed("README"):
        run(line)
    for line in [*typed("start"), *typed("run")]:
        if line not in typed("README"):
            run(line)
    config = json.loads(Path("release-amct/config.json").read_text(encoding="utf-8"))
    assert "autoquant" not in config and config["batch_num"], "a config of AMCT alone"
    first = json.loads(Path("runs/digits/result.json").read_text(encoding="utf-8"))
    assert first["verdict"] in ("certified", "met, not certified")  # training differs a little between machines
    assert Path("release/digits_quantized.pb").read_bytes() == Path("runs/digits/best/digits_quantized.pb").read_bytes()


def test_from_python(folder: Path) -> None:
    names: dict[str, Any] = {}
    for language, text in blocks(guide_page("python")):
        if language == "python":
            exec(text, names)
    assert Path("release-python-2/config.json").is_file()


def test_a_metric_of_your_own(folder: Path) -> None:
    (text,) = (text for language, text in blocks(guide_page("data")) if language == "python")
    names: dict[str, Any] = {}
    exec(text, names)
    assert names["within_ten"](np.array([[5.0], [30.0]]), np.array([14.0, 19.0])).tolist() == [True, False]


def test_from_amct(folder: Path) -> None:
    for line in typed("amct"):
        run(line)
    assert Path("release/model_quantized.pb").is_file()
    (text,) = (text for language, text in blocks(guide_page("amct")) if language == "python")
    import tensorflow as tf

    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(tf.compat.v1.GraphDef.FromString(Path("net.pb").read_bytes()), name="")
    batches = [np.random.default_rng(1).random((8, 8, 8, 1)).astype(np.float32)] * 2
    exec(text.replace('"model.pb"', '"net.pb"'), {"graph": graph, "batches": batches, "tf": tf})


def test_a_package_of_your_own(folder: Path) -> None:
    (code,) = (text for language, text in blocks(guide_page("extending")) if language == "python")
    project, space = (text for language, text in blocks(guide_page("extending")) if language == "toml")
    Path("clipped.toml").write_text(space, encoding="utf-8")
    named = tomllib.loads(project)["project"]
    with site(folder / "site") as packages:
        install(packages, named["name"], named["version"], code, named["entry-points"])
        for line in typed("extending"):
            run(line)
        run(f"{typed('extending')[1].replace('runs/phone', 'runs/clipped')} --space clipped.toml")
    acme, phone = (json.loads(Path("runs", name, "result.json").read_text()) for name in ("acme", "clipped"))
    assert acme["plugins"] == ["within_one of acme-quant 1.2", "without_one of acme-quant 1.2"]
    assert phone["plugins"] == ["phone of acme-quant 1.2", "clipped of acme-quant 1.2"]
    assert Path(phone["model"]).suffix == ".tflite"


def test_the_profile_of_a_device(folder: Path) -> None:
    for line in typed("profiles"):
        run(line)
    found = json.loads(Path("runs/ethos/result.json").read_text(encoding="utf-8"))["device"]
    assert (found["profile"], found["violations"]) == ("ethos-u55", [])


def test_workers(folder: Path) -> None:
    """Of this machine, of a search that has ended, and over a database, with its address in place of the page's."""
    together, ended, search, work, status = typed("workers")
    run(together)
    assert Path("runs/two/best/model_quantized.pb").is_file()
    run(ended)
    shutil.rmtree("runs/night", ignore_errors=True)  # that of another page
    with postgresql() as server:
        here = [line.replace("postgresql+psycopg://aq@db/aq", server.url) for line in (search, work, status)]
        worker = Forked(["-m", *shlex.split(here[1])], os.environ, [0, 1, 2])
        try:
            run(here[0])
            assert worker.wait(timeout=60) == 0
        finally:
            worker.kill()
            worker.wait()
        run(here[2])
    assert Path("runs/night/best/model_quantized.pb").is_file()


def test_every_page_that_shows_commands_is_run() -> None:
    tried = {"README", "start", "run", "amct", "extending", "workers", "profiles"}
    assert {page for page in PAGES if typed(page)} == tried
    snippets = {page for page, text in PAGES.items() if any(language == "python" for language, _ in blocks(text))}
    assert snippets == {"README", "start", "amct", "python", "data", "extending"}


def test_the_job_of_every_night(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first night that searches, a second one that applies the plan, and a third one whose training went wrong."""
    (script,) = (text for language, text in blocks(guide_page("run")) if language == "sh")
    where = folder / "nightly"
    (where / "bin").mkdir(parents=True)
    monkeypatch.chdir(where)
    for name in ("evaluation.npz", "calibration.npz"):
        shutil.copy(folder / name, name)
    train = KERAS.replace("epochs=20", "epochs=int(os.environ['EPOCHS'])").replace('"digits.keras"', "sys.argv[1]")
    Path("train.py").write_text(f"import os, sys\n{train}", encoding="utf-8")
    client(Path("bin/autoquant"), "-m", "autoquant")
    client(Path("bin/python"))
    monkeypatch.setenv("PATH", f"{where / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))

    def night(epochs: int) -> int:
        monkeypatch.setenv("EPOCHS", str(epochs))
        return subprocess.run(["sh", "-c", script], check=False).returncode

    assert night(8) == 0
    assert "baseline" in Path("search.xml").read_text(encoding="utf-8")
    assert not Path("evaluate.xml").exists() and len(list(Path("runs").iterdir())) == 1
    first = Path("release/nightly_quantized.pb").read_bytes()
    assert night(9) == 0
    assert "nightly_quantized.pb: tolerance" in Path("evaluate.xml").read_text(encoding="utf-8")
    assert len(list(Path("runs").iterdir())) == 1, "the plan of the first night held"
    second = Path("release/nightly_quantized.pb").read_bytes()
    assert second != first
    assert night(1) == 4
    for name in ("evaluate.xml", "search.xml"):
        assert "worse than --min-baseline 0.8" in Path(name).read_text(encoding="utf-8")
    assert Path("release/nightly_quantized.pb").read_bytes() == second
