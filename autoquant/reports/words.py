"""How numbers are written on screens."""

from __future__ import annotations

import math

from autoquant.evaluation.latency.latency import Spread

EXACT = 1e-9
"""Smaller is binary rounding, not a difference."""


def number(value: float) -> str:
    """A score or a drop: 4 decimals, or 3 digits where those would say nothing.

    >>> number(0.9149999), number(-0.0), number(0.00012), number(-1.75e-5)
    ('0.9150', '0.0000', '0.00012', '-0.0000175')
    """
    if abs(value) < EXACT:
        return "0.0000"
    if abs(value) >= 0.001:
        return f"{value:.4f}"
    return f"{value:.3g}" if abs(value) >= 0.0001 or abs(value) < 1e-6 else f"{value:.7f}"


def at_most(upper: float) -> str:
    """An upper bound, which is infinite where there is none.

    >>> at_most(0.09375), at_most(float("inf"))
    ('at most 0.0938', 'no bound')
    """
    return "no bound" if math.isinf(upper) else f"at most {number(upper)}"


def accepted(baseline: float, worst: float, max_drop: float) -> str:
    """The scores within tolerance: `worst` is the last of them, below the baseline or above it.

    >>> accepted(0.75, 0.625, 0.125)
    'accept INT8 >= 0.6250 (max drop 0.1250)'
    """
    if worst == baseline:
        return "accept no drop"
    return f"accept INT8 {'>=' if worst < baseline else '<='} {number(worst)} (max drop {number(max_drop)})"


def percent(share: float) -> str:
    """A share in percent.

    >>> percent(0.98765)
    '98.8%'
    """
    return f"{share * 100:.1f}%"


def share_words(int8_layers: int, layers: int, share: float, *, int16_layers: int = 0) -> str:
    """How much of a plan is INT8.

    >>> share_words(2, 3, 0.625), share_words(2, 4, 0.625, int16_layers=1)
    ('2/3 layers in INT8, 62.5%', '2/4 layers in INT8, 62.5%, 1 with INT16 activations')
    """
    return f"{int8_layers}/{layers} layers in INT8, {percent(share)}{wide_words(int16_layers)}"


def wide_words(int16_layers: int) -> str:
    """What is said of layers with activations of 16 bits behind those in INT8; nothing where there are none."""
    return f", {int16_layers} with INT16 activations" if int16_layers else ""


def counted(count: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "layer"), counted(1200, "batch")
    ('1 layer', '1,200 batches')
    """
    plural = "es" if noun.endswith("ch") else "s"
    return f"{count:,} {noun}{plural if count != 1 else ''}"


def milliseconds(seconds: float) -> str:
    """The time of an operator or a model, with three significant digits.

    >>> milliseconds(0.0000412), milliseconds(0.00512), milliseconds(1.2345), milliseconds(0.0)
    ('0.0412 ms', '5.12 ms', '1234 ms', '0 ms')
    """
    value = seconds * 1000
    decimals = max(2 - math.floor(math.log10(value)), 0) if value > 0 else 0
    return f"{value:.{decimals}f} ms"


def spread(times: Spread) -> str:
    """A median time with its quartiles."""
    quartiles = f"{milliseconds(times.lower_quartile)} to {milliseconds(times.upper_quartile)}"
    return f"{milliseconds(times.median)} ({quartiles})"


def macs(count: int | None) -> str:
    """Multiply-adds, in short.

    >>> macs(2_656_768), macs(812), macs(None)
    ('2.7 M', '812', 'unknown')
    """
    if count is None:
        return "unknown"
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return str(count)
