"""Preprocessing: from raw samples to what a model takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError, UsageError
from autoquant.evaluation.data.plugins import check_function, load_function, name_of, nearest, retried, source_key

Step = tuple[np.ufunc, tuple[float, ...]]
Numbers = float | str | Sequence[float]
"""A number, or one for each channel; as text '0.5', '1/255' or '0.485,0.456,0.406'."""


class Preprocess(Protocol):
    """Turns a batch of raw samples, (batch, ...), into a batch that the model takes."""

    @property
    def key(self) -> str:
        """Identifies the arithmetic: equal keys give equal results. Part of digests and of run.toml."""

    def __call__(self, batch: Array) -> Array:
        """A new array with as many samples."""


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Steps in float32, each with one value, or one per channel (the last axis), after RGB became BGR where `bgr`.

    `who` is what asked for it, as errors call it.
    """

    key: str
    steps: tuple[Step, ...]
    who: str
    bgr: bool = False

    def __call__(self, batch: Array) -> Array:
        """A new float32 array; raises DataError where the channels do not match."""
        if self.bgr:
            _require_channels(batch, 3, self.who)
            values: Array = np.empty(batch.shape, np.float32)
            for channel in range(3):  # three times as fast as copying batch[..., ::-1]
                values[..., channel] = batch[..., 2 - channel]
        else:
            values = np.array(batch, np.float32, order="C")
        for ufunc, numbers in self.steps:
            if len(numbers) == 1:
                ufunc(values, np.float32(numbers[0]), out=values)
                continue
            _require_channels(values, len(numbers), self.who)
            # Broadcasting a row of pixels instead of one pixel: five times as fast for three channels.
            width = values.shape[-2] if values.ndim > 2 else 1
            rows = values.reshape(-1, width * len(numbers))
            ufunc(rows, np.tile(np.asarray(numbers, np.float32), width), out=rows)
        return values


_TF: tuple[Step, ...] = ((np.divide, (127.5,)), (np.subtract, (1.0,)))
_TORCH: tuple[Step, ...] = (
    (np.divide, (255.0,)),
    (np.subtract, (0.485, 0.456, 0.406)),
    (np.divide, (0.229, 0.224, 0.225)),
)
_CAFFE: tuple[Step, ...] = ((np.subtract, (103.939, 116.779, 123.68)),)
KERAS: Mapping[str, Arithmetic] = MappingProxyType(
    {
        "tf": Arithmetic("tf", _TF, "tf"),
        "torch": Arithmetic("torch", _TORCH, "torch"),
        "caffe": Arithmetic("caffe", _CAFFE, "caffe", bgr=True),
    }
)
"""Exactly what keras.applications.imagenet_utils.preprocess_input does in its modes, channels last, in float32."""


def standardize(
    scale: tuple[float, ...] = (1.0,), mean: tuple[float, ...] = (0.0,), std: tuple[float, ...] = (1.0,)
) -> Arithmetic:
    """(x * scale - mean) / std, each one value, or one per channel. Raises ValueError for what is not that."""
    given = {"scale": scale, "mean": mean, "std": std}
    for name, values in given.items():
        if not values or not all(map(isfinite, values)):
            raise ValueError(f"{name} must be finite numbers, got {values}")
    if 0.0 in std:
        raise ValueError(f"std must not be 0, got {std}")
    if len({len(values) for values in given.values()} - {1}) > 1:
        raise ValueError("scale, mean and std must be given for the same number of channels")
    steps: tuple[Step, ...] = ((np.multiply, scale), (np.subtract, mean), (np.divide, std))
    neutral = ((1.0,), (0.0,), (1.0,))
    needed = tuple(step for step, same in zip(steps, neutral, strict=True) if step[1] != same)
    key = " ".join(f"{name}={','.join(map(repr, values))}" for name, values in given.items())
    return Arithmetic(key, needed, "--scale, --mean, --std")


@dataclass(frozen=True, slots=True)
class Custom:
    """The user's function of a raw batch. Its key changes with the file it is written in."""

    name: str
    function: Callable[[Array], Any]

    @property
    def key(self) -> str:
        """The function's name, and a digest of its source file, wherever that lies."""
        return f"{self.name.rpartition(':')[2]}@{source_key(self.function)}"

    def __call__(self, batch: Array) -> Array:
        """The function's result; raises DataError where it raises, or loses samples."""
        own = batch if batch.flags.writeable else batch.copy()
        result = retried(self.name, lambda: np.asarray(self.function(own)))
        if result.shape[:1] != batch.shape[:1]:
            what = f"made shape {result.shape} of a batch of shape {batch.shape}"
            raise DataError(self.name, what, hint="it is called with a whole batch and must keep the first axis")
        return result


def open_preprocess(
    name: str | Callable[[Array], Any] | None = None,
    *,
    scale: Numbers | None = None,
    mean: Numbers | None = None,
    std: Numbers | None = None,
) -> Preprocess | None:
    """What `--preprocess` (a Keras mode or 'module:function') or `--scale --mean --std` ask for; None for nothing.

    Raises UsageError if both are given, or for what is not a number; DataError for a function that is not there.
    """
    numbers = {key: given for key, given in (("scale", scale), ("mean", mean), ("std", std)) if given is not None}
    if name is not None and numbers:
        raise UsageError("--preprocess", f"cannot go with --{next(iter(numbers))}", hint="give one or the other")
    if numbers:
        try:
            return standardize(**{key: _parse_values(f"--{key}", given) for key, given in numbers.items()})
        except ValueError as error:
            raise UsageError("--scale, --mean, --std", str(error)) from error
    if name is None:
        return None
    if callable(name):
        return Custom(name_of(name), name)
    if name in KERAS:
        return KERAS[name]
    if ":" not in name:
        raise UsageError("--preprocess", f"unknown '{name}'", hint=nearest(name, [*KERAS, "module:function"]))
    return Custom(name, load_function(name))


def check_preprocess(name: str | Callable[[Array], Any] | None, **numbers: Numbers | None) -> None:
    """Raise as `open_preprocess`, but do not import a function's module."""
    if isinstance(name, str) and ":" in name and all(given is None for given in numbers.values()):
        check_function(name)
    else:
        open_preprocess(name, **numbers)


def _parse_values(option: str, given: Numbers) -> tuple[float, ...]:
    try:
        if isinstance(given, str):
            return tuple(float(Fraction(part.strip())) for part in given.split(","))
        return tuple(map(float, np.atleast_1d(given)))
    except (ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
        hint = "write a number, a fraction such as 1/255, or one for each channel separated by commas"
        raise UsageError(option, f"{given!r} is not a number", hint=hint) from error


def _require_channels(values: Array, channels: int, who: str) -> None:
    if values.ndim < 2 or values.shape[-1] != channels:
        what = f"is for {channels} channels on the last axis, the data has shape {('batch', *values.shape[1:])}"
        raise DataError(who, what.replace("'", ""), hint="give one number, or as many as there are channels")
