"""Pictures of samples: what is an image, how it becomes small, and which samples have one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autoquant.array import Array
from autoquant.cache import CacheEntry, write_cache
from autoquant.evaluation.data.dataset import Dataset, open_data
from autoquant.model.model import InputSpec
from autoquant.tuning.pictures import KEY, VERSION, as_image, load_pictures, pictures_of, shrunk, to_bytes


@pytest.mark.parametrize(
    ("shape", "image"),
    [
        ((8, 9), (8, 9, 1)),
        ((8, 9, 1), (8, 9, 1)),
        ((8, 9, 3), (8, 9, 3)),
        ((8, 9, 4), (8, 9, 3)),
        ((3, 8, 9), (8, 9, 3)),
        ((8, 9, 5), None),
        ((7, 9, 3), None),
        ((100,), None),
        ((2, 8, 9, 3), None),
    ],
)
def test_what_is_an_image(shape: tuple[int, ...], image: tuple[int, ...] | None) -> None:
    found = as_image(np.zeros(shape, np.float32))
    assert (None if found is None else found.shape) == image


def test_text_is_no_image() -> None:
    assert as_image(np.full((8, 8), b"x", object)) is None


def test_channels_first_become_channels_last() -> None:
    image = np.arange(3 * 8 * 8, dtype=np.float32).reshape(3, 8, 8)
    found = as_image(image)
    assert found is not None
    np.testing.assert_array_equal(found[2, 5], image[:, 2, 5])


def test_squares_of_pixels_become_their_mean() -> None:
    image = np.random.default_rng(0).integers(0, 256, (10, 21, 3)).astype(np.uint8)
    found = shrunk(image, 7)
    assert found.shape == (3, 7, 3)
    np.testing.assert_allclose(found[1, 2], image[3:6, 6:9].astype(float).mean(axis=(0, 1)))
    np.testing.assert_array_equal(shrunk(image, 21), image)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, 51.0, 255.0], [0, 51, 255]),
        ([-2.0, 0.0, 2.0], [0, 128, 255]),
        ([300.0, 300.0, 300.0], [0, 0, 0]),
    ],
)
def test_black_and_white_are_those_of_the_form_that_images_are_stored_in(
    values: list[float], expected: list[int]
) -> None:
    image = np.array(values)
    assert to_bytes(image, image.min(), image.max()).tolist() == expected


def images(x: Array) -> Dataset:
    return open_data((x, np.zeros(len(x), np.int64)), [InputSpec("x", x.dtype, (None, *x.shape[1:]))])


def test_pictures_are_those_of_the_numbers_in_the_source() -> None:
    x = np.random.default_rng(1).integers(0, 256, (6, 8, 8, 3)).astype(np.uint8)
    found = pictures_of(images(x).subset(np.array([1, 4, 5])), [4, 1])
    assert list(found) == [1, 4]
    np.testing.assert_array_equal(found[4], x[4])


def test_there_are_none_of_what_is_no_image() -> None:
    assert pictures_of(images(np.zeros((3, 5), np.float32)), [0]) == {}


def test_the_file_keeps_pictures_and_its_absence_is_none_of_them(tmp_path: Path) -> None:
    picture = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    write_cache(tmp_path / "pictures.npz", CacheEntry({}, {"17": picture}), key=KEY, version=VERSION)
    found = load_pictures(tmp_path / "pictures.npz")
    assert list(found) == [17]
    np.testing.assert_array_equal(found[17], picture)
    assert load_pictures(tmp_path / "nothing.npz") == {}
