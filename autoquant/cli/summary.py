"""The result of a search, printed: verdict, figures, and what to do next."""

from __future__ import annotations

import argparse
import math
import shlex
from collections.abc import Iterator, Sequence

from autoquant.cli.benchmark import conditions, doubts, operator_table
from autoquant.cli.claims import MOST, certificate_rows, confidence_words
from autoquant.cli.output import Row, Table, labelled, page, say
from autoquant.errors import INTERRUPTED, MET, MISSED, UNCERTIFIED, listed
from autoquant.evaluation.latency.latency import Latency
from autoquant.evaluation.statistics.tolerance import within
from autoquant.formats.codec import json_text
from autoquant.messages import UNKNOWN
from autoquant.pulse import duration
from autoquant.reports.words import accepted, counted, number, percent, spread, wide_words
from autoquant.tuning.certification.certificate import Certificate, Verdict
from autoquant.tuning.result import Ended, SearchResult, result_facts
from autoquant.tuning.study.choices import MACS
from autoquant.tuning.study.run_folder import RunFolder

LARGEST_SPACE = "thorough"
"""The preset that offers most."""
FRONT = 12
"""Trials of the Pareto front that are shown; result.json has all."""


def show_result(
    result: SearchResult, args: argparse.Namespace, *, before: Sequence[Row] = (), after: Sequence[Row] = ()
) -> int:
    """Print the result, for people with rows `before` and `after` it; return the exit code."""
    if args.json:
        say(json_text(result_facts(result)))
    else:
        rows = brief(result) if args.quiet else [*before, *summary(result), *after]
        say(page([labelled(rows)], columns=None))
    return exit_code(result)


def summary(result: SearchResult) -> list[Row]:
    """All rows of the final screen, the verdict first."""
    return [
        verdict(result),
        *(("warning", text) for text in result.warnings),
        *_scores(result),
        *_certificate(result),
        *_device(result),
        *_latency(result.latency),
        *_pareto(result),
        *_shipped(result),
        *_effort(result),
        *_costly(result),
        *_advice(result),
    ]


def brief(result: SearchResult) -> list[Row]:
    """The rows with --quiet."""
    return [verdict(result), *_files(result), *_shipped(result)]


def exit_code(result: SearchResult) -> int:
    """How a command ends after this result."""
    if result.ended is Ended.INTERRUPTED:
        return INTERRUPTED
    if result.verdict is Verdict.MISSED:
        return MISSED
    return MET if result.verdict is Verdict.CERTIFIED or result.declined else UNCERTIFIED


def verdict(result: SearchResult) -> Row:
    """The verdict in words."""
    best, certificate = result.best, result.certificate
    if best is None or best.drop is None:
        reason = f"; the last one failed: {result.trials[-1].failure}" if result.trials else ""
        return "missed", f"no trial finished{reason}"
    layers = f"{best.int8_layers} of {result.layers} layers in INT8{wide_words(best.int16_layers)}"
    if best.score is None:
        about = f"{layers}, drop about {number(best.drop)} on {counted(best.samples, 'sample')}"
        return "missed", f"no trial is within {number(result.max_drop)} of FP32; best, not fully scored: {about}"
    if certificate is not None and certificate.verdict is Verdict.CERTIFIED:
        bound = f"the drop is at most {number(certificate.upper_bound)}"
        return "certified", f"{layers}, and with {confidence_words(certificate)} {bound}"
    if certificate is not None and certificate.verdict is Verdict.MISSED:
        return "missed", f"{_missed_holdout(certificate)}; it was met on the search samples"
    if result.verdict is Verdict.MET:
        met = f"{result.metric} {number(best.score)} with {layers}, within {number(result.max_drop)} of FP32"
        return "met", met if result.declined else f"{met}; not certified"
    if _missed_later(result):
        return "missed", result.uncertified
    missed_by, limits = best.drop - result.max_drop, accepted(result.baseline, result.worst_score, result.max_drop)
    return "missed", f"best is {result.metric} {number(best.score)}, which misses by {number(missed_by)}: {limits}"


def _missed_later(result: SearchResult) -> bool:
    """Whether the best was met on the search samples, and missed on the holdout."""
    return result.verdict is Verdict.MISSED and result.best is not None and result.best.meets(result.max_drop)


def _missed_holdout(certificate: Certificate) -> str:
    """How the holdout was missed: by all samples, or by groups."""
    where = f"on {counted(certificate.samples, 'holdout sample')}"
    if not within(certificate.drop, certificate.max_drop):
        return f"{where} the drop is {number(certificate.drop)}, more than {number(certificate.max_drop)}"
    max_drop = certificate.guard_max_drop or 0.0
    missed = [group for group in certificate.guard if not within(group.lower, max_drop)]
    drops = listed([f"{group.label} {number(group.drop)}" for group in missed], most=MOST)
    return f"{where} {counted(len(missed), 'group')} proven to drop more than {number(max_drop)}: {drops}"


