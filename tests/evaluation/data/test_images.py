from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from autoquant.errors import DataError
from autoquant.evaluation.data.images import ImageFolder, ImageForm, decode_image
from autoquant.model.model import InputSpec

RED = np.zeros((4, 6, 3), np.uint8)
RED[..., 0] = 255
RED[0, 0] = (10, 20, 30)
BMP_RED_BLUE = bytes.fromhex(  # two pixels, written by hand: red, blue; 24 bits, bottom-up, rows padded to 4 bytes
    "424d3e0000000000000036000000280000000200000001000000010018000000000008000000130b0000130b00000000000000000000"
    "0000ff"
    "ff0000"
    "0000"
)
GIF_RED = bytes.fromhex(  # one red pixel
    "47494638396101000100800100ff0000ffffff2c00000000010001000002024401003b"
)


def spec(*shape: int | None) -> InputSpec:
    return InputSpec("input", np.dtype("float32"), (None, *shape))


def png(image: np.ndarray) -> bytes:
    return bytes(tf.io.encode_png(image).numpy())


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "cat" / "b.png", png(RED))
    write(tmp_path / "cat" / "a.PNG", png(RED + 0))
    write(tmp_path / "ant" / "deep" / "c.png", png(RED))
    write(tmp_path / "dog" / "d.jpg", tf.io.encode_jpeg(RED, quality=100).numpy())
    write(tmp_path / "dog" / "notes.txt", b"no image")
    return tmp_path


def test_sorted_folders_are_the_classes(folder: Path) -> None:
    source = ImageFolder(folder, [spec(4, 6, 3)])
    (batch,) = source.read(None, 8)
    assert len(source) == 4 and source.has_labels
    np.testing.assert_array_equal(batch.labels, [0, 1, 1, 2])
    assert batch.inputs["input"].dtype == np.uint8
    np.testing.assert_array_equal(batch.inputs["input"][:3], [RED, RED, RED])


def test_only_the_chosen_are_decoded(folder: Path) -> None:
    write(folder / "cat" / "a.PNG", b"broken")
    source = ImageFolder(folder, [spec(4, 6, 3)])
    (batch,) = source.read(np.asarray([0, 2]), 8)
    np.testing.assert_array_equal(batch.labels, [0, 1])
    with pytest.raises(DataError, match=r"a\.PNG: cannot be decoded: [^{\[]*; is the file whole\?"):
        list(source.read(None, 8))


def test_an_image_removed_in_the_middle(folder: Path) -> None:
    for number in range(200):  # far more than are decoded ahead
        write(folder / "bee" / f"{number:03}.png", png(RED))
    source = ImageFolder(folder, [spec(4, 6, 3)])
    batches = source.read(None, 1)
    next(batches)
    (folder / "cat" / "b.png").unlink()
    told = r"b\.png: cannot be read \(No such file or directory\); is it still there"
    with pytest.raises(DataError, match=told):
        list(batches)
    with pytest.raises(DataError, match=told):
        _ = source.digest
    with pytest.raises(DataError, match="cannot be read"):
        ImageFolder(folder / "nowhere", [spec(4, 6, 3)])


def test_later_passes_find_the_images_decoded_and_still_miss_those_that_cannot_be(folder: Path) -> None:
    write(folder / "dog" / "d.jpg", b"broken")
    source = ImageFolder(folder, [spec(4, 6, 3)])
    for _ in range(2):
        batches = source.read(None, 3)
        np.testing.assert_array_equal(next(batches).inputs["input"], [RED, RED, RED])
        with pytest.raises(DataError, match=r"d\.jpg: cannot be decoded"):
            next(batches)
        (folder / "cat" / "a.PNG").unlink(missing_ok=True)  # was decoded in the first pass


def test_decoded_images_are_not_kept_in_memory(folder: Path) -> None:
    source = ImageFolder(folder, [spec(4, 6, 3)])
    for _ in range(2):
        (batch,) = source.read(np.asarray([0]), 1)
        np.testing.assert_array_equal(batch.inputs["input"], [RED])
        batch.inputs["input"][...] = 7


def test_images_without_class_folders_have_no_labels(tmp_path: Path) -> None:
    write(tmp_path / "1.png", png(RED))
    source = ImageFolder(tmp_path, [spec(4, 6, 3)])
    (batch,) = source.read(None, 8)
    assert len(source) == 1 and not source.has_labels and batch.labels is None


def test_stray_images_and_empty_classes(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="empty: a class folder without images"):
        ImageFolder(folder, [spec(4, 6, 3)])
    write(folder / "stray.png", png(RED))
    with pytest.raises(DataError, match=r"1 images outside of them, as stray\.png"):
        ImageFolder(folder, [spec(4, 6, 3)])


def test_bilinear_resize_as_tensorflow_does() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    made = decode_image("x", png(image), ImageForm("input", 3, (3, 4)))
    # Half-pixel centres: output pixel i lies at (i + 0.5) * in / out - 0.5.
    rows, columns = ((np.arange(n) + 0.5) * m / n - 0.5 for n, m in ((3, 5), (4, 7)))
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    v, h = (rows - top)[:, None, None], (columns - left)[None, :, None]
    at = image.astype(np.float64)
    upper = at[top][:, left] * (1 - h) + at[top][:, left + 1] * h
    lower = at[top + 1][:, left] * (1 - h) + at[top + 1][:, left + 1] * h
    expected = upper * (1 - v) + lower * v
    assert made.dtype == np.uint8
    assert np.abs(made - expected).max() <= 0.5 + 1e-3


@pytest.mark.parametrize(
    ("encoded", "channels", "expected"),
    [
        (png(RED), 1, np.rint(RED[..., :1] * 0.2989 + RED[..., 1:2] * 0.587 + RED[..., 2:] * 0.114)),
        (png(RED[..., :1]), 3, np.repeat(RED[..., :1], 3, axis=2)),
        (png(RED), 4, np.concatenate([RED, np.full((4, 6, 1), 255)], axis=2)),
        (BMP_RED_BLUE, 3, [[[255, 0, 0], [0, 0, 255]]]),
        (BMP_RED_BLUE, 1, [[[76], [29]]]),
        (BMP_RED_BLUE, 4, [[[255, 0, 0, 255], [0, 0, 255, 255]]]),
        (GIF_RED, 3, [[[255, 0, 0]]]),
        (GIF_RED, 1, [[[76]]]),
    ],
)
def test_channels(encoded: bytes, channels: int, expected: object) -> None:
    made = decode_image("x", encoded, ImageForm("input", channels, None))
    assert np.abs(made.astype(int) - np.asarray(expected, float)).max() <= 1  # PNG to grey: TensorFlow truncates


def test_decodes_within_a_graph() -> None:
    encoded = png(RED)
    with tf.Graph().as_default():
        made = decode_image("x", encoded, ImageForm("input", 3, (4, 6)))
    np.testing.assert_array_equal(made, RED)


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((4, 6, 1), None, ImageForm("input", 1, (4, 6))),
        ((4, 6, 1), (9, 9), ImageForm("input", 1, (4, 6))),
        ((None, None, 3), (9, 8), ImageForm("input", 3, (9, 8))),
        ((None, None, None), None, ImageForm("input", 3, None)),
    ],
)
def test_the_form_comes_from_the_model(
    shape: tuple[int | None, ...], size: tuple[int, int] | None, expected: ImageForm
) -> None:
    assert ImageForm.of("x", [spec(*shape)], size) == expected


def test_a_model_that_takes_no_images() -> None:
    with pytest.raises(DataError, match=r"images cannot feed the model's input 'input' of shape \(None, 10\)"):
        ImageForm.of("x", [spec(10)], None)
    with pytest.raises(DataError, match="the model has 2"):
        ImageForm.of("x", [spec(4, 4, 3)] * 2, None)


def test_the_digest_sees_names_bytes_and_form(folder: Path) -> None:
    first = ImageFolder(folder, [spec(4, 6, 3)]).digest
    assert ImageFolder(folder, [spec(4, 6, 3)]).digest == first
    assert ImageFolder(folder, [spec(4, 6, 1)]).digest != first
    (folder / "cat" / "b.png").rename(folder / "ant" / "b.png")
    assert ImageFolder(folder, [spec(4, 6, 3)]).digest != first
