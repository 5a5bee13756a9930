"""Data that misleads is found before the first trial, or told of: with the sample, the input and the value."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import Tiny

import autoquant
from autoquant.array import Array
from autoquant.cli import inspect
from autoquant.errors import DataError
from autoquant.tuning import events


def with_value(x: Array, value: float) -> Array:
    changed = x.copy()
    changed[17, 1, 2, 0] = value
    return changed


def endless(x: Array) -> Callable[[], Iterator[Array]]:
    return lambda: itertools.cycle(np.array_split(x, 4))


ROWS: dict[str, tuple[Callable[[Array], Any], str]] = {
    "scale": (lambda x: (x / 255, None), r"'image' is mostly within -0\.0\d+\.\.0\.0\d+ in calibration samples, -"),
    "sentinel": (
        lambda x: (with_value(x, -9999), None),
        r"sample 17, input 'image' at \[1, 2, 0\] is -9999, while the",
    ),
    "int32": (lambda x: (with_value(x, 2**31 - 1), None), r"sample 17, input 'image' at \[1, 2, 0\] is 2147483648,"),
    "float32": (lambda x: (with_value(x, 3.4e38), None), r"at \[1, 2, 0\] is 3\.3999\d+e\+38, while the other 63"),
    "nan": (lambda x: (with_value(x, np.nan), None), r"sample 17 has NaN .*: input 'image' at \[1, 2, 0\] is nan"),
    "zero": (lambda x: (x * 0, None), r"input 'image' is 0 everywhere in all 64 calibration samples"),
    "endless": (endless, r"nothing new after the first 64: it does not end"),
}


@pytest.mark.parametrize("target", ["tensorflow", "litert"])
@pytest.mark.parametrize("kind", ROWS)
def test_calibration_data_is_refused_before_the_first_trial(kind: str, target: str, tiny: Tiny, tmp_path: Path) -> None:
    make, told = ROWS[kind]
    calibration, heard = make(np.load(tiny.calibration)["x"]), list[events.Event]()
    with pytest.raises(DataError, match=told):
        autoquant.search(
            tiny.model,
            tiny.evaluation,
            calibration=calibration,
            tolerance="5%",
            target=target,
            allow_overlap=True,  # all samples that are 0 are the same
            run=tmp_path / "run",
            listener=heard.append,
        )
    assert not any(isinstance(event, events.BaselineScored | events.TrialStarted) for event in heard)
    assert not (tmp_path / "run").exists()


def test_inspect_and_quantize_refuse_it_too(tiny: Tiny, tmp_path: Path) -> None:
    x = np.load(tiny.calibration)["x"]
    config = tmp_path / "config.json"
    autoquant.search(
        tiny.model, tiny.evaluation, calibration=tiny.calibration, tolerance="5%", max_trials=1, run=tmp_path / "run"
    )
    config.write_bytes((tmp_path / "run" / "best" / "config.json").read_bytes())
    for value, told in ((-9999.0, "sample 17, input 'image' .* is -9999"), (np.inf, "sample 17 .* is inf")):
        bad = (with_value(x, value), None)
        with pytest.raises(DataError, match=told):
            autoquant.inspect(tiny.model, calibration=bad)
        with pytest.raises(DataError, match=told):
            autoquant.quantize(tiny.model, config, bad, tmp_path / "to")
        assert not (tmp_path / "to").exists()


def test_values_that_evaluation_has_too_are_told_of_where_they_decide_a_range(tiny: Tiny, tmp_path: Path) -> None:
    both = [np.load(file) for file in (tiny.evaluation, tiny.calibration)]
    (evaluation, labels), (calibration, _) = ((with_value(each["x"], -9999.0), each["y"]) for each in both)
    result = autoquant.search(
        tiny.model,
        (evaluation, labels),
        calibration=(calibration, None),
        tolerance="5%",
        max_trials=1,
        certify="none",
        run=tmp_path / "run",
    )
    (warning,) = (text for text in result.warnings if "decide a range" in text)
    assert "the input of conv has -9999.." in warning and "99.99% within -" in warning


def test_inspect_shows_a_range_that_one_value_decides(tiny: Tiny) -> None:
    x = np.load(tiny.calibration)["x"]
    value = 80.0 * float(np.abs(x).max())  # too little to be refused where no evaluation data says more
    found = autoquant.inspect(tiny.model, calibration=(with_value(x, value), None))
    (shown,) = (line for line in inspect.text(found, columns=None).splitlines() if "the input of conv" in line)
    ordered = np.sort(x.reshape(-1))
    ends = (ordered[0], np.float32(value), ordered[1], ordered[-1])
    assert [float(cell) for cell in shown.split()[-4:]] == pytest.approx(ends, rel=0.02)
    (facts,) = inspect.facts(found)["wide_ranges"]
    assert facts["where"] == "the input of conv" and facts["high"] == np.float32(value)


def test_shuffled_labels_are_told_of(tiny: Tiny, tmp_path: Path) -> None:
    stored = np.load(tiny.evaluation)
    labels = np.random.default_rng(0).permutation(stored["y"])
    result = autoquant.search(
        tiny.model,
        (stored["x"], labels),
        calibration=tiny.calibration,
        tolerance="5%",
        max_trials=1,
        certify="none",
        run=tmp_path / "run",
    )
    assert any("the FP32 model's top-1 is 0.280 on 200 samples" in text for text in result.warnings)
