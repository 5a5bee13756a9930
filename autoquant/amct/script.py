"""Runs a script that was made for AMCT's TensorFlow tool, without a change: its imports find what is here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import CodeType, ModuleType, TracebackType

from autoquant.amct.tensorflow_1 import add_names_on_import
from autoquant.errors import BAD_INPUT, UsageError

ALIASES = Path(__file__).parent / "aliases"
"""The folder of the packages that such scripts import."""
USAGE = """usage: python -m autoquant.amct SCRIPT [ARGUMENT ...]

Runs a Python script made for amct_tensorflow as `python SCRIPT ARGUMENT ...` does, with autoquant in its place. Names
that TensorFlow 2 has no more, such as tf.Session, are there too.
"""


def main(words: Sequence[str]) -> None:
    """Run the script that the first word names, as the main program of this process."""
    if not words or words[0] in ("-h", "--help"):
        (sys.stdout if words else sys.stderr).write(USAGE)
        sys.exit(0 if words else BAD_INPUT)
    path = Path(words[0])
    try:
        source = _source(path)
    except UsageError as error:
        sys.stderr.write(f"autoquant.amct: error: {error}\n")
        sys.exit(error.exit_code)
    name = str(path.absolute())
    sys.excepthook = partial(_show, name)
    run_script(compile(source, name, "exec", dont_inherit=True), words)


def run_script(code: CodeType, words: Sequence[str]) -> None:
    """Execute a script: sys.argv, sys.path[0] and the module __main__ are as Python makes them for it.

    What it raises is raised, SystemExit too. The process is the script's from then on: nothing is put back.
    """
    sys.argv = list(words)
    if not sys.flags.safe_path:
        sys.path[0] = str(Path(code.co_filename).resolve().parent)
    add_import_names()
    add_names_on_import()
    module = ModuleType("__main__")
    module.__file__ = code.co_filename
    sys.modules["__main__"] = module
    exec(code, module.__dict__)


def add_import_names() -> None:
    """Let `import amct_tensorflow` find what is here, even where AMCT itself is installed."""
    if str(ALIASES) not in sys.path:
        sys.path.insert(1, str(ALIASES))


def _source(path: Path) -> bytes:
    """The text of a script. Raises UsageError where it cannot be read."""
    hint = "give the Python file of a script made for amct_tensorflow"
    if not path.exists():
        raise UsageError(str(path), "there is no such file", hint=hint)
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(str(path), f"cannot be read: {error.strerror or error}", hint=hint) from error


def _show(script: str, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show an error that ends the script as Python does, from the first line of the script on."""
    while trace is not None and trace.tb_frame.f_code.co_filename != script:
        trace = trace.tb_next
    sys.__excepthook__(kind, error.with_traceback(trace), trace)
