"""Tabular models and tables, from Python and from the command line, for both targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas
import pytest

import autoquant
from autoquant.cli.main import main
from autoquant.errors import DataError

OPTIONS: dict[str, Any] = {"tolerance": "20%", "max_trials": 1, "certify": "none", "seed": 1}
TARGETS = pytest.mark.parametrize("target", ["tensorflow", "litert"])


@pytest.fixture(scope="module")
def table() -> Any:
    """Columns age, income, city, and patient, of which each has two rows; `sick` is what the model says of them."""
    rng = np.random.default_rng(0)
    ages, cities = rng.integers(18, 90, 300) / 100, rng.choice(["oslo", "paris", "rome"], 300)
    frame = pandas.DataFrame({"age": ages, "income": rng.normal(size=300).round(3), "city": cities})
    frame["sick"] = np.asarray(network()(tensors(frame))).argmax(axis=1)
    frame["patient"] = np.arange(300) // 2
    return frame


def network() -> Any:
    """A named input for each column."""
    keras.utils.set_random_seed(3)
    numbers = [keras.Input((1,), name=name) for name in ("income", "age")]
    text = keras.Input((1,), name="city", dtype="string")
    lookup = keras.layers.StringLookup(vocabulary=["oslo", "paris", "rome"], output_mode="one_hot")
    x = keras.layers.Concatenate()([*numbers, lookup(text)])
    x = keras.layers.Dense(12, activation="relu", name="hidden")(x)
    return keras.Model([*numbers, text], keras.layers.Dense(2, name="out")(x), name="tabular")


def tensors(frame: Any) -> dict[str, Any]:
    import tensorflow as tf

    columns = {"age": np.float32, "income": np.float32, "city": str}
    return {name: tf.constant(frame[[name]].to_numpy().astype(kind).tolist()) for name, kind in columns.items()}


@TARGETS
def test_a_frame_and_a_csv_file_are_the_same_data(target: str, table: Any, tmp_path: Path) -> None:
    table.to_csv(tmp_path / "table.csv", index=False)
    frame = table.rename(columns={"sick": "y"})
    named = f"{tmp_path / 'table.csv'}@label=sick"
    results = [
        autoquant.search(network(), data, target=target, **OPTIONS, unit="patient", run=tmp_path / f"{number}")
        for number, data in enumerate((frame, named))
    ]
    assert results[0].score == results[1].score and results[0].baseline == results[1].baseline == 1.0
    int8 = results[1].load()
    columns = {name: table[name].to_numpy() for name in ("age", "income", "city")}
    assert (int8(columns).argmax(axis=1) == table["sick"]).mean() == pytest.approx(results[1].score, abs=0.05)
    resumed = autoquant.resume(tmp_path / "1", max_trials=2)  # the file is found again
    assert resumed.trials[0] == results[1].trials[0]


@TARGETS
def test_the_command_line_reads_csv_files(
    target: str, table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One input with all columns; the label is the column y, calibration without one."""
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(1)
    layers = [keras.Input((2,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(2)]
    model = keras.Sequential(layers, name="two")
    model.export("two", verbose=False)
    capsys.readouterr()
    numbers = table[["age", "income"]]
    labels = np.asarray(model(numbers.to_numpy().astype(np.float32))).argmax(axis=1)
    numbers.assign(y=labels)[:250].to_csv("data.csv", index=False)
    numbers[250:].to_csv("calibration.csv", index=False)
    options = f"--tolerance 20% --certify none --max-trials 1 --target {target} --run run --quiet"
    assert main(["search", "two", "--data", "data.csv", "--calibration", "calibration.csv", *options.split()]) == 0
    assert main(["search", "two", "--data", "calibration.csv", *options.split(), "--run", "other"]) == 2
    assert "has no labels, which the metric 'top1' needs" in capsys.readouterr().err
    assert main(["search", "two", "--data", "data.csv@label=z", *options.split(), "--run", "other"]) == 2
    assert "has no column 'z'" in capsys.readouterr().err


def test_columns_that_may_be_the_label_are_named(table: Any) -> None:
    with pytest.raises(
        DataError, match=r"no labels, .* are they patient, sick\? call them 'y', or give FILE\.csv@label="
    ):
        autoquant.search(network(), table, tolerance="1%")
