"""Samples that are the rows of a table: a pandas frame, or a CSV file, which pandas reads.

A model takes the columns that are called like its inputs, or all of them side by side in its only input.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError, listed
from autoquant.evaluation.data.arrays import ArraySource
from autoquant.evaluation.data.batch import content_of, with_plain_text
from autoquant.evaluation.data.plugins import nearest
from autoquant.model.model import InputSpec

CSV = ".csv"
AT_LABEL = "@label="
"""What comes before the name of the column that is the label, behind the name of a CSV file."""
LABELS = ("y", "label", "labels", "target")
"""Columns that are the label where none is named."""


def split_label(spec: str | Path) -> tuple[str, str | None]:
    """A path and the name of its label's column, or None.

    >>> split_label("table.csv@label=species"), split_label("table.csv")
    (('table.csv', 'species'), ('table.csv', None))
    """
    path, at, label = str(spec).rpartition(AT_LABEL)
    return (path, label) if at and Path(path).suffix.lower() == CSV else (str(spec), None)


def open_csv(spec: str | Path, inputs: Sequence[InputSpec]) -> ArraySource:
    """The rows of a CSV file with a header. Raises DataError, also without pandas."""
    path, label = split_label(spec)
    try:
        import pandas
    except ImportError as error:
        raise DataError(path, "is read by pandas, which is not installed", hint="pip install pandas") from error
    try:
        frame = pandas.read_csv(path)
    except (OSError, ValueError) as error:  # its ParserError and UnicodeDecodeError are ValueErrors
        hint = "is it a table of values separated by commas, in UTF-8, whose first line names the columns?"
        raise DataError(path, f"cannot be read as {CSV}: {error}".strip(), hint=hint) from error
    return open_frame(path, frame, inputs, label=label)


def open_frame(
    name: str, frame: Any, inputs: Sequence[InputSpec], *, label: str | None = None, labels: Any = None
) -> ArraySource:
    """The rows of a pandas frame: `label` is the column that is the label, or `labels` are the labels themselves.

    Without either it is the column called like one of LABELS, or the only one that no input is called like. Columns
    that are neither can be named by `unit` and `guard`. Raises DataError where columns are missing or too many.
    """
    if not frame.columns.is_unique:
        twice = listed([str(key) for key in frame.columns[frame.columns.duplicated()]])
        raise DataError(name, f"has several columns called {twice}", hint="give each a name of its own")
    columns = {str(key): _column(f"{name}, column '{key}'", frame[key]) for key in frame.columns}
    if label is not None and label not in columns:
        raise DataError(name, f"has no column '{label}'", hint=nearest(label, list(columns)))
    by_name = _named(columns, inputs)
    wanted = label if label is not None or labels is not None else _label(name, columns, by_name, inputs)
    taken = {spec.name: columns[column] for spec, column in by_name.items()}
    if not taken:
        taken = {inputs[0].name: _side_by_side(name, columns, wanted, inputs[0])}
    found = columns[wanted] if wanted is not None else labels
    if found is not None:
        found = np.asarray(found)
        if found.dtype.hasobject or found.dtype.kind in "SU":
            example = found.reshape(-1)[0]
            what = f"its labels are text: {example.decode() if isinstance(example, bytes) else example!r}"
            raise DataError(name, what, hint="number the classes as the model does")
        if found.ndim == 2 and found.shape[1] == 1:
            found = found[:, 0]
    used = {*by_name.values(), wanted} if by_name else set(columns)
    beside = "".join(f"{key} {zlib.crc32(content_of(columns[key]))} " for key in sorted(columns) if key not in used)
    return ArraySource(name, taken, found, columns=columns, beside=beside)


def _column(where: str, column: Any) -> Array:
    """Numbers as they are, or text."""
    if getattr(column.dtype, "kind", "O") in "mM":
        raise DataError(where, "holds times", hint="make numbers of them")
    values = np.asarray(column)
    if values.dtype.hasobject and getattr(column.dtype, "kind", "O") in "iufb":  # numbers, of which some are missing
        values = column.to_numpy(np.float64, na_value=np.nan)
    return with_plain_text(where, str(column.name), values)


def _named(columns: Mapping[str, Array], inputs: Sequence[InputSpec]) -> dict[InputSpec, str]:
    """The column of each input, where each has one; of an only input it may be called x."""
    if len(inputs) == 1 and inputs[0].name not in columns and "x" in columns:
        return {inputs[0]: "x"}
    return {spec: spec.name for spec in inputs} if all(spec.name in columns for spec in inputs) else {}


def _label(
    name: str, columns: Mapping[str, Array], by_name: Mapping[InputSpec, str], inputs: Sequence[InputSpec]
) -> str | None:
    taken = set(by_name.values())
    rest = [key for key in columns if key not in taken]
    known = [key for key in LABELS if key in rest]
    if known:
        return known[0]
    if by_name:
        return rest[0] if len(rest) == 1 else None
    if len(inputs) > 1:
        missing = next(spec.name for spec in inputs if spec.name not in columns)
        raise DataError(name, f"has no column '{missing}'", hint=nearest(missing, list(columns)))
    if len(rest) == (_width(inputs[0]) or -2) + 1:
        what = f"has {len(rest)} columns ({listed(rest)}), one more than the model's input '{inputs[0].name}' takes"
        raise DataError(name, what, hint=f"which is the label? call it 'y', or give FILE{CSV}{AT_LABEL}{rest[-1]}")
    return None


def _width(spec: InputSpec) -> int | None:
    """Values of one sample, where that is known."""
    sizes = None if spec.shape is None else spec.shape[1:]
    return None if sizes is None or None in sizes else math.prod(size or 0 for size in sizes)


def _side_by_side(name: str, columns: Mapping[str, Array], label: str | None, spec: InputSpec) -> Array:
    """All columns but the label in one array, in the shape that the input has."""
    names = [key for key in columns if key != label]
    texts = [key for key in names if columns[key].dtype.hasobject]
    if texts and (len(names) > 1 or spec.dtype.kind != "O"):
        what = f"column '{texts[0]}' is text, and all columns go into the model's input '{spec.name}'"
        raise DataError(name, what, hint="leave it out, or name the label")
    width = _width(spec)
    if width is not None and width != len(names):
        beside = f" beside the label '{label}'" if label else ""
        what = f"has {len(names)} columns{beside} ({listed(names)}), the model's input '{spec.name}' takes {width}"
        raise DataError(name, what, hint=f"leave out the others; the label is 'y', or FILE{CSV}{AT_LABEL}NAME")
    together = np.column_stack([columns[key] for key in names]) if names else np.zeros((0, 0))
    return together if width is None or spec.shape is None else together.reshape(-1, *(n or 0 for n in spec.shape[1:]))
