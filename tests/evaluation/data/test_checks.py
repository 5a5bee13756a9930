from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoquant.array import Array
from autoquant.errors import DataError
from autoquant.evaluation.data.checks import check_calibration, check_splits
from autoquant.evaluation.data.dataset import Dataset, open_data
from autoquant.evaluation.data.preprocessing import open_preprocess
from autoquant.evaluation.data.splits import DataSplits, split_calibration
from autoquant.model.model import InputSpec

IMAGE = InputSpec("image", np.dtype(np.float32), (None, 12, 12, 3))
ROW = InputSpec("row", np.dtype(np.float32), (None, None))
TOKENS = InputSpec("tokens", np.dtype(np.int32), (None, None))


def pixels(count: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, (count, 12, 12, 3)).astype(np.float32)


def normal(count: int, columns: int = 5, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(count, columns)).astype(np.float32)


def warnings_of(calibration: Any, evaluation: Any, *specs: InputSpec) -> tuple[str, ...]:
    inputs = specs or (IMAGE if np.ndim(calibration) == 4 else ROW,)
    evaluated, calibrated = (
        open_data(x if isinstance(x, Mapping) else (x, None), inputs) for x in (evaluation, calibration)
    )
    return check_splits(DataSplits.of(evaluated, calibrated))


EVALUATION, CALIBRATION = pixels(300), pixels(40, 1)
BOTH = "check --preprocess and --scale: they apply to both"


@pytest.mark.parametrize(
    ("calibration", "evaluation", "ranges"),
    [
        (CALIBRATION / 255, EVALUATION, ["within 0..1 in calibration", "0..255 in evaluation"]),
        (CALIBRATION, EVALUATION / 255, ["within 0..255 in calibration", "0..1 in evaluation"]),
        (CALIBRATION / 127.5 - 1, EVALUATION, ["within -1..1 in calibration", "0..255 in evaluation"]),
        (CALIBRATION / 255 / 255, EVALUATION / 255, ["within 0..0.003922", "0..1 in evaluation"]),
        (CALIBRATION - 117, EVALUATION / 57, ["within -117..138 in calibration"]),
        (normal(200, seed=1) * 100, normal(300), ["'row' is mostly within -"]),
        (normal(20, 1, seed=1) * 1000, normal(300, 1), ["'row' is mostly within -"]),
    ],
    ids=["0..1", "0..255", "-1..1", "scaled twice", "mean only", "a table", "one number a sample"],
)
def test_another_scale_is_refused_with_both_ranges(calibration: Array, evaluation: Array, ranges: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        warnings_of(calibration, evaluation)
    assert all(text in str(caught.value) for text in ranges) and BOTH in caught.value.hint


def test_one_image_is_enough_to_see_another_scale() -> None:
    images = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 1)).astype(np.float32)
    spec = InputSpec("image", np.dtype(np.float32), (None, 8, 8, 1))
    with pytest.raises(DataError, match=r"within 0\.\.1 in calibration samples, 0\.\.255"):
        warnings_of(images[:1] / 255, images[1:], spec)


@pytest.mark.parametrize(
    ("calibration", "evaluation"),
    [
        (CALIBRATION / 255, EVALUATION / 127.5 - 1),
        (CALIBRATION / 127.5 - 1, EVALUATION / 255),
        (CALIBRATION / 255, (EVALUATION / 255 - 0.45) / 0.22),
        (CALIBRATION - 117, EVALUATION),
    ],
    ids=["0..1 and -1..1", "-1..1 and 0..1", "0..1 and standardized", "mean and none"],
)
def test_ranges_that_half_agree_are_worth_a_warning(calibration: Array, evaluation: Array) -> None:
    (warning,) = warnings_of(calibration, evaluation)
    assert warning.startswith("data: input 'image' is mostly within ") and BOTH in warning


def test_the_same_is_asked_of_what_preprocessing_makes() -> None:
    doubly, once = (open_data((x, None), [IMAGE], preprocess=open_preprocess("tf")) for x in (CALIBRATION, EVALUATION))
    assert check_splits(DataSplits.of(once, doubly)) == ()
    stored_after = open_data((CALIBRATION / 127.5 - 1, None), [IMAGE], preprocess=open_preprocess("tf"))
    with pytest.raises(DataError, match=r"within -1\.008\.\.-0\.992"):
        check_splits(DataSplits.of(once, stored_after))


def test_a_holdout_of_its_own_is_compared_too_and_read_to_its_end() -> None:
    evaluation, calibration = (open_data((x, None), [IMAGE]) for x in (EVALUATION, CALIBRATION))
    holdout = pixels(50, 2)
    assert check_splits(DataSplits.of(evaluation, calibration, open_data((holdout, None), [IMAGE]))) == ()
    with pytest.raises(DataError, match=r"within 0\.\.1 in holdout samples"):
        check_splits(DataSplits.of(evaluation, calibration, open_data((holdout / 255, None), [IMAGE])))
    holdout[49, 1, 2, 0] = np.nan
    with pytest.raises(DataError, match=r"sample 49 has NaN .*input 'image' at \[1, 2, 0\] is nan"):
        check_splits(DataSplits.of(evaluation, calibration, open_data((holdout, None), [IMAGE])))


