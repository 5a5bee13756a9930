from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from autoquant.errors import DataError, UsageError
from autoquant.evaluation.data.preprocessing import KERAS, Arithmetic, Custom, open_preprocess, standardize

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)


@pytest.mark.parametrize("mode", ["tf", "torch", "caffe"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32, np.float64])
def test_equals_keras(mode: str, dtype: type[Any]) -> None:
    from keras.applications.imagenet_utils import preprocess_input

    raw: NDArray[Any] = IMAGES.astype(dtype)
    expected = preprocess_input(IMAGES.astype(np.float32), data_format="channels_last", mode=mode)
    made = KERAS[mode](raw)
    assert made.dtype == np.float32 and made.flags.c_contiguous
    np.testing.assert_array_equal(made, expected)
    np.testing.assert_array_equal(raw, IMAGES)  # the raw data is not changed


def test_transposed_data_is_handled() -> None:
    np.testing.assert_array_equal(
        KERAS["torch"](IMAGES.transpose(0, 2, 1, 3)), KERAS["torch"](IMAGES).transpose(0, 2, 1, 3)
    )


numbers = st.floats(-10, 10).map(lambda v: round(v, 3))


@given(
    scale=st.lists(numbers, min_size=3, max_size=3) | st.lists(numbers, min_size=1, max_size=1),
    mean=st.lists(numbers, min_size=3, max_size=3) | st.lists(numbers, min_size=1, max_size=1),
    std=st.lists(numbers.filter(lambda v: abs(v) > 0.01), min_size=3, max_size=3),
    shape=st.sampled_from([(2, 3), (2, 4, 3), (1, 2, 5, 3), (0, 2, 3)]),
)
def test_standardize_is_scale_mean_std(
    scale: list[float], mean: list[float], std: list[float], shape: tuple[int, ...]
) -> None:
    raw = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    made = standardize(tuple(scale), tuple(mean), tuple(std))(raw)
    expected = (raw * np.asarray(scale) - np.asarray(mean)) / np.asarray(std)
    size = (np.abs(raw * np.asarray(scale)) + np.abs(np.asarray(mean))) / np.abs(np.asarray(std))  # before cancelling
    assert made.dtype == np.float32 and made.shape == shape
    assert (np.abs(made - expected) <= 4e-7 * size + 1e-30).all()


@pytest.mark.parametrize(
    "values",
    [
        {"std": (0.0,)},
        {"std": (1.0, 0.0)},
        {"scale": (float("nan"),)},
        {"mean": (float("inf"),)},
        {"mean": ()},
        {"mean": (1.0, 2.0), "std": (1.0, 2.0, 3.0)},
    ],
)
def test_standardize_refuses(values: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ValueError, match="must"):
        standardize(**values)


def test_keys_tell_apart() -> None:
    made: list[Any] = [
        KERAS["tf"],
        KERAS["torch"],
        standardize(),
        standardize(scale=(2.0,)),
        standardize(mean=(2.0,)),
        standardize(std=(2.0,)),
    ]
    assert len({one.key for one in made}) == len(made)
    assert standardize(std=(2.0,)).key == standardize(std=(2.0,)).key


def test_options_as_written() -> None:
    assert open_preprocess() is None
    assert open_preprocess("caffe") == KERAS["caffe"]
    assert open_preprocess(std="255") == standardize(std=(255.0,))
    made = open_preprocess(scale="1/255", mean="0.485, 0.456,0.406", std="0.229,0.224,0.225")
    assert made == standardize((1 / 255,), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert isinstance(open_preprocess(lambda x: x), Custom)


@pytest.mark.parametrize(
    ("scale", "mean", "std"),
    [
        (0.25, [1, 2.5, 3], 2),
        (np.float32(0.25), np.asarray([1, 2.5, 3]), np.int64(2)),
        ([0.25], (1, 2.5, 3), "2"),
    ],
)
def test_options_as_numbers(scale: Any, mean: Any, std: Any) -> None:
    made = open_preprocess(scale=scale, mean=mean, std=std)
    assert made == standardize((0.25,), (1.0, 2.5, 3.0), (2.0,))
    assert made.key == standardize((0.25,), (1.0, 2.5, 3.0), (2.0,)).key


@pytest.mark.parametrize(
    ("options", "where", "told"),
    [
        ({"name": "tf", "mean": "1"}, "--preprocess", "cannot go with --mean"),
        ({"name": "tff"}, "--preprocess", "did you mean 'tf'?"),
        ({"scale": "1;2"}, "--scale", "'1;2' is not a number"),
        ({"scale": "1/0"}, "--scale", "'1/0' is not a number"),
        ({"mean": "nan"}, "--mean", "'nan' is not a number"),
        ({"std": "0"}, "--scale, --mean, --std", "std must not be 0"),
        ({"std": 0}, "--scale, --mean, --std", "std must not be 0"),
        ({"mean": float("nan")}, "--scale, --mean, --std", "mean must be finite numbers"),
        ({"mean": ()}, "--scale, --mean, --std", "mean must be finite numbers"),
        ({"scale": ["a", "b"]}, "--scale", "['a', 'b'] is not a number"),
        ({"scale": [[1, 2], [3, 4]]}, "--scale", "[[1, 2], [3, 4]] is not a number"),
        ({"mean": "1,2", "std": "1,2,3"}, "--scale, --mean, --std", "same number of channels"),
    ],
)
def test_bad_options(options: dict[str, Any], where: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_preprocess(**options)
    assert caught.value.where == where
    assert told in str(caught.value)


@pytest.mark.parametrize("preprocess", [KERAS["caffe"], KERAS["torch"], standardize(mean=(1.0, 2.0, 3.0))])
def test_wrong_number_of_channels(preprocess: Arithmetic) -> None:
    with pytest.raises(DataError, match=r"3 channels .* shape \(batch, 5, 4, 1\)"):
        preprocess(IMAGES[..., :1])


def test_a_function_of_the_user(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "def half(x):\n    return x / 2\ndef bad(x):\n    return x[0]\ndef worse(x):\n    return x.nothing\n"
    )
    half = open_preprocess(f"{file}:half")
    assert half is not None
    np.testing.assert_array_equal(half(IMAGES), IMAGES / 2)
    assert half.key.startswith("half@")
    with pytest.raises(DataError, match=r"made shape \(5, 4, 3\) of a batch of shape \(2, 5, 4, 3\)"):
        open_preprocess(f"{file}:bad")(IMAGES)  # type: ignore[misc]
    with pytest.raises(DataError, match=r"AttributeError: .*nothing.*mine\.py:6"):
        open_preprocess(f"{file}:worse")(IMAGES)  # type: ignore[misc]
