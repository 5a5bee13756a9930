"""Values for placeholders that are no data, such as is_training or keep_prob: how they are given and read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autoquant.array import Array
from autoquant.errors import UsageError

OPTION = "--feed"
FORM = "give NAME=VALUE, for example is_training=false"
TRUTH = {"true": True, "1": True, "false": False, "0": False}

Feed = Mapping[str, Any] | Sequence[str]
"""A value for each name, or texts NAME=VALUE."""


def feed_texts(feed: Feed) -> tuple[str, ...]:
    """The texts NAME=VALUE of a feed, as a command and run.toml have them. Raises UsageError.

    >>> feed_texts({"is_training": False, "keep_prob:0": 1.0})
    ('is_training=false', 'keep_prob=1.0')
    """
    if isinstance(feed, str):
        raise UsageError(OPTION, f"got the text '{feed}'", hint='in Python give a dict: feed={"is_training": False}')
    texts = [_text(name, value) for name, value in feed.items()] if isinstance(feed, Mapping) else feed
    return tuple(f"{name}={value}" for name, value in feed_values(texts).items())


def feed_values(texts: Sequence[str]) -> dict[str, str]:
    """Name -> value as text. Raises UsageError for what is not NAME=VALUE, and for a name that comes twice.

    >>> feed_values(["is_training:0=False"])
    {'is_training': 'false'}
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in str(text).partition("="))
        name = name.removesuffix(":0")
        if not (name and equals and value):
            raise UsageError(OPTION, f"cannot read '{text}'", hint=FORM)
        if name in found:
            raise UsageError(OPTION, f"'{name}' is given twice", hint="give one value for each name")
        found[name] = value.lower()
    return found


def _text(name: str, value: Any) -> str:
    array = np.asarray(value)
    if array.ndim:
        raise UsageError(f"{OPTION} {name}", f"has shape {array.shape}", hint="give a single number, or True or False")
    return f"{name}={array.item()}"


def feed_value(name: str, text: str, dtype: np.dtype[Any]) -> Array:
    """The single value of this type that a text says. Raises UsageError.

    >>> feed_value("is_training", "false", np.dtype(bool))
    array(False)
    """
    try:
        value: Any = TRUTH[text] if dtype.kind == "b" else int(text) if dtype.kind in "iu" else float(text)
        with np.errstate(over="ignore"):
            found = np.array(value, dtype)
        if not np.isfinite(float(value)) or not np.isfinite(found.astype(np.float64)):
            raise ValueError
    except (KeyError, ValueError, OverflowError, TypeError):
        hint = {"b": "give true or false", "f": "give a number"}.get(dtype.kind, "give a whole number")
        raise UsageError(f"{OPTION} {name}", f"cannot read '{text}' as {dtype.name}", hint=hint) from None
    return found


def feed_hint(name: str, dtype: np.dtype[Any]) -> str:
    """The way out where a placeholder that is no data has no value."""
    example = {"b": "false", "f": "1.0"}.get(dtype.kind, "1")
    return f"give its value: {OPTION} {name}={example}"
