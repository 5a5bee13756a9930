"""The last screen: what came out, and what to do next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator

from autoquant.cli.latency_words import (
    SLOWEST,
    aligned,
    conditions,
    doubts,
    operator_cells,
    operator_headings,
    spread_words,
)
from autoquant.cli.words import at_most, conversions, counted, duration, number, percent
from autoquant.errors import INTERRUPTED, MET, MISSED, UNCERTIFIED
from autoquant.evaluation.latency.latency import Latency
from autoquant.evaluation.statistics.paired import GroupBound
from autoquant.evaluation.statistics.tolerance import within
from autoquant.tuning.certification.certificate import Certificate, Verdict
from autoquant.tuning.result import Ended, SearchResult
from autoquant.tuning.study.choices import MACS
from autoquant.tuning.study.run_folder import RunFolder

COSTLY = 5
"""Layers that are named when the tolerance is missed."""
WIDEST = "thorough"
"""The preset that offers most."""
DIGITS = 12
"""Of a digest; certificate.json has all."""
Line = tuple[str, str]
"""A label, which may be empty, and what it says."""


def summary(result: SearchResult) -> list[Line]:
    """All lines of the last screen, the verdict first."""
    warnings = [("warning", text) for text in result.warnings]
    latency = _latency(result.latency) if result.latency else ()
    return [
        *verdict(result),
        *warnings,
        *_scores(result),
        *_certificate(result),
        *latency,
        *_effort(result),
        *_where(result),
        *_advice(result),
    ]


def brief(result: SearchResult) -> list[Line]:
    """What is left of it with --quiet."""
    return [*verdict(result), ("model", str(result.model))] if result.model else [*verdict(result)]


def exit_code(result: SearchResult) -> int:
    """How a command ends after this result."""
    if result.ended is Ended.INTERRUPTED:
        return INTERRUPTED
    if result.verdict is Verdict.MISSED:
        return MISSED
    return MET if result.verdict is Verdict.CERTIFIED or result.declined else UNCERTIFIED


def verdict(result: SearchResult) -> Iterator[Line]:
    """The verdict in words."""
    best = result.best
    if best is None or best.drop is None:
        reason = f"; the last one failed: {result.trials[-1].failure}" if result.trials else ""
        yield "missed", f"no trial came to its end{reason}"
        return
    layers = f"{best.int8_layers} of {result.layers} layers in INT8"
    if best.score is None:
        about = f"{layers}, the drop is about {number(best.drop)}, by {counted(best.samples, 'sample')}"
        yield "missed", f"no trial is within {number(result.tolerance)} of FP32; the best, not scored on all: {about}"
        return
    certificate = result.certificate
    if certificate is not None and certificate.verdict is Verdict.CERTIFIED:
        yield (
            "certified",
            f"{layers}, and with {_sure(certificate)} the drop is at most {number(certificate.upper_bound)}",
        )
        return
    if certificate is not None and certificate.verdict is Verdict.MISSED:
        yield "missed", f"{_missed_there(certificate)}; it was met on the samples that were searched on"
        return
    if result.verdict is Verdict.MET:
        met = f"{result.metric} {number(best.score)} with {layers}, within {number(result.tolerance)} of FP32"
        yield "met", met if result.declined else f"{met}; not certified"
        return
    if _missed_later(result):
        yield "missed", result.uncertified
        return
    side = "below the allowed floor" if best.score < result.limit else "above the allowed ceiling"
    beyond = number(best.drop - result.tolerance)
    yield "missed", f"best is {result.metric} {number(best.score)}, which is {beyond} {side} of {number(result.limit)}"


def _scores(result: SearchResult) -> Iterator[Line]:
    aside = f", on the {counted(result.search_samples, 'sample')} searched on" if result.certificate else ""
    yield "FP32", f"{result.metric} {number(result.baseline)}{aside}"
    if result.best is None or result.score is None or result.drop is None:
        return
    best, allowed = result.best, number(result.tolerance)
    yield "INT8", f"{result.metric} {number(result.score)}, drop {number(result.drop)}, allowed {allowed}"
    if result.score_tensorflow is not None:
        yield "", f"{result.metric} {number(result.score_tensorflow)} in TensorFlow, from the saved graph"
    between = "" if best.qdq_ops is None else f"; {conversions(best.qdq_ops)}"
    share = f"{percent(best.int8_share)} of the {result.unit}"
    yield "layers", f"{best.int8_layers} of {result.layers} in INT8, {share}{between}"
    if result.objective != MACS:
        yield result.objective, f"{percent(best.objective)} of the float model's, which is what was minimized"


def _sure(certificate: Certificate) -> str:
    return f"{certificate.confidence * 100:g}% confidence"


def _missed_later(result: SearchResult) -> bool:
    """Whether the best was met on the samples searched on, and missed on those kept aside."""
    return result.verdict is Verdict.MISSED and result.best is not None and result.best.meets(result.tolerance)


def _missed_there(certificate: Certificate) -> str:
    """What was missed on the samples kept aside: by all of them, or by a group."""
    where = f"on {counted(certificate.samples, 'sample')} that the search has not seen"
    if not within(certificate.drop, certificate.allowed):
        return f"{where} the drop is {number(certificate.drop)}, more than {number(certificate.allowed)}"
    allowed = certificate.guard_allowed or 0.0
    out = [group for group in certificate.guard if not within(group.lower, allowed)]
    worst = ", ".join(f"{group.label} loses {number(group.drop)}" for group in out[:COSTLY])
    are = "is" if len(out) == 1 else "are"
    more = f", and {len(out) - COSTLY} more" if len(out) > COSTLY else ""
    return f"{where} {counted(len(out), 'group')} {are} proven to lose more than {number(allowed)}: {worst}{more}"


def _certificate(result: SearchResult) -> Iterator[Line]:
    certificate = result.certificate
    if certificate is None:
        if result.uncertified and result.verdict is not Verdict.MISSED:
            yield "claim", result.uncertified if result.declined else f"nothing is certified: {result.uncertified}"
        return
    pairs = ""
    if certificate.losses is not None and certificate.gains is not None:
        pairs = f"; {certificate.losses:,} got worse, {certificate.gains:,} better"
    yield "claim", f"on {counted(certificate.samples, 'sample')} that the search has not seen{pairs}"
    if certificate.left_out:
        yield "", f"without {certificate.left_out:,} more that search or calibration have as well"
    bound = f"{at_most(certificate.upper_bound)} with {_sure(certificate)}"
    yield "", f"drop {number(certificate.drop)}, {bound}; allowed {number(certificate.allowed)}"
    where = f"{certificate.origin.engine}, {certificate.origin.kernels}"
    yield "", f"measured on {where}; bound: {certificate.method}"
    digests = {"FP32": certificate.origin.model, "INT8": certificate.origin.int8_model, "data": certificate.origin.data}
    yield "", f"SHA-256: {', '.join(f'{what} {digest[:DIGITS]}' for what, digest in digests.items())}"
    yield from _groups(certificate)
    if certificate.needed_samples is not None:
        few = any(map(math.isinf, [certificate.upper_bound, *(group.upper for group in certificate.guard)]))
        needed = counted(certificate.needed_samples, "sample")
        words = f"it takes at least {needed}" if few else f"about {needed} would certify it, if it goes on so"
        yield "", f"{words}: --certify DATA"


def _groups(certificate: Certificate) -> Iterator[Line]:
    """The groups that are guarded, those that lose the most."""
    if not certificate.guard or certificate.guard_allowed is None:
        return
    count, allowed, shown = len(certificate.guard), certificate.guard_allowed, certificate.guard[:COSTLY]
    worst = f"; these {len(shown)} lose the most" if count > len(shown) else ""
    yield "guard", f"{counted(count, 'group')}, each allowed {number(allowed)}{worst}:"
    rows = [[one.label, number(one.drop), _end(one.upper), f"{one.samples:,}", _held(one, allowed)] for one in shown]
    yield from (("", line) for line in aligned([["group", "drop", "at most", "samples", "held"], *rows], left=1))
    if certificate.unseen:
        some = ", ".join(certificate.unseen[:COSTLY])
        more = f" and {len(certificate.unseen) - COSTLY} more" if len(certificate.unseen) > COSTLY else ""
        yield "", f"open, as none of these samples is of them: {some}{more}; --certify DATA that has some"


def _end(upper: float) -> str:
    return "-" if math.isinf(upper) else number(upper)


def _held(group: GroupBound, allowed: float) -> str:
    """Whether a group is proven to be held to what it is allowed, or not to be."""
    return "yes" if within(group.upper, allowed) else "open" if within(group.lower, allowed) else "no"


def _latency(latency: Latency) -> Iterator[Line]:
    times = ", ".join(f"{model.name} {spread_words(model.seconds)}" for model in latency.models)
    yield "here", times
    yield "", conditions(latency)
    yield from (("", text) for text in (*latency.statements, *doubts(latency)))
    slowest = [operator_cells(one) for one in latency.operators[:SLOWEST]]
    headings = operator_headings([model.name for model in latency.models])
    yield from (("", line) for line in aligned([headings, *slowest]))


def _effort(result: SearchResult) -> Iterator[Line]:
    best = f" (best: trial {result.best.number})" if result.best else ""
    samples = counted(result.evaluated_samples, "sample")
    yield "trials", f"{len(result.trials)}{best}, {samples} evaluated, in {duration(result.seconds)}"
    yield "ended", result.ended


def _where(result: SearchResult) -> Iterator[Line]:
    if result.model:
        yield "model", str(result.model)
    yield "report", str(RunFolder(result.run).result)


def _advice(result: SearchResult) -> Iterator[Line]:
    run = shlex.quote(str(result.run))
    if result.verdict is Verdict.MISSED:
        yield from _costly(result)
    if result.ended is Ended.INTERRUPTED:
        yield "next", f"autoquant resume {run}"
    elif _missed_later(result):
        yield "try", f"search anew with {_wider(result)}, and with fresh samples: --certify DATA;"
        yield "", "a new run on the same data would keep the same samples aside, which were looked at"
    elif result.verdict is Verdict.MISSED:
        anew = f"search anew with {_wider(result)}"
        if result.ended is Ended.TRIALS:
            yield "try", f"more trials: autoquant resume {run} --max-trials {2 * len(result.trials)}"
            yield "", f"or {anew}"
        elif result.ended is Ended.TIMEOUT:
            yield "try", f"more time: autoquant resume {run} --timeout {math.ceil(2 * result.seconds)}s"
            yield "", f"or {anew}"
        elif result.ended is Ended.FAILURES:
            yield "failed", result.trials[-1].failure
        else:
            yield "try", anew
    if result.model:
        label = "or" if result.ended is Ended.INTERRUPTED else "next"
        yield label, f"autoquant export {run} --to {shlex.quote(f'{result.model.stem}_export')}"


def _wider(result: SearchResult) -> str:
    return "a larger --tolerance" if result.space == WIDEST else f"--space {WIDEST} or a larger --tolerance"


def _costly(result: SearchResult) -> Iterator[Line]:
    if not result.costly:
        return
    yield "costly", "layers by how much each of them alone, in INT8, changes the output:"
    shown = result.costly[:COSTLY]
    width = max(len(name) for name, _ in shown)
    for name, error in shown:
        yield "", f"{name:{width}}  {percent(error) if math.isfinite(error) else 'does not work out'}"
