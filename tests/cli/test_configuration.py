"""A file of options: what it may hold, what it may not, and that a run's own run.toml is searched again."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_files import Files

from autoquant.cli.configuration import configured
from autoquant.cli.main import main
from autoquant.errors import RunError, UsageError
from autoquant.evaluation.statistics.tolerance import Tolerance
from autoquant.tuning.study.code import code_digests
from autoquant.tuning.study.request import SearchRequest
from autoquant.tuning.study.run_toml import toml_text

LEAST = {"model": "m.pb", "data": "d.npz", "tolerance": "1%"}
DIGESTS = dict.fromkeys(("model", "data", "calibration", "metric"), "0" * 64)


def written(tables: dict[str, dict[str, Any]], folder: str = ".") -> Path:
    Path(folder).mkdir(exist_ok=True)
    path = Path(folder, "run.toml")
    path.write_text(toml_text(tables), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {
            "target": "litert",
            "io": "int8",
            "objective": "latency",
            "engine": "litert",
            "timeout": 90.0,
            "isolate": True,
        },
        {
            "metric": "mse@output=y",
            "inputs": ("a", "b:0"),
            "feed": ("is_training=false",),
            "scale": 0.5,
            "mean": (1.0, 2.0),
            "image_size": (8, 9),
            "tolerance": Tolerance(0.25),
            "guard": "class",
            "guard_tolerance": Tolerance(0.05, relative=True),
            "space": "quick",
            "seed": 7,
            "keep_all_models": True,
        },
    ],
)
def test_what_a_run_writes_is_the_same_request(asked: dict[str, Any]) -> None:
    for name in ("m.pb", "d.npz"):
        Path(name).touch()
    request = SearchRequest(**{"model": Path("m.pb"), "data": Path("d.npz"), **asked})
    facts = {"digests": DIGESTS, "versions": {"numpy": "1"}, "engine": {"name": "litert"}, "code": {}}
    again = configured(written({"request": request.as_table(), **facts}), {})
    assert again.as_table() == request.as_table()
    assert again.timeout == asked.get("timeout", math.inf)


def test_the_command_line_goes_first() -> None:
    path = written({"request": {**LEAST, "seed": 3, "target": "litert"}})
    request = configured(path, {"seed": 4, "tolerance": Tolerance(0.5), "io": "int8"})
    assert (request.seed, request.tolerance, request.target, request.io) == (4, Tolerance(0.5), "litert", "int8")


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    for name in ("elsewhere/mine.py", "elsewhere/quick", "d.npz"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    given = {**LEAST, "metric": "mine.py:f@output=Identity:1", "space": "quick", "certify": "none", "preprocess": "tf"}
    request = configured(written({"request": {**given, "calibration": "module:samples"}}, "elsewhere"), {})
    assert (request.model, request.data) == ("elsewhere/m.pb", "elsewhere/d.npz")  # there or not
    assert request.metric == "elsewhere/mine.py:f@output=Identity:1"
    assert request.as_table()["metric"] == f"{tmp_path}/elsewhere/mine.py:f@output=Identity:1"
    words = (request.space, request.certify, request.preprocess, request.calibration)
    assert words == ("quick", "none", "tf", "module:samples")


def test_values_may_be_written_as_on_the_command_line() -> None:
    words = {"tolerance": 0.005, "timeout": "1h30m", "trial_timeout": 90, "cache": "off"}
    request = configured(written({"request": {**LEAST, **words}}), {})
    assert (request.tolerance, request.timeout, request.trial_timeout, request.cache) == (
        Tolerance(0.005),
        5400.0,
        90,
        0,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[request", "run.toml: is not valid TOML: "),
        ("", "run.toml: has no table [request]; give the run.toml of a run, or let `autoquant init` write one"),
        ('model = "m.pb"', "run.toml:model: must stand under [request]; write [request] above the options"),
        ("colour = 1", "run.toml:colour: must stand in no table"),
        ("[requests]", "run.toml:requests: unknown table; did you mean 'request'?"),
        ("[request]\nmodle = 'm'", "run.toml:request.modle: unknown option; did you mean 'model'?"),
        ("[request]\nmax-trials = 3", "run.toml:request.max-trials: unknown option; did you mean 'max_trials'?"),
        ("[request]\nkeep_models = 'all'", "request.keep_models: must be a whole number, got 'all'"),
        ("[request]\ntrust_model = true", "request.trust_model: no file can vouch for a model; give --trust-model"),
        ("[request]\nseed = '3'", "run.toml:request.seed: must be a whole number, got '3'"),
        ("[request]\nseed = true", "run.toml:request.seed: must be a whole number, got True"),
        ("[request]\ntimeout = '2 days'", "run.toml:request.timeout: cannot read '2 days'; give seconds"),
        ("[request]\ntimeout = true", "request.timeout: must be a number, or as on the command line ('2h'), got True"),
        ("[request]\ncache = '8'", "run.toml:request.cache: cannot read '8'"),
        ("[request]\ntolerance = '1x'", "run.toml:request.tolerance: cannot read '1x'; give a number"),
        (
            "[request]\ntolerance = [1]",
            "run.toml:request.tolerance: must be a number, or as on the command line ('1%'), got [1]",
        ),
        ("[request]\ninputs = 'a'", "run.toml:request.inputs: must be a list of texts, got 'a'"),
        ("[request]\ndata = '(in memory)'", "request.data: was in memory when that run was started; give --data"),
        ("[request]\nmodel = 'm.pb'\ntolerance = 1", "request.data: is missing, on the command line too"),
        ("[request]\nmodel='m.pb'\ndata='d'\ntolerance=1\nseed = -1", "run.toml:request.seed: must be at least 0"),
        ("[request]\nmodel='m.pb'\ndata='d'\ntolerance=1\ntarget='tflite'", "request.target: unknown 'tflite'"),
        ("[request]\nmodel='m.pb'\ndata='d'\ntolerance=1\nio='int8'", "request.io: is not offered for --target tens"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_key(text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("run.toml").write_text(text, encoding="utf-8")
    assert main(["search", "--config", "run.toml"]) == 2
    assert message in capsys.readouterr().err


def test_a_file_that_is_not_there_or_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--config", "gone.toml"]) == 2
    assert "gone.toml: cannot be read" in capsys.readouterr().err
    Path("run.toml").write_bytes(b"\xff\xfe")
    assert main(["search", "--config", "run.toml"]) == 2
    assert "run.toml: cannot be read" in capsys.readouterr().err


def test_what_is_wrong_on_the_command_line_is_told_as_without_a_file() -> None:
    with pytest.raises(UsageError, match=r"^--seed: must be at least 0, got -1"):
        configured(written({"request": {**LEAST, "seed": 3}}), {"seed": -1})


def test_code_of_a_run_is_imported_only_if_it_is_what_the_run_was_started_with() -> None:
    Path("mine.py").write_text("f = None", encoding="utf-8")
    metric = f"{Path('mine.py').resolve()}:f"
    code = code_digests(SearchRequest(model="m.pb", data="d.npz", metric=metric))
    path = written({"request": {**LEAST, "metric": metric}, "digests": DIGESTS, "code": code}, "run")
    assert configured(path, {}).metric == metric
    Path("mine.py").write_text("import os", encoding="utf-8")
    with pytest.raises(RunError, match=r"the metric \(.*mine\.py:f\) is not what the run was .*; read it, and name it"):
        configured(path, {})
    assert configured(path, {"metric": metric}).metric == metric
    Path("run/mine.py").write_text("import os", encoding="utf-8")
    path = written({"request": {**LEAST, "metric": "mine.py:f"}, "digests": DIGESTS, "code": code}, "run")
    with pytest.raises(RunError, match="is code in the run's own folder, which is never imported"):
        configured(path, {})
    by_hand = written({"request": {**LEAST, "metric": "mine.py:f"}}, "run")
    assert configured(by_hand, {}).metric == "run/mine.py:f"


@pytest.mark.parametrize("target", ["tensorflow", "litert"])
def test_the_file_of_a_run_is_searched_again(files: Files, target: str, tensorflow: None) -> None:
    words = ["search", str(files.model), "--data", str(files.data), "--calibration", str(files.calibration)]
    words += ["--metric", "mse", "--space", "quick", "--tolerance", "100", "--certify", "none", "--target", target]
    assert main([*words, "--run", "first", "--quiet"]) == 0
    assert main(["search", "--config", "first/run.toml", "--run", "second", "--quiet"]) == 0
    tables = [tomllib.loads(Path(run, "run.toml").read_text(encoding="utf-8")) for run in ("first", "second")]
    assert tables[0] == tables[1]
    results = [json.loads(Path(run, "result.json").read_text(encoding="utf-8")) for run in ("first", "second")]
    assert results[0]["score"] == results[1]["score"]
    np.savez("few.npz", **{name: array[:40] for name, array in np.load(files.data).items()})
    assert main(["search", "--config", "first/run.toml", "--run", "third", "--data", "few.npz", "--quiet"]) == 0
    assert json.loads(Path("third/result.json").read_text(encoding="utf-8"))["search_samples"] == 40


@pytest.mark.parametrize(
    ("written_as", "read_as"),
    [("s3://bucket/a", "s3://bucket/a"), ("left", "sub/left"), ("/mnt/left", "/mnt/left")],
)
def test_a_place_of_artifacts_is_relative_to_the_file_unless_it_is_a_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written_as: str, read_as: str
) -> None:
    monkeypatch.chdir(tmp_path)
    storage = {"storage": "postgresql+psycopg://aq@host/db", "study": "night"}
    request = configured(written({"request": {**LEAST, **storage, "artifacts": written_as}}, "sub"), {})
    assert request.artifacts == read_as
    stored = request.as_table()["artifacts"]
    assert stored == (read_as if "://" in read_as else str(tmp_path / read_as))
