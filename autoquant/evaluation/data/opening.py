"""Data as a user names or gives it, opened as a source of samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from autoquant.errors import DataError
from autoquant.evaluation.data.array_cache import CacheRoom
from autoquant.evaluation.data.arrays import ArraySource, open_arrays, open_npy, open_npz
from autoquant.evaluation.data.batch import SampleSource
from autoquant.evaluation.data.batches import WEIGHTS, batches_of, by_name, is_a, unpacked
from autoquant.evaluation.data.functions import FunctionSource
from autoquant.evaluation.data.images import ImageFolder
from autoquant.evaluation.data.plugins import check_function, load_function, nearest
from autoquant.evaluation.data.records import RecordSource
from autoquant.evaluation.data.tables import CSV, open_csv, open_frame, split_label
from autoquant.model.model import InputSpec

ARRAYS = MappingProxyType({".npz": open_npz, ".npy": open_npy})
KINDS = "an .npz, .npy or .csv file, a folder of images, TFRecord files (*.tfrecord), or module:function"
RECORDS = ("*.tfrecord", "*.tfrecords", "*.tfrec", "*-[0-9][0-9][0-9][0-9][0-9]-of-[0-9][0-9][0-9][0-9][0-9]")


def check_spec(spec: Any) -> None:
    """Raise DataError where a file or function that `spec` names is not there, or of an unknown kind; reads nothing."""
    if not isinstance(spec, (str, Path)):
        return
    path = Path(split_label(spec)[0])
    if path.is_dir() or _globbed(str(spec)):
        return
    if path.is_file():
        if path.suffix not in (*ARRAYS, CSV) and not any(path.match(pattern) for pattern in RECORDS):
            raise DataError(str(path), "is a file of an unknown kind", hint=f"give {KINDS}")
    elif ":" in str(path):
        check_function(str(spec))
    else:
        raise _missing(path)


def names_function(spec: Any) -> bool:
    """Whether data, a metric or preprocessing is given as the name of a function: importing it runs code."""
    if not isinstance(spec, (str, Path)) or ":" not in split_label(spec)[0]:
        return False
    return not (Path(spec).is_dir() or Path(spec).is_file() or _globbed(str(spec)))


class Reading(NamedTuple):
    """How a source is read that is no array."""

    warn: Callable[[str], None]
    room: CacheRoom | None
    most: int | None
    ordered: bool


def open_source(spec: Any, inputs: Sequence[InputSpec], size: tuple[int, int] | None, how: Reading) -> SampleSource:
    """The source of what `spec` names or is; `size` is as `image_size` of `open_data`. Raises DataError."""
    if isinstance(spec, (str, Path)):
        return _open_named(spec, inputs, size, how)
    names = [input_.name for input_ in inputs]
    if isinstance(spec, Mapping):
        return open_arrays("data", {key: np.asarray(array) for key, array in spec.items()}, names)
    if isinstance(spec, tuple):
        return _open_arrays(spec, inputs, how)
    if is_a(spec, "pandas", "DataFrame"):
        return open_frame("data", spec, inputs)
    if hasattr(spec, "__array__"):
        return _open_arrays((spec,), inputs, how)
    name, make = batches_of(spec, inputs, how.warn, ordered=how.ordered)
    return FunctionSource(name, make, names, **how._asdict())


def _open_named(
    spec: str | Path, inputs: Sequence[InputSpec], size: tuple[int, int] | None, how: Reading
) -> SampleSource:
    check_spec(spec)
    names = [input_.name for input_ in inputs]
    path = Path(split_label(spec)[0])
    if path.is_dir():
        files = sorted({file for pattern in RECORDS for file in path.glob(pattern) if file.is_file()})
        if files:
            return RecordSource(str(path), files, inputs, size, how.room, wanted=how.most is None)
        return ImageFolder(path, inputs, size, how.room)
    if path.is_file() and path.suffix in ARRAYS:
        return ARRAYS[path.suffix](path, names)
    if path.is_file() and path.suffix == CSV:
        return open_csv(spec, inputs)
    if files := [path] if path.is_file() else _globbed(str(spec)):
        return RecordSource(str(spec), files, inputs, size, how.room, wanted=how.most is None)
    return FunctionSource(str(spec), load_function(str(spec)), names, **how._asdict())


def _open_arrays(whole: tuple[Any, ...], inputs: Sequence[InputSpec], how: Reading) -> SampleSource:
    """All samples in one batch: `(x, y)`."""
    x, labels, weighted = unpacked("data", whole)
    if weighted:
        how.warn(WEIGHTS)
    if is_a(x, "pandas", "DataFrame"):
        return open_frame("data", x, inputs, labels=labels)
    values = by_name("data", x, [input_.name for input_ in inputs], ordered=how.ordered)
    labels = None if labels is None else np.asarray(labels)
    if labels is not None and is_a(whole[1], "pandas", "DataFrame") and labels.shape[1] == 1:
        labels = labels[:, 0]
    return ArraySource("data", {key: np.asarray(values[key]) for key in values}, labels)


def _globbed(pattern: str) -> list[Path]:
    if not any(sign in pattern for sign in "*?["):
        return []
    path = Path(pattern)
    return sorted(file for file in path.parent.glob(path.name) if file.is_file())


def _missing(path: Path) -> DataError:
    if any(sign in str(path) for sign in "*?["):
        return DataError(str(path), "matches no file", hint="only the last part of the path may have wildcards")
    beside = sorted(file.name for file in path.parent.iterdir()) if path.parent.is_dir() else []
    close = nearest(path.name, beside)
    hint = close if close.startswith("did") else f"give {KINDS}"
    return DataError(str(path), "there is no such file or folder", hint=hint)
