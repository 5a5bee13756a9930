"""The process that a command runs in: its signals, its file descriptors, and what TensorFlow says at start-up."""

from __future__ import annotations

import _thread
import argparse
import importlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from autoquant.cli.output import note
from autoquant.errors import INTERRUPTED, UsageError
from autoquant.memory import TENSORFLOW
from autoquant.model.model import is_lite
from autoquant.quiet import redirected, stderr_held_back

if TYPE_CHECKING:
    from autoquant.tuning.events import Listener

LATER = 0.05
"""Seconds after which an interruption that was swallowed is raised again."""
TWICE = 5.0
"""Seconds after a signal in which SIGTERM is no second one."""
SHOW_CURSOR = b"\x1b[?25h\n"
"""What a terminal is to be told when a live screen does not come to its end."""


@contextmanager
def stdout_for_the_result() -> Iterator[None]:
    """Let whatever is printed within go to standard error: by us, by the user's functions, by C++.

    Standard output then holds the result and nothing else.
    """
    with redirected(1, 2, sys.stdout.flush), redirect_stdout(sys.stderr):
        yield


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM, which servers and CI end jobs with, be a KeyboardInterrupt, as Ctrl-C is.

    A second signal of either kind ends the process at once: files are written whole or not at all, whenever that is.
    But schedulers send SIGTERM twice in a moment, to a process and by way of what started it: that is the same one.
    A KeyboardInterrupt that Python swallows, as it does while objects are deleted, is raised a little later again.
    """
    heard: list[float] = []
    lost: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        if heard and not lost:
            if number == signal.SIGTERM and time.monotonic() - heard[0] < TWICE:
                return
            if sys.stderr.isatty():
                os.write(2, SHOW_CURSOR)
            os._exit(INTERRUPTED)
        lost.clear()
        heard.append(time.monotonic())
        raise KeyboardInterrupt

    def swallowed() -> None:
        lost.append(signal.SIGINT)
        threading.Timer(LATER, _interrupt_main).start()

    with _handled_by(interrupt, signal.SIGINT, signal.SIGTERM), _told_of_swallowed(swallowed):
        yield


def _interrupt_main() -> None:
    """Send the main thread SIGINT, which ends what it waits for in C as well, where the system can do that."""
    number = threading.main_thread().ident
    if number is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(number, signal.SIGINT)
    else:
        _thread.interrupt_main()


@contextmanager
def working(args: argparse.Namespace, *, tensorflow: bool = True) -> Iterator[Listener]:
    """Inside, standard output is for the result alone, and TensorFlow is there if it is needed.

    Gives the listener of the screen that the arguments choose, which shows what takes long.
    """
    from autoquant.cli.screen import listening
    from autoquant.tuning.events import Progress

    with stdout_for_the_result(), listening(args) as listener:
        if tensorflow:
            listener(Progress("loading TensorFlow", 0, 0))
            import_tensorflow(verbose=args.verbose)
        yield listener


@contextmanager
def prepared(args: argparse.Namespace, model: str | Path) -> Iterator[Listener]:
    """`working`, with TensorFlow if the model needs it, which a signal interrupts."""
    needed = not is_lite(model)
    if needed and not args.quiet:
        note("loading TensorFlow ...")
    with interruptible(), working(args, tensorflow=needed) as listener:
        yield listener


def import_tensorflow(*, verbose: bool) -> None:
    """Import TensorFlow once, without its chatter, which no setting of its own keeps away entirely.

    With `verbose` nothing is kept away. Raises UsageError where it cannot be imported, after showing what it said.
    """
    if "tensorflow" in sys.modules:
        return
    for name, value in TENSORFLOW.items():
        os.environ.setdefault(name, value)
    try:
        if verbose:
            importlib.import_module("tensorflow")
            return
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        with stderr_held_back(shown_if_it_fails=True), _interrupts_kept():
            importlib.import_module("tensorflow")
    except ImportError as error:
        raise UsageError(
            "tensorflow", f"cannot be imported ({error})", hint="pip install --upgrade tensorflow"
        ) from error
    from absl import logging as absl_logging

    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    absl_logging.set_verbosity(absl_logging.ERROR)


@contextmanager
def _interrupts_kept() -> Iterator[None]:
    """Let an interruption take effect that Python swallowed, as it does in the callbacks of an import."""
    heard: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        raise KeyboardInterrupt

    with _handled_by(interrupt, signal.SIGINT, signal.SIGTERM), _told_of_swallowed(lambda: None):
        yield
    if heard:
        raise KeyboardInterrupt


@contextmanager
def _told_of_swallowed(tell: Callable[[], None]) -> Iterator[None]:
    """Call a function for each KeyboardInterrupt that Python swallows within, instead of printing its traceback."""

    def hook(unraisable: Any) -> None:
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            tell()
        else:
            before(unraisable)

    before, sys.unraisablehook = sys.unraisablehook, hook
    try:
        yield
    finally:
        sys.unraisablehook = before


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None], *numbers: int) -> Iterator[None]:
    """Let signals call a function within."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, own in before.items():
            signal.signal(number, own)