def _scores(result: SearchResult) -> Iterator[Row]:
    samples = f", on {counted(result.search_samples, 'search sample')}" if result.certificate else ""
    yield "FP32", f"{result.metric} {number(result.baseline)}{samples}"
    best = result.best
    if best is None or best.score is None or best.drop is None:
        return
    max_drop = number(result.max_drop)
    yield "INT8", f"{result.metric} {number(best.score)}, drop {number(best.drop)} (max drop {max_drop})"
    if result.score_tensorflow is not None:
        yield "", f"{result.metric} {number(result.score_tensorflow)} in TensorFlow, from the saved graph"
    conversions = "" if best.qdq_ops is None else f"; {counted(best.qdq_ops, 'Q/DQ operator')}"
    share = f"{percent(best.int8_share)} of the {result.unit}"
    wide = f"{wide_words(best.int16_layers)}, {percent(best.int16_share)}" if best.int16_layers else ""
    yield "layers", f"{best.int8_layers} of {result.layers} in INT8, {share}{wide}{conversions}"
    if result.verification is not None and (own := result.verification.kernels["builtin"]):
        kinds = listed([f"{kind} {count}" for kind, count in own.items()], most=MOST)
        fast = counted(sum(result.verification.kernels["xnnpack"].values()), "operator")
        yield "kernels", f"{fast} on XNNPACK here, {sum(own.values())} on LiteRT's own kernels: {kinds}"
    if result.objective != MACS:
        yield result.objective, f"{percent(best.objective)} of the float model's (the objective)"


def _certificate(result: SearchResult) -> Iterator[Row]:
    certificate = result.certificate
    if certificate is not None:
        yield from certificate_rows(certificate, "that the search has not seen")
    elif result.uncertified and result.verdict is not Verdict.MISSED:
        yield "holdout", f"none: {result.uncertified}"


def _device(result: SearchResult) -> Iterator[Row]:
    """What is known of the device that the model is for."""
    if result.device is not None:
        yield "device", f"{result.device.device}: {result.device.verdict}"
        yield "", f"the profile was checked {result.device.checked}"


def _latency(latency: Latency | None) -> Iterator[Row]:
    if latency is None:
        return
    yield "here", ", ".join(f"{model.name} {spread(model.seconds)}" for model in latency.models)
    operators = operator_table(latency, [model.name for model in latency.models], most=MOST)
    lines = [conditions(latency), *latency.statements, *doubts(latency), *operators.lines()]
    yield from (("", line) for line in lines)


def _pareto(result: SearchResult) -> Iterator[Row]:
    """The Pareto front, where more of its models are kept than the best."""
    if result.keep_models <= 1 or not result.pareto:
        return
    yield "pareto", "no trial has both a smaller drop and a larger share in INT8 than one of these:"
    rows = [
        (
            str(trial.number),
            UNKNOWN if (model := result.model_of(trial)) is None else str(model),
            number(trial.drop or 0.0),
            percent(trial.int8_share),
            f"{trial.int8_layers}",
            "yes" if trial.meets(result.max_drop) else "no",
        )
        for trial in result.pareto[:FRONT]
    ]
    table = Table(("trial", "model", "drop", "share", "INT8 layers", "within"), rows)
    yield from (("", line) for line in table.lines())
    if len(result.pareto) > FRONT:
        yield "", f"and {len(result.pareto) - FRONT} more, in result.json"


def _shipped(result: SearchResult) -> Iterator[Row]:
    """What to ship, where that depends on the speed."""
    if result.shipped is not None:
        yield "ship", f"{result.shipped.model}: {result.shipped.why}"


def _effort(result: SearchResult) -> Iterator[Row]:
    best = f" (best: trial {result.best.number})" if result.best else ""
    samples = counted(result.evaluated_samples, "sample")
    yield "trials", f"{len(result.trials)}{best}, {samples} evaluated, in {duration(result.seconds)}"
    yield "ended", result.ended
    yield from _files(result)
    folder = RunFolder(result.run)
    yield "result", str(folder.result)
    if folder.report.is_file():
        yield "report", str(folder.report)


def _files(result: SearchResult) -> Iterator[Row]:
    if result.model:
        yield "model", str(result.model)
    if result.front:
        yield "front", f"{result.front}, which computes inputs of the model in TensorFlow"


def _costly(result: SearchResult) -> Iterator[Row]:
    """The layers that change the output most, where the tolerance was missed."""
    if result.verdict is not Verdict.MISSED or not result.costly.layers:
        return
    yield "costly", f"layers by their divergence from FP32 when that layer alone is INT8, {result.costly.how}:"
    shown = result.costly.layers[:MOST]
    width = max(len(name) for name, _ in shown)
    for name, value in shown:
        yield "", f"{name:{width}}  {f'{value:.3g}' if math.isfinite(value) else 'cannot be built or run'}"


def _advice(result: SearchResult) -> Iterator[Row]:
    run = shlex.quote(str(result.run))
    larger = "" if result.space == LARGEST_SPACE else f"--space {LARGEST_SPACE} or "
    again = f"search again with {larger}a larger --tolerance"
    more = {
        Ended.TRIALS: f"more trials: autoquant resume {run} --max-trials {2 * len(result.trials)}",
        Ended.TIMEOUT: f"more time: autoquant resume {run} --timeout {math.ceil(2 * result.seconds)}s",
    }.get(result.ended)
    if result.ended is Ended.INTERRUPTED:
        yield "next", f"autoquant resume {run}"
    elif _missed_later(result):
        yield "try", f"{again}, and a new holdout: --certify DATA;"
        yield "", "a new run on the same data would have the same holdout, which has been used"
    elif result.verdict is Verdict.MISSED and result.ended is Ended.FAILURES:
        yield "failed", result.trials[-1].failure
    elif result.verdict is Verdict.MISSED and more:
        yield "try", more
        yield "", f"or {again}"
    elif result.verdict is Verdict.MISSED:
        yield "try", again
    if result.model:
        label = "or" if result.ended is Ended.INTERRUPTED else "next"
        yield label, f"autoquant export {run} --to {shlex.quote(f'{result.model.stem}_export')}"
