"""`autoquant check`: compare a quantized model with its record, or with what a device takes."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from autoquant.cli import arguments
from autoquant.cli.output import say
from autoquant.cli.process import working
from autoquant.errors import MET, MISSED, UsageError
from autoquant.model.model import check_file, is_lite
from autoquant.reports.words import counted
from autoquant.targets.profiles.table import open_profile
from autoquant.tuning.events import reporter

if TYPE_CHECKING:
    from autoquant.targets.check import CheckResult
    from autoquant.targets.profiles.check import DeviceCheck


def add_arguments(parser: arguments.Parser) -> None:
    """The model, and the record or the profile."""
    parser.add_argument(
        "model", metavar="FILE", help="a quantized .pb that autoquant saved; or any INT8 .tflite, with --profile"
    )
    parser.add_argument(
        "--record", metavar="FILE", help="its record (default: <model>_record.txt or record.txt beside it)"
    )
    what = "compare an INT8 .tflite with what this device takes (`autoquant guide profiles`)"
    parser.add_argument("--profile", metavar="NAME", help=what)
    arguments.add_verbose(parser)


def run(args: argparse.Namespace) -> int:
    """Check, and print what was compared; MISSED where the file breaks a profile."""
    profile, record = getattr(args, "profile", None), getattr(args, "record", None)
    _check_asked(args.model, profile, record)
    with working(args, tensorflow=profile is None) as listener:
        reporter(listener, "checking")
        from autoquant import api

        if profile is None:
            said, code = text(api.check(args.model, record)), MET
        else:
            found = api.check_device(args.model, profile)
            said, code = "\n".join(_device(found)), MISSED if found.violations else MET
    say(said)
    return code


def _check_asked(model: str, profile: str | None, record: str | None) -> None:
    """Raise InputError for what cannot be compared."""
    check_file(model)
    if profile is not None:
        open_profile(profile)
        if record is not None:
            raise UsageError("--record", "a device has none", hint="leave it out, or --profile")
        if not is_lite(model):
            raise UsageError("--profile", "is for .tflite files", hint="leave it out: a .pb is checked by its record")
    elif is_lite(model):
        raise UsageError("--profile", "is missing: a .tflite is checked against a device", hint="give --profile NAME")


def text(found: CheckResult) -> str:
    """A line for every kind of thing that was checked, then "ok"."""
    kinds = ", ".join(f"{number} {op}" for op, number in found.layers.items())
    left_out = [f"left out   in the record, not in the graph: {', '.join(found.left_out)}"] if found.left_out else []
    return "\n".join(
        [
            f"layers     {counted(sum(found.layers.values()), 'layer')} in INT8: {kinds}",
            f"weights    {found.weights:,}",
            *left_out,
            f"functions  {'included: runs in stock TensorFlow' if found.simulation else 'none: for converters'}",
            f"mapping    {'matches this file' if found.mapping else 'none'}",
            "ok",
        ]
    )


def _device(found: DeviceCheck) -> Iterator[str]:
    """The device, and a line for all that breaks its profile, or "ok"."""
    yield f"device     {found.device}"
    yield f"profile    {found.profile}, which was checked {found.checked}"
    if not found.violations:
        yield "ok"
    for one in found.violations:
        yield f"breaks it  {one.where or 'file'}: {one.what}"
