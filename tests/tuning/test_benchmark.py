"""Which file a name means, and what is measured."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import pytest
from lite_models import Pair
from tiny_model import Tiny

from autoquant.errors import ModelError, RunError, UsageError
from autoquant.evaluation.latency.latency import RoundsBudget
from autoquant.tuning.benchmark import BenchmarkRequest, benchmark, lite_file

QUICK = BenchmarkRequest(repeat=3)


@pytest.fixture
def files(lite_pair: Pair, tmp_path: Path) -> Path:
    (tmp_path / "net.tflite").write_bytes(lite_pair.in_float)
    (tmp_path / "net_int8.tflite").write_bytes(lite_pair.int8)
    return tmp_path


def make_run(folder: Path, *models: str) -> Path:
    (folder / "best").mkdir(parents=True)
    (folder / "run.toml").write_text("")
    for name in models:
        (folder / "best" / name).write_bytes(b"")
    return folder


def test_which_file_is_meant(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", "net_int8.tflite")
    assert lite_file(tmp_path / "net.TFLITE") == tmp_path / "net.TFLITE"
    assert lite_file(str(run)) == lite_file(run / "best") == run / "best" / "net_int8.tflite"
    assert lite_file(tmp_path / "net.pb") is None
    (tmp_path / "saved_model").mkdir()
    assert lite_file(tmp_path / "saved_model") is None


def test_folders_that_do_not_say_which(tmp_path: Path) -> None:
    with pytest.raises(
        RunError, match=r"its best model is not a \.tflite; `autoquant export .* --target litert` makes"
    ):
        lite_file(make_run(tmp_path / "run", "net_quantized.pb"))
    (tmp_path / "two").mkdir()
    for name in ("a.tflite", "b.tflite"):
        (tmp_path / "two" / name).write_bytes(b"")
    with pytest.raises(ModelError, match=r"holds several \.tflite: a\.tflite, b\.tflite; name one of them"):
        lite_file(tmp_path / "two")


def test_models_side_by_side_under_their_names(files: Path) -> None:
    found = benchmark([files / "net.tflite", files / "net_int8.tflite"], QUICK)
    assert [model.name for model in found.models] == ["net.tflite", "net_int8.tflite"]
    assert (found.threads, found.batch_size, found.rounds) == (1, 1, 3)
    (files / "other").mkdir()
    other = files / "other" / "net.tflite"
    other.write_bytes((files / "net.tflite").read_bytes())
    found = benchmark([files / "net.tflite", other], QUICK)
    assert [model.name for model in found.models] == [str(files / "net.tflite"), str(other)]


def test_a_model_of_tensorflow_is_converted_and_its_layers_named(tiny: Tiny) -> None:
    found = benchmark([tiny.model], BenchmarkRequest(repeat=3, batch_size=5, threads=2))
    assert [model.name for model in found.models] == ["tiny.pb"]
    assert {"conv", "depthwise", "dense"} < {one.name for one in found.operators}
    assert (found.threads, found.batch_size, found.statements) == (2, 5, ())


def test_models_that_cannot_be_measured(files: Path) -> None:
    with pytest.raises(UsageError, match="MODEL: there is none"):
        benchmark([], QUICK)
    with pytest.raises(UsageError, match="MODEL: one appears twice"):
        benchmark([files / "net.tflite", str(files / "net.tflite")], QUICK)
    with pytest.raises(ModelError, match=r"none\.tflite: cannot be read \(No such file or directory\)"):
        benchmark([files / "none.tflite"], QUICK)
    with pytest.raises(ModelError, match=r"net\.tflite: LiteRT cannot run it on inputs .*is its batch size fixed\?"):
        benchmark([files / "net.tflite"], BenchmarkRequest(repeat=3, batch_size=2))
    for options, option in (({"signature": "images"}, "--signature"), ({"feed": ("keep=1",)}, "--feed")):
        with pytest.raises(UsageError, match=rf"{option}: is for models of TensorFlow, and all are \.tflite files"):
            benchmark([files / "net.tflite"], BenchmarkRequest(**cast("Any", options)))


@pytest.mark.parametrize(("option", "value"), [("threads", 0), ("batch_size", 0), ("repeat", 2)])
def test_options_out_of_range(option: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')}: must be at least [13], got {value}"):
        BenchmarkRequest(**cast("Any", {option: value}))


def test_rounds_that_are_asked_for_are_not_cut_short() -> None:
    assert BenchmarkRequest(repeat=7).budget == RoundsBudget(seconds=math.inf, rounds=7)
    assert BenchmarkRequest().budget == RoundsBudget(seconds=3.0, rounds=1000)
