from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autoquant.calibration.outliers import wide_ranges, wide_text
from autoquant.calibration.sketch import Sketch
from autoquant.calibration.sketcher import Sketcher
from autoquant.model.layer import Layer

LAYER = Layer("conv", "Conv2D", ("input",), -1, "weight", (1, 1, 1, 1), (3,), None, None, None)
REST = np.random.default_rng(0).normal(size=50_000).astype(np.float32)


def seen(values: np.ndarray) -> Sketch:
    sketcher = Sketcher()
    sketcher.add(values.astype(np.float32))
    return sketcher.distribution()


@pytest.mark.parametrize(
    ("values", "times"),
    [
        (np.append(REST, 1e6), 1e6 / np.sort(np.abs(REST))[-3]),
        (np.append(np.abs(REST), -9999.0), 9999.0 / np.sort(np.abs(REST))[-3]),
        (np.append(REST[:50], 1000.0), 1000.0 / np.sort(np.abs(REST[:50]))[-2]),  # of few values one is left out
        (np.append(REST, [1e6] * 2), 1e6 / np.sort(np.abs(REST))[-2]),
    ],
)
def test_a_range_that_few_values_decide(values: np.ndarray, times: float) -> None:
    (wide,) = wide_ranges({"input": seen(values)}, [LAYER])
    assert [wide.low, wide.high] == [float(np.float32(end)) for end in (values.min(), values.max())]
    assert wide.times == pytest.approx(times, rel=0.2)


@pytest.mark.parametrize(
    "values",
    [
        REST,
        np.maximum(REST, 0.0),
        np.append(REST, 100.0),
        np.exp(REST),
        np.append(np.zeros(50_000), [1.0, 2.0, 3.0]),  # hardly ever active
        np.zeros(9),
        np.array([1.0, 1e6]),
        np.zeros(0),
        np.append(REST[:5000], [1e6] * 500),  # masks: many values
    ],
    ids=["normal", "relu", "hundred", "heavy", "sparse", "zeros", "two", "none", "masks"],
)
def test_other_ranges(values: np.ndarray) -> None:
    assert wide_ranges({"input": seen(values)}, [LAYER]) == ()


def test_the_sentence() -> None:
    layers = [replace(LAYER, name=name, activations=(name,)) for name in "abcde"]
    tensors = {name: seen(np.append(REST, 10.0**power)) for power, name in enumerate("abcde", 3)}
    text = wide_text(wide_ranges(tensors, layers))
    assert text.startswith("a few calibration values decide a range: the input of e has -4.494")
    assert "..1e+07, of which 99.99% within -3.9" in text and "; and 2 more; is there a sample to remove?" in text
