"""Models from wherever they are, measured side by side in LiteRT on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from autoquant.array import Array
from autoquant.errors import ModelError, RunError, UsageError
from autoquant.evaluation.latency.latency import LEAST, Latency, RoundsBudget
from autoquant.files import sha256_of
from autoquant.formats.strict import load_object
from autoquant.model.feed import Feed
from autoquant.model.model import LITE, is_lite
from autoquant.model.open import open_model
from autoquant.quiet import no_progress
from autoquant.tuning.certification.certificate import load_certificate
from autoquant.tuning.events import Listener, reporter
from autoquant.tuning.study.run_folder import CERTIFICATE, RunFolder
from autoquant.tuning.study.trial import SCORE, WAY_OUT

BUDGET = RoundsBudget(seconds=3.0, rounds=1000)


class BenchmarkOptions(TypedDict, total=False):
    """The fields of a BenchmarkRequest, for the signatures of functions that pass them on."""

    threads: int
    batch_size: int
    repeat: int | None
    image_size: tuple[int, int] | str | None
    signature: str | None
    feed: Feed
    trust_model: bool


@dataclass(frozen=True, kw_only=True)
class BenchmarkRequest:
    """How to measure: threads, samples a batch, rounds (None: as many as three seconds allow, 1000 at most).

    `image_size` is height and width of images where the first model leaves them open. Models of TensorFlow are opened
    with this `signature`, and the values that `feed` gives to placeholders that are no data; with `trust_model` also
    where they may do more than compute (model/trust.py).
    """

    threads: int = 1
    batch_size: int = 1
    repeat: int | None = None
    image_size: tuple[int, int] | None = None
    signature: str | None = None
    feed: Feed = ()
    trust_model: bool = False

    def __post_init__(self) -> None:
        for option, value, least in (
            ("--threads", self.threads, 1),
            ("--batch-size", self.batch_size, 1),
            ("--repeat", LEAST if self.repeat is None else self.repeat, LEAST),
        ):
            if value < least:
                raise UsageError(option, f"must be at least {least}, got {value}", hint=f"for example {2 * least}")

    @property
    def budget(self) -> RoundsBudget:
        """What of time and rounds ends it."""
        return BUDGET if self.repeat is None else RoundsBudget(seconds=math.inf, rounds=self.repeat)


def lite_file(path: str | Path) -> Path | None:
    """The .tflite that a path means: itself, the best of a run, the only one of a folder; None for other models.

    Raises RunError for a run without any.
    """
    path = Path(path)
    if is_lite(path):
        return path
    run = RunFolder(path)
    if run.request.is_file():
        run.check_links()
    folder = run.best if run.request.is_file() else path
    found = sorted(folder.glob(f"*{LITE}")) if folder.is_dir() else []
    if run.request.is_file() and not found:
        hint = f"`autoquant export {path} --target litert` makes one"
        raise RunError(str(path), f"its best model is not a {LITE}", hint=hint)
    if len(found) > 1:
        raise ModelError(
            str(path), f"holds several {LITE}: {', '.join(f.name for f in found)}", hint="name one of them"
        )
    return found[0] if found else None


def check_unchanged(model: Path) -> None:
    """Raise RunError where the score.json or certificate.json beside a model is of another file."""
    score, certificate = model.with_name(SCORE), model.with_name(CERTIFICATE)
    known = {load_certificate(certificate).origin.int8_model} if certificate.is_file() else set[str]()
    if score.is_file():
        digests = load_object(score, RunError, hint=WAY_OUT).sub("digests").rest()
        known |= {str(digests[model.name])} if model.name in digests else set()
    if known - {sha256_of(model)}:
        hint = "`autoquant resume` builds the best model of a run again, `autoquant export` what it exported"
        raise RunError(str(model), "is not the file that was scored or certified (another SHA-256)", hint=hint)


def benchmark(
    models: Sequence[str | Path],
    request: BenchmarkRequest,
    *,
    samples: Sequence[Array] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    listener: Listener = no_progress,
) -> Latency:
    """Measure models; the first is the reference. Any but a .tflite is converted to a float one, by TensorFlow.

    `samples` is one batch for each input in the file's order; without it, numbers are random. Raises ModelError where a
    model cannot be opened or run, RunError where one is not the file that its run scored or certified, UsageError
    without any or with one twice.
    """
    from autoquant.evaluation.latency.models import random_samples
    from autoquant.evaluation.latency.operators import measure_latency

    if not models:
        raise UsageError("MODEL", "there is none", hint="give one .tflite or more, the float one first")
    paths = [Path(path) for path in models]
    if len(set(paths)) < len(paths):
        raise UsageError("MODEL", "one appears twice", hint="give each model once")
    names = [path.name for path in paths]
    files = [lite_file(path) for path in paths]
    if all(files) and (request.signature is not None or request.feed):
        option = "--feed" if request.signature is None else "--signature"
        raise UsageError(option, f"is for models of TensorFlow, and all are {LITE} files", hint="leave it out")
    layers: dict[str, str] = {}
    reporter(listener, "opening models")
    contents = {
        path.name if names.count(path.name) == 1 else str(path): _converted(path, request, layers)
        if file is None
        else _content(path, file)
        for path, file in zip(paths, files, strict=True)
    }
    first, content = next(iter(contents.items()))
    fed = samples or random_samples(first, content, batch_size=request.batch_size, image_size=request.image_size)
    reporter(listener, "measuring")
    return measure_latency(contents, fed, threads=request.threads, budget=request.budget, layers=layers, clock=clock)


def _converted(path: Path, request: BenchmarkRequest, layers: dict[str, str]) -> bytes:
    """The float .tflite of a model of TensorFlow; its layers are added to `layers`, by the tensor that they make."""
    from autoquant.evaluation.latency.models import layer_of, lite_of

    signature = request.signature if path.is_dir() else None
    lite = lite_of(open_model(path, signature=signature, feed=request.feed, for_litert=True, trust=request.trust_model))
    layers |= layer_of(lite)
    return lite.content


def _content(path: Path, file: Path) -> bytes:
    try:
        check_unchanged(file)
        return file.read_bytes()
    except OSError as error:
        raise ModelError(str(path), f"cannot be read ({error.strerror})", hint="give a .tflite") from None