KELVIN = 290 + 2 * normal(300, seed=4)
"""Of a winter; a summer is some degrees warmer, so that no value is in both, though nothing was read otherwise."""


@pytest.mark.parametrize(
    ("holdout", "evaluation", "told"),
    [
        (normal(200, seed=5) * 2 + 305, KELVIN, "within 301..309 in holdout samples, 285.6..294 in evaluation samples"),
        (normal(200, seed=5) * 5 + 330, KELVIN, "320..339.9 in holdout samples, 285.6..294 in evaluation samples"),
        (pixels(60, 2) / 255 - 0.5, EVALUATION / 255, "within -0.5..0.5 in holdout samples, 0..1 in"),
        (pixels(60, 2) / 255 * 2, EVALUATION / 255, "within 0..2 in holdout samples, 0..1 in"),
    ],
    ids=["warmer", "warmer and more varied", "centered", "twice as wide"],
)
def test_a_holdout_that_differs_a_little_is_worth_a_warning(holdout: Array, evaluation: Array, told: str) -> None:
    spec = [IMAGE if holdout.ndim == 4 else ROW]
    data, calibration, own = (open_data((x, None), spec) for x in (evaluation[60:], evaluation[:60], holdout))
    (warning,) = check_splits(DataSplits.of(data, calibration, own))
    assert told in warning and BOTH in warning


@pytest.mark.parametrize(
    "holdout",
    [pixels(60, 2), pixels(60, 2) / 255 / 255, pixels(60, 2) / 255 / 127.5 - 1, pixels(60, 2) / 255 / 50 + 0.5],
    ids=["0..255", "scaled twice", "preprocessed twice", "one gray"],
)
def test_a_holdout_on_another_scale_is_refused(holdout: Array) -> None:
    data, calibration, own = (open_data((x, None), [IMAGE]) for x in (EVALUATION / 255, CALIBRATION / 255, holdout))
    with pytest.raises(DataError, match=r"in holdout samples, 0..1 in evaluation samples") as caught:
        check_splits(DataSplits.of(data, calibration, own))
    assert BOTH in caught.value.hint


def test_calibration_samples_that_lie_elsewhere_are_refused_however_wide() -> None:
    """Their ranges would cut all evaluated values off."""
    with pytest.raises(DataError, match=r"within 285.7..294.1 in calibration samples, 301..309 in evaluation samples"):
        warnings_of(KELVIN, normal(200, seed=5) * 2 + 305)


def with_value(value: float, *, number: int = 17, samples: Array | None = None) -> Array:
    changed = (pixels(200, 1) / 255 if samples is None else samples).copy()
    changed[(number, *(1,) * (changed.ndim - 1))] = value
    return changed


@pytest.mark.parametrize("value", [-9999.0, 2147483647.0, 3.4e38, -3.4e38, 1e4])
def test_a_sentinel_is_refused_with_sample_input_position_and_value(value: float) -> None:
    with pytest.raises(DataError) as caught:
        warnings_of(with_value(value), pixels(300) / 255)
    told = f"data: sample 17, input 'image' at [1, 1, 1] is {np.float32(value):.10g}, while the other 199 calibration"
    assert str(caught.value).startswith(f"{told} samples are within 0..1;")
    assert "remove or repair such samples" in caught.value.hint


def test_a_sentinel_in_what_was_split_off_has_its_number_in_the_source() -> None:
    whole = with_value(-9999.0, samples=pixels(200) / 255, number=0)
    seeds = (split_calibration(open_data((whole, None), [IMAGE]), seed) for seed in range(100))
    splits = next(splits for splits in seeds if splits.calibration.indices[0] == 0)  # type: ignore[index]
    with pytest.raises(DataError, match=re.escape("data: sample 0, input 'image' at [1, 1, 1] is -9999, while")):
        check_splits(splits)


def test_several_sentinels_are_counted() -> None:
    with pytest.raises(DataError, match=r"sample 4, .* is -9999 \(2 samples are like it\), while the other 198"):
        warnings_of(with_value(-9999.0, number=4, samples=with_value(-9000.0)), pixels(300) / 255)


def test_a_value_that_is_only_large_is_worth_a_warning() -> None:
    (warning,) = warnings_of(with_value(-9999.0, samples=pixels(200)), EVALUATION)
    assert "sample 17, input 'image' at [1, 1, 1] is -9999, while the other 199" in warning


def test_a_missing_value_among_integers() -> None:
    tokens = np.random.default_rng(0).integers(0, 30000, (300, 8)).astype(np.int32)
    assert warnings_of({"tokens": tokens[:100]}, {"tokens": tokens[100:]}, TOKENS) == ()
    with pytest.raises(DataError, match=r"sample 17, input 'tokens' at \[1\] is 2147483647"):
        warnings_of({"tokens": with_value(2147483647, samples=tokens[:100])}, {"tokens": tokens[100:]}, TOKENS)


