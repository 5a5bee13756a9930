"""Where the files are that a request names: their paths made absolute, or taken from the folder of another file."""

from __future__ import annotations

from pathlib import Path

from autoquant.evaluation.data.tables import AT_LABEL, split_label
from autoquant.evaluation.metrics.metric import AT_OUTPUT
from autoquant.formats.space_toml import presets

IN_MEMORY = "(in memory)"
"""How run.toml calls data or functions that only the Python program that started the run can give."""
NOTHING = "none"
"""The value of `certify` for no holdout and no certificate."""
PATHS = frozenset({"model", "data", "calibration", "certify", "space"})
"""The fields of a request whose value is a path, if it is not a word of ours or the name of a function."""
FUNCTIONS = frozenset({"data", "calibration", "certify", "preprocess", "metric"})
"""Those that may be the name of a function, 'file.py:function' or 'module:function'."""


def absolute(field: str, text: str) -> str:
    """The value of a field, its path made absolute, also that of 'file.py:function' and of a metric so called.

    A path that is not there stays as it is: nobody knows what it was to be.
    """
    if _is_word(field, text):
        return text
    path = Path(text)
    file, rest = _parts(text)
    if rest and Path(file).is_file():
        return f"{Path(file).resolve()}{rest}"
    if field in PATHS and path.exists():
        return str(path.resolve())
    if field in PATHS and any(sign in text for sign in "*?["):
        return str(path.parent.resolve() / path.name)
    return text


def from_folder(field: str, text: str, folder: Path) -> str:
    """The value of a field in a file of this folder: a relative path is relative to it, whether it is there or not."""
    if _is_word(field, text):
        return text
    file, rest = _parts(text)
    if field in FUNCTIONS and rest and (file.endswith(".py") or rest.startswith(AT_LABEL)):
        return f"{folder / file}{rest}"
    if field == "artifacts" and "://" in text:
        return text
    if field in (*PATHS, "junit", "artifacts") and (not rest or field not in FUNCTIONS or (folder / text).exists()):
        return str(folder / text)
    return text


def for_folder(field: str, text: str, folder: Path) -> str:
    """The value of a field for a file of this folder, as `from_folder` reads it: relative where it lies below."""
    file, rest = _parts(absolute(field, text))
    path, below = Path(file), folder.resolve()
    return f"{path.relative_to(below)}{rest}" if path.is_relative_to(below) else f"{file}{rest}"


def _is_word(field: str, text: str) -> bool:
    """Whether the value is a word of ours, whatever files there are that are called so."""
    return text == IN_MEMORY or (field == "certify" and text == NOTHING) or (field == "space" and text in presets())


def _parts(text: str) -> tuple[str, str]:
    """The file, and ':function' with the output that a metric scores, or '@label=NAME' of a table, if any."""
    bare, label = split_label(text)
    if label:
        return bare, f"{AT_LABEL}{label}"
    spec, at_output, output = text.partition(AT_OUTPUT)
    file, colon, function = spec.rpartition(":")
    return (file, f":{function}{at_output}{output}") if colon else (text, "")
