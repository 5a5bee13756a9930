"""Models that a Python program has in memory, saved as files: of Keras, tf.Module, functions of TensorFlow.

Keras's models become .keras files where any process can read these, and SavedModels where they have classes or
functions of the user's; all others become SavedModels. TensorFlow is loaded only where there is such a model.
"""

from __future__ import annotations

import io
import json
import os
import re
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from autoquant.errors import ModelError, listed
from autoquant.messages import reason
from autoquant.model.model import EXPECTED

P = ParamSpec("P")
R = TypeVar("R")
FUNCTION = "function.get_concrete_function(tf.TensorSpec(shape, dtype, name='input'))"
KERAS = frozenset({"keras", "tf_keras"})
LONGEST = 300
"""Characters of what TensorFlow or Keras say that are shown."""


def is_in_memory(model: Any) -> bool:
    """Whether a model is an object, not the path of a file."""
    return not isinstance(model, str | os.PathLike)


@contextmanager
def model_file(model: Any) -> Iterator[Path]:
    """The file of a model: its path, or, for one in memory, a file in a temporary folder, which is removed at the end.

    Raises ModelError where it cannot be saved.
    """
    if not is_in_memory(model):
        yield Path(model)
        return
    with tempfile.TemporaryDirectory(prefix="autoquant-") as folder:
        yield save_model_file(model, Path(folder))


def on_model_file(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function of a model's file, its first argument, take a model in memory too."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        model, *others = args
        with model_file(model) as file:
            on_file: Callable[..., R] = function
            return on_file(file, *others, **kwargs)

    return call


def save_model_file(model: Any, folder: Path) -> Path:
    """Save a model under its own name in a folder. Raises ModelError."""
    path = folder / _name_of(model)
    if _is_keras(model):
        return _save_keras(model, path)
    return _save_functions(model, path)


def _is_keras(model: Any) -> bool:
    return any(kind.__name__ == "Model" and _package(kind) in KERAS for kind in type(model).__mro__)


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _name_of(model: Any) -> str:
    """That of a model or function, as a file can be called."""
    name = getattr(model, "name", None)
    if isinstance(name, bytes):  # of a concrete function: __inference_NAME_12
        name = re.sub(r"^__inference_|_\d+$", "", name.decode(errors="replace"))
    if not isinstance(name, str):
        name = getattr(model, "__name__", None)
    return re.sub(r"[^\w.-]+", "_", name).strip("._") if isinstance(name, str) and re.search(r"\w", name) else "model"


def _save_keras(model: Any, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Keras and TensorFlow about NumPy: nothing that a user could act on
        return _saved_keras(model, path)


def _saved_keras(model: Any, path: Path) -> Path:
    if not _has_inputs(model) and not getattr(model, "built", False):
        what = "was never built, so that its inputs are not known"
        raise ModelError(path.name, what, hint="call it once on a batch, or begin it with keras.Input(shape)")
    if _package(type(model)) == "keras" and _has_inputs(model):
        file = path.with_name(f"{path.name}.keras")
        try:
            model.save(file)
            if not _own_classes(file):
                return file
        except Exception:  # whatever a model's own get_config raises: a SavedModel does without
            pass
        file.unlink(missing_ok=True)
    try:
        with redirect_stdout(io.StringIO()):  # it describes its inputs
            model.export(str(path))
    except Exception as error:  # Keras and TensorFlow raise anything here
        what = f"cannot be saved: {reason(error)[:LONGEST]}"
        raise ModelError(path.name, what, hint="save it yourself, and give the file") from error
    return path


def _has_inputs(model: Any) -> bool:
    try:
        return bool(model.inputs)
    except (AttributeError, ValueError):  # a Sequential that was never built
        return False


def _own_classes(file: Path) -> bool:
    """Whether a .keras file names classes or functions that are not Keras's own: another process may not have them."""
    with zipfile.ZipFile(file) as archive:
        return _names_others(json.loads(archive.read("config.json")))


def _names_others(config: Any) -> bool:
    if isinstance(config, list):
        return any(map(_names_others, config))
    if not isinstance(config, dict):
        return False
    module = config.get("module")
    own = "class_name" in config and isinstance(module, str) and module.partition(".")[0] != "keras"
    return own or config.get("class_name") == "__lambda__" or any(map(_names_others, config.values()))


def _save_functions(model: Any, path: Path) -> Path:
    import tensorflow as tf

    signatures = getattr(model, "signatures", None)
    if isinstance(signatures, Mapping) and signatures:  # a SavedModel that was loaded
        functions, holder = dict(signatures), model
    else:
        functions = {tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY: _concrete(model, path.name)}
        holder = model if isinstance(model, tf.Module) else tf.Module()
        if holder is not model:
            (function,) = functions.values()
            holder.held = list(function.variables)
    try:
        tf.saved_model.save(holder, str(path), signatures=functions)
    except (AssertionError, ValueError, TypeError, KeyError, tf.errors.OpError) as error:
        what = f"TensorFlow cannot save it: {reason(error)[:LONGEST]}"
        hint = "give the tf.Module that holds what the function uses, or a SavedModel; outputs must be tensors"
        raise ModelError(path.name, what, hint=hint) from error
    return path


def _concrete(model: Any, name: str) -> Any:
    """The concrete function of a function of TensorFlow, or of the one that a tf.Module has. Raises ModelError."""
    import tensorflow as tf

    if isinstance(model, tf.types.experimental.ConcreteFunction):
        return model
    function = model if _is_function(model) else _own_function(model, name)
    try:
        return function.get_concrete_function()
    except (TypeError, ValueError) as error:
        what = "has no input_signature, so that its inputs are not known"
        raise ModelError(name, what, hint=f"give {FUNCTION}") from error


def _is_function(value: Any) -> bool:
    return hasattr(value, "get_concrete_function")


def _own_function(model: Any, name: str) -> Any:
    import tensorflow as tf

    if not isinstance(model, tf.Module):
        kind = type(model).__name__
        hint = f"give a Keras model, a tf.Module, or {FUNCTION}; of files {EXPECTED}"
        raise ModelError(name, f"is no model: it is of Python's type {kind}", hint=hint)
    found = [key for key in dir(type(model)) if _is_function(getattr(type(model), key, None))]
    found += [key for key, value in vars(model).items() if _is_function(value)]
    if "__call__" in found:
        return model.__call__
    if len(found) == 1:
        return getattr(model, found[0])
    what = f"has several functions ({listed(found)})" if found else "has no tf.function"
    raise ModelError(name, what, hint=f"give the one that is the model: {FUNCTION}")
