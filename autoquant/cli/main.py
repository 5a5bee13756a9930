"""The console script: finds the command, runs it, and turns every error into one line and an exit code."""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from autoquant import __version__
from autoquant.cli.arguments import Parser
from autoquant.cli.output import complain, reader_may_leave
from autoquant.errors import BAD_INPUT, INTERNAL, INTERRUPTED, AutoquantError, UsageError, did_you_mean
from autoquant.evaluation.data.plugins import user_error
from autoquant.extensions import at_fault

COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "init": "write a file of options for a search, after a look at a model and its data",
        "search": "find the INT8 model that keeps the tolerance",
        "resume": "go on with a search that was interrupted, or with a larger budget",
        "worker": "carry out trials of a search that runs elsewhere, on another machine or in another process",
        "status": "show what a search and its workers are doing",
        "demo": "train a small network, and watch a search repair what plain INT8 breaks",
        "inspect": "show a model's layers, what they cost, and what cannot be quantized",
        "evaluate": "score models of any kind, float or INT8, on the same samples, and compare them",
        "benchmark": "measure how long models take on this machine, side by side",
        "explain": "show the measured effect of each setting and float layer of a run, and why layers are in float",
        "report": "write a page about a run, or one that compares several: what was found, and what it cost",
        "export": "copy the best plan, its record and its model out of a run, or build it for another target",
        "quantize": "apply an exported plan to a model, without any search",
        "calibration": "calibrate and quantize a frozen .pb, with AMCT's arguments",
        "convert": "turn a .pb trained with FakeQuant into an INT8 model, with AMCT's arguments",
        "check": "compare a quantized model with its record, or with what a device takes",
        "guide": "read how all of this is used: data, certificates, search spaces, from symptom to knob",
        "completion": "print a script that completes commands and options in bash, zsh or fish",
    }
)
"""Command -> what it does. Each is a module of its own, imported only when it is run."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is returned, never raised (autoquant/errors.py says which there are)."""
    words = list(sys.argv[1:] if argv is None else argv)
    with reader_may_leave(sys.stdout):
        try:
            return _run(words)
        except SystemExit as end:  # argparse ends so after --help and --version
            return int(end.code or 0)
        except AutoquantError as error:
            complain(f"autoquant: error: {error}")
            return error.exit_code
        except KeyboardInterrupt:
            complain("autoquant: interrupted")
            return INTERRUPTED
        except Exception as error:
            verbose = "--verbose" in words
            if verbose:
                complain(traceback.format_exc())
            more = "" if verbose else "; run again with --verbose for the traceback"
            whose = at_fault(error) or "autoquant"
            message = f"internal error: {type(error).__name__}: {error}, this is a bug in {whose}{more}"
            complain(f"autoquant: {message}")
            return INTERNAL


def _run(words: list[str]) -> int:
    parser = _parser()
    first = parser.parse_args(words)
    if first.command is None:
        parser.print_help()
        return BAD_INPUT
    if first.command not in COMMANDS:
        hint = did_you_mean(first.command, COMMANDS, otherwise="`autoquant --help` lists them")
        raise UsageError(first.command, "is not a command", hint=hint)
    what = COMMANDS[first.command]
    command = importlib.import_module(f"autoquant.cli.{first.command}")
    own = Parser(prog=f"autoquant {first.command}", description=f"{what[0].upper()}{what[1:]}.")
    command.add_arguments(own)
    args = own.parse_args(first.rest)
    try:
        code: int = command.run(args)
    except SystemExit as end:  # a function of the user's own: even 0 would not say that all went well
        raise user_error(first.command, end) from end
    return code


def _parser() -> Parser:
    width = max(map(len, COMMANDS))
    parser = Parser(
        prog="autoquant",
        usage="autoquant COMMAND ...",
        description="Turns a trained TensorFlow model into an INT8 model that keeps the accuracy you ask for.",
        epilog="commands:\n"
        + "\n".join(f"  {name:{width}}  {what}" for name, what in COMMANDS.items())
        + "\n\n`autoquant COMMAND --help` lists the options of a command. To begin with: `autoquant demo`.",
    )
    parser.add_argument("--version", action="version", version=f"autoquant {__version__}")
    parser.add_argument("command", nargs="?", default=None, help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser
