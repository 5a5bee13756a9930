"""What a certificate says, and the groups that are guarded, as rows of a screen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from autoquant.cli.output import Row, Table
from autoquant.errors import listed
from autoquant.evaluation.statistics.paired import GroupBound
from autoquant.evaluation.statistics.tolerance import within
from autoquant.messages import UNKNOWN
from autoquant.reports.words import at_most, counted, number
from autoquant.tuning.certification.certificate import Certificate

MOST = 5
"""Layers, groups or operators that are named; result.json has all."""
DIGITS = 12
"""Of a digest; certificate.json has all."""


def confidence_words(certificate: Certificate) -> str:
    """The confidence of its bounds."""
    return f"{certificate.confidence * 100:g}% confidence"


def certificate_rows(certificate: Certificate, which: str) -> Iterator[Row]:
    """What a certificate says, of samples that are described by `which`."""
    pairs = ""
    if certificate.losses is not None and certificate.gains is not None:
        pairs = f": {certificate.losses:,} got worse, {certificate.gains:,} better"
    units = "" if certificate.units is None else f" of {counted(certificate.units, 'unit')}"
    yield "holdout", f"{counted(certificate.samples, 'sample')}{units} {which}{pairs}"
    if certificate.left_out:
        yield "", f"{certificate.left_out:,} more left out, which are search or calibration samples too"
    bound = f"{at_most(certificate.upper_bound)} with {confidence_words(certificate)}"
    yield "", f"drop {number(certificate.drop)}, {bound} (max drop {number(certificate.max_drop)})"
    origin = certificate.origin
    yield "", f"measured on {origin.engine}, {origin.kernels}; bound: {certificate.method}"
    if certificate.assumes:
        yield "", f"assumed: {certificate.assumes}"
    digests = {"FP32": origin.model, "INT8": origin.int8_model, "data": origin.data}
    yield "", f"SHA-256: {', '.join(f'{what} {digest[:DIGITS]}' for what, digest in digests.items())}"
    yield from _groups(certificate)
    word = "holdout sample" if certificate.units is None else "holdout unit"
    count = certificate.needed_samples if certificate.units is None else certificate.needed_units
    if count is not None:
        unbounded = any(map(math.isinf, [certificate.upper_bound, *(group.upper for group in certificate.guard)]))
        needed = counted(count, word)
        words = f"a certificate takes at least {needed}" if unbounded else f"about {needed} would certify these rates"
        yield "", f"{words}: --certify DATA"


def _groups(certificate: Certificate) -> Iterator[Row]:
    """The groups that are guarded, and those that nothing is known of."""
    yield from group_rows(certificate.guard, certificate.guard_max_drop)
    if certificate.unseen:
        groups = listed(certificate.unseen, most=MOST)
        yield "", f"groups without holdout samples, which stay uncertified: {groups}; --certify DATA that has some"


def group_rows(guard: Sequence[GroupBound], max_drop: float | None) -> Iterator[Row]:
    """Groups, those with the largest drop, each beside its tolerance where there is one."""
    if not guard:
        return
    shown, limit = guard[:MOST], "" if max_drop is None else f", max drop {number(max_drop)} each"
    worst = f"; the {len(shown)} with the largest drop" if len(guard) > len(shown) else ""
    yield "guard", f"{counted(len(guard), 'group')}{limit}{worst}:"
    rows = [
        (
            one.label,
            number(one.drop),
            UNKNOWN if math.isinf(one.upper) else number(one.upper),
            f"{one.samples:,}",
            UNKNOWN if max_drop is None else _group_verdict(one, max_drop),
        )
        for one in shown
    ]
    table = Table(("group", "drop", "at most", "samples", "within"), rows, words=1)
    yield from (("", line) for line in table.lines())


def _group_verdict(group: GroupBound, max_drop: float) -> str:
    """Whether a group is proven to be within its tolerance, or not to be."""
    return "yes" if within(group.upper, max_drop) else "undecided" if within(group.lower, max_drop) else "no"
