"""How numbers are written on screens."""

from __future__ import annotations

import math

EXACT = 1e-9
"""Smaller is binary rounding, not a difference."""
SET_ASIDE = "set aside"
"""What became of a trial that was stopped without a proof."""


def number(value: float) -> str:
    """A score or a drop: 4 decimals, or 3 digits where those would say nothing.

    >>> number(0.9149999), number(-0.0), number(0.00012)
    ('0.9150', '0.0000', '0.00012')
    """
    if abs(value) < EXACT:
        return "0.0000"
    return f"{value:.4f}" if abs(value) >= 0.001 else f"{value:.3g}"


def at_most(upper: float) -> str:
    """An upper bound, which is infinite where there is none.

    >>> at_most(0.09375), at_most(float("inf"))
    ('at most 0.0938', 'no bound')
    """
    return "no bound" if math.isinf(upper) else f"at most {number(upper)}"


def percent(share: float) -> str:
    """A share in percent.

    >>> percent(0.98765)
    '98.8%'
    """
    return f"{share * 100:.1f}%"


def counted(count: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "layer"), counted(1200, "batch")
    ('1 layer', '1,200 batches')
    """
    plural = "es" if noun.endswith("ch") else "s"
    return f"{count:,} {noun}{plural if count != 1 else ''}"


def conversions(count: int) -> str:
    """Operators between INT8 and float.

    >>> conversions(2)
    '2 conversions between INT8 and float'
    """
    return f"{counted(count, 'conversion')} between INT8 and float"


def duration(seconds: float) -> str:
    """Time as `--timeout` takes it.

    >>> duration(0.44), duration(12.3), duration(200), duration(7500)
    ('0.4s', '12s', '3m20s', '2h05m')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s" if seconds >= 9.95 else f"{seconds:.1f}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


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
