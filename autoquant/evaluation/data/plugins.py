"""Load functions of the user's by name, and tell their errors with the line."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from autoquant.errors import AutoquantError, DataError, UserFunctionError, did_you_mean

T = TypeVar("T")
OURS = Path(__file__).parents[2]


def load_function(spec: str) -> Callable[..., Any]:
    """The function that 'package.module:function' or 'path/to/file.py:function' names.

    Modules in the current directory are found too. Raises DataError saying what is missing: the module, the function,
    or that it cannot be called; and where the import of the module fails, with its message and line.
    """
    place, name = _parts(spec)
    module = load_file(spec, Path(place)) if place.endswith(".py") else _load_module(spec, place)
    if not hasattr(module, name):
        public = sorted(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        raise DataError(spec, f"'{place}' has no '{name}'", hint=nearest(name, public))
    function = getattr(module, name)
    if not callable(function):
        raise DataError(spec, f"'{name}' is a {type(function).__name__}, not a function")
    return function  # type: ignore[no-any-return]  # hasattr and callable are all that can be known


def check_function(spec: str) -> None:
    """Raise DataError where the file or module of a function is not there; nothing is imported."""
    place, _ = _parts(spec)
    if place.endswith(".py"):
        _require_file(spec, Path(place))
        return
    package = place.partition(".")[0]
    importlib.invalidate_caches()
    with _on_path(Path.cwd()):
        found = package in sys.modules or importlib.util.find_spec(package) is not None
    if not found:
        raise _no_module(spec, package)


def code_files(spec: str) -> tuple[Path, ...]:
    """The files whose code the import of a function runs, as far as its name tells: its own, and those of packages.

    Nothing is imported. Empty for a module without a file of its own. Raises DataError as `check_function`.
    """
    check_function(spec)
    place, _ = _parts(spec)
    if place.endswith(".py"):
        return (Path(place),)
    top, *inner = place.split(".")
    with _on_path(Path.cwd()):
        found = importlib.util.find_spec(top)
    if found is None or not found.has_location or found.origin is None:
        return ()
    files = [Path(found.origin)]
    for part in inner:
        beside = files[-1].parent / part
        choices = (beside / "__init__.py", beside.with_suffix(".py"))
        files += [next((file for file in choices if file.is_file()), choices[-1])]
    return tuple(files)


def load_file(spec: str, path: Path) -> ModuleType:
    """The module of a .py file. Raises DataError at `spec` where it is not there or its import fails."""
    _require_file(spec, path)
    path = path.resolve()
    name = f"autoquant_user_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}_{path.stem}"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None and found.loader is not None  # the name ends with .py
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module  # dataclasses and pickle look a module up
    try:
        with _on_path(path.parent):
            found.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise user_error(spec, error) from error
    return module


def retried(where: str, call: Callable[[], T]) -> T:
    """What a function of the user's gives; where it raises, it is called once more: what it needs may be back.

    Raises UserFunctionError.
    """
    try:
        return call()
    except Exception:
        try:
            return call()
        except Exception as error:
            raise user_error(where, error) from error


def user_error(where: str, error: Exception | SystemExit) -> AutoquantError:
    """What to raise for an exception in the user's function: its type and message, and its file and line."""
    if isinstance(error, AutoquantError):
        return error
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not _is_ours(f.filename)]
    inside = [f for f in frames if f.filename == frames[0].filename]  # not the depths of what it called
    place = f" ({inside[-1].filename}:{inside[-1].lineno})" if inside else ""
    return UserFunctionError(where, f"raised {type(error).__name__}: {error}{place}")


def name_of(function: Callable[..., Any]) -> str:
    """'module:function', as good as it gets."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{getattr(function, '__module__', None) or '?'}:{name}"


def source_key(function: Callable[..., Any]) -> str:
    """A digest of the file a function is written in, so that an edited function is another one; '' if unknown.

    What a closure holds is not seen.
    """
    try:
        path = inspect.getsourcefile(inspect.unwrap(function))
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16] if path else ""
    except (OSError, TypeError):  # typed into an interpreter; built in
        return ""


def nearest(name: str, known: list[str]) -> str:
    """A hint: the closest of the known names, or the first few of them."""
    listed = f"there is {', '.join(known[:8])}{' ...' if len(known) > 8 else ''}" if known else ""
    return did_you_mean(name, known, otherwise=listed)


def nearest_or(name: str, known: list[str], otherwise: str) -> str:
    """A hint: the known name that was meant, or else what there is, and another way out."""
    close = nearest(name, known)
    return close if close.startswith("did") else "; else ".join(filter(None, [close, otherwise]))


def _load_module(spec: str, name: str) -> ModuleType:
    importlib.invalidate_caches()  # the file may be younger than the last look into its folder
    try:
        with _on_path(Path.cwd()):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise user_error(spec, error) from error
        raise _no_module(spec, error.name) from error
    except Exception as error:
        raise user_error(spec, error) from error


def _parts(spec: str) -> tuple[str, str]:
    """The module or file of a function, and its name there."""
    place, _, name = spec.rpartition(":")
    if not (place and name):
        raise DataError(spec, "is not the name of a function", hint="write 'module:function' or 'file.py:function'")
    return place, name


def _require_file(spec: str, path: Path) -> None:
    if not path.is_file():
        raise DataError(spec, f"there is no file {path}", hint=nearest(path.name, _files(path.parent)))


def _no_module(spec: str, name: str) -> DataError:
    hint = nearest(name, _files(Path.cwd(), stems=True)) or "is it installed, or in the current directory?"
    return DataError(spec, f"there is no module '{name}'", hint=hint)


@contextmanager
def _on_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _is_ours(filename: str) -> bool:
    path = Path(filename)
    return filename.startswith("<frozen") or path.is_relative_to(OURS) or path.parent == Path(importlib.__file__).parent


def _files(folder: Path, *, stems: bool = False) -> list[str]:
    found = folder.glob("*.py") if folder.is_dir() else ()
    return sorted(path.stem if stems else path.name for path in found)
