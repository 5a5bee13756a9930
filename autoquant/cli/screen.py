"""The process of a search, the screen that listens to it, and the result printed."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from autoquant.cli.output import note, say
from autoquant.cli.process import needs_tensorflow, sigterm_as_ctrl_c, working
from autoquant.cli.tables import labelled, page
from autoquant.formats.codec import json_text

if TYPE_CHECKING:
    from autoquant.tuning.events import Listener
    from autoquant.tuning.result import SearchResult


@contextmanager
def prepared(args: argparse.Namespace, model: str | Path) -> Iterator[None]:
    """Inside, TensorFlow is there, if the model needs it; standard output is for the result, and SIGTERM is Ctrl-C."""
    needed = needs_tensorflow(model)
    if needed and not args.quiet:
        note("loading TensorFlow ...")
    with sigterm_as_ctrl_c(), working(args, tensorflow=needed):
        yield


@contextmanager
def listening(args: argparse.Namespace) -> Iterator[Listener]:
    """Inside, the listener that the arguments choose."""
    if args.quiet:
        from autoquant.tuning.events import Event, Warned

        def hear(event: Event) -> None:
            if isinstance(event, Warned):
                note(f"warning: {event.text}")

        yield hear
        return
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    # TensorFlow's own lines would tear the live view apart.
    if args.plain or args.verbose or not sys.stderr.isatty() or console.is_dumb_terminal or not os.environ.get("TERM"):
        from autoquant.cli.plain import PlainScreen

        yield PlainScreen(note, time.monotonic, verbose=args.verbose)
        return
    from autoquant.cli.live import LiveScreen

    with LiveScreen(console, time.monotonic) as screen:
        yield screen


def show_result(
    result: SearchResult,
    args: argparse.Namespace,
    *,
    before: Sequence[tuple[str, str]] = (),
    after: Sequence[tuple[str, str]] = (),
) -> int:
    """Print the result, for people with rows `before` and `after` it; return the exit code."""
    from autoquant.cli.summary import brief, exit_code, summary
    from autoquant.tuning.result import result_facts

    if args.json:
        say(json_text(result_facts(result)))
    else:
        rows = brief(result) if args.quiet else [*before, *summary(result), *after]
        say(page([labelled(rows)], columns=None))
    return exit_code(result)
