"""Names that TensorFlow 1 had and TensorFlow 2 has not, such as tf.Session, for scripts that were made for it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def add_names(tensorflow: Any, *, behave: bool) -> None:
    """Let the module, and those in it, have all of `tensorflow.compat.v1` that they lack; what they have stays.

    With `behave` the first use of such a name also switches to the behaviour of TensorFlow 1: a script that has
    tf.placeholder wants no eager execution.
    """
    old = tensorflow.compat.v1
    switch = old.disable_v2_behavior if behave else None
    _complete(tensorflow, old, switch)
    for name, module in vars(tensorflow).items():
        # Those of Keras load it when they are first used, and have all their names themselves.
        if type(module) is ModuleType and not name.startswith("_") and isinstance(vars(old).get(name), ModuleType):
            _complete(module, getattr(old, name), switch)


def _complete(module: Any, old: Any, switch: Callable[[], None] | None) -> None:
    """Let a module of TensorFlow 2 have the names of one of TensorFlow 1; `switch` is called with each first use."""

    def __getattr__(name: str) -> Any:  # noqa: N807  # which Python calls for a name that a module lacks
        found = None if name.startswith("_") else getattr(old, name, None)
        if found is None:
            raise AttributeError(f"module '{module.__name__}' has no attribute '{name}'")
        if switch is not None:
            switch()
        setattr(module, name, found)
        return found

    if "__getattr__" not in vars(module):
        module.__getattr__ = __getattr__


def add_names_on_import() -> None:
    """Do that when TensorFlow is imported, which this does not; with the behaviour of TensorFlow 1."""
    if "tensorflow" in sys.modules:
        add_names(sys.modules["tensorflow"], behave=True)
    else:
        sys.meta_path.insert(0, _AfterImport())


class _AfterImport(MetaPathFinder):
    """Finds TensorFlow where it is, once, and adds the names when it has been executed."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The usual one, for TensorFlow alone."""
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_add(module: ModuleType) -> None:
            execute(module)
            add_names(module, behave=True)

        spec.loader.exec_module = execute_and_add  # type: ignore[method-assign]  # of this one loader
        return spec