@pytest.mark.parametrize(
    ("calibration", "told"),
    [
        (np.zeros((40, 12, 12, 3)), "input 'image' is 0 everywhere in all 40 calibration samples, and in evaluation"),
        (np.full((40, 12, 12, 3), 0.5), "input 'image' is 0.5 everywhere in all 40"),
        (np.repeat(CALIBRATION[:1] / 255, 40, axis=0), "input 'image' is the same in all 40 calibration samples"),
    ],
    ids=["zeros", "one value", "one sample"],
)
def test_samples_that_do_not_differ(calibration: Array, told: str) -> None:
    with pytest.raises(DataError, match=re.escape(told)):
        warnings_of(calibration, EVALUATION / 255)
    with pytest.raises(DataError, match=re.escape(told.split(", and")[0])):
        check_calibration(opened(calibration))


def test_one_of_two_inputs_is_all_zero() -> None:
    specs = (IMAGE, ROW)
    good = {"image": CALIBRATION, "row": normal(40)}
    evaluation = {"image": EVALUATION, "row": normal(300, seed=1)}
    assert warnings_of(good, evaluation, *specs) == ()
    with pytest.raises(DataError, match="input 'row' is 0 everywhere in all 40 calibration samples"):
        warnings_of({**good, "row": np.zeros((40, 5))}, evaluation, *specs)
    flag = (np.arange(300) % 100 == 0).astype(np.float32)[:, None]
    for rare in (np.zeros((300, 1)), flag):
        assert warnings_of({**good, "row": np.zeros((40, 1))}, {**evaluation, "row": rare}, *specs) == ()


def opened(calibration: Array) -> Dataset:
    return open_data((calibration, None), [IMAGE if calibration.ndim == 4 else ROW])


def functions(x: Array) -> Callable[[], Iterator[Array]]:
    return lambda: iter(np.array_split(x, 7))


def npz(x: Array, folder: Path) -> Path:
    np.savez(folder / "calibration.npz", x=x)
    return folder / "calibration.npz"


@pytest.mark.parametrize("kind", ["arrays", "npz", "function"])
def test_every_source_tells_the_sample(kind: str, tmp_path: Path) -> None:
    for value, told in ((np.inf, "is inf"), (-9999.0, "is -9999, while the other 199")):
        x = with_value(value)
        given: Any = {"arrays": (x, None), "npz": npz(x, tmp_path), "function": functions(x)}[kind]
        splits = DataSplits.of(opened(pixels(300) / 255), open_data(given, [IMAGE]))
        with pytest.raises(DataError, match=rf"sample 17.* input 'image' at \[1, 1, 1\] {told}"):
            check_splits(splits)


TABLE = normal(400) * np.asarray([1, 1e3, 1e6, 1e-3, 10]) + np.asarray([0, 5e3, 0, 1, 40])
RARE = np.where(np.random.default_rng(2).random((400, 30)) < 0.001, 1.0, 0.0)
HEAVY = np.exp(np.random.default_rng(3).normal(size=(400, 4)) * 2.0)


@pytest.mark.parametrize(
    ("calibration", "evaluation"),
    [
        (EVALUATION[:40], EVALUATION[40:]),
        (EVALUATION[:1], EVALUATION[1:]),
        (TABLE[:100], TABLE[100:]),
        (TABLE[:3], TABLE[3:]),
        (RARE[:100], RARE[100:]),
        (HEAVY[:200], HEAVY[200:]),
        (HEAVY[:8], HEAVY[8:]),
        (normal(100, 1) * 20 + 40, normal(300, 1, seed=1) * 20 + 43),
        (np.zeros((1, 3)), normal(100, 3)),
        (np.zeros((5, 0)), np.zeros((9, 0))),
    ],
    ids=["images", "image", "table", "rows", "rare flags", "heavy tail", "few of a heavy tail", "ages", "row", "empty"],
)
def test_no_false_alarm(calibration: Array, evaluation: Array) -> None:
    assert warnings_of(calibration, evaluation) == ()


@pytest.mark.parametrize("name", ["bed", "cifar10", "kws", "vww"])
def test_no_false_alarm_on_real_data(name: str, real_data: Path) -> None:
    files = [real_data / name / f"{part}.npz" for part in ("evaluation", "calibration")]
    spec = [InputSpec("input", np.dtype(np.float32), None)]
    evaluation, calibration = (open_data(file, spec, preprocess=open_preprocess("tf")) for file in files)
    labels = np.load(files[1])["y"].reshape(-1)
    for chosen in (labels >= 0, labels != 0, labels == 1):  # all, one class missing, one class alone
        assert check_splits(DataSplits.of(evaluation, calibration.subset(np.flatnonzero(chosen)))) == ()
