"""`autoquant evaluate`: what models of any kind score on the same samples, and how they compare with the first."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from autoquant.cli import arguments
from autoquant.cli.claims import DIGITS, certificate_rows, group_rows
from autoquant.cli.output import Block, Row, Table, labelled, page, say
from autoquant.cli.process import interruptible, working
from autoquant.errors import MET, MISSED, UNCERTIFIED, listed
from autoquant.evaluation.statistics.tolerance import Tolerance, within
from autoquant.formats.codec import json_text
from autoquant.messages import UNKNOWN
from autoquant.model.model import is_lite
from autoquant.reports.junit import junit_report
from autoquant.reports.words import counted, number
from autoquant.tuning.certification.certificate import Verdict
from autoquant.tuning.evaluation.request import EvaluateRequest
from autoquant.tuning.evaluation.result import Evaluation, ModelScore

EXIT_CODES = """\
exit codes:
  0    every model is within the tolerance, certified with --certify; or no tolerance was given
  1    one is not
  2    bad input: something cannot be opened, run, fed or compared
  3    with --certify: it is within the tolerance on these samples, but not certified
  4    the first model is worse than --min-baseline
  70   internal error, a bug in autoquant
  130  interrupted (Ctrl-C, SIGTERM)"""
MOST = 10
"""Samples that are named; --json has more."""


def add_arguments(parser: arguments.Parser) -> None:
    """The models, the data, and what is to be claimed."""
    parser.epilog = EXIT_CODES
    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="+",
        help="a frozen .pb, an INT8 .pb that autoquant saved, a SavedModel folder, a .keras, .h5 or .tflite file by "
        "whichever tool, or a run, whose best is meant; the first is what the others are compared with",
    )
    group = parser.add_argument_group("data and tolerance")
    options = {
        "--data DATA": "evaluation data, as of `autoquant search`",
        "--metric M": f"as of `autoquant search` (default {EvaluateRequest.metric})",
        "--tolerance T": "how much worse than the first the others may score: 0.005 (absolute) or 1%% (of its score)",
        "--certify DIR": "write the certificate.json of the second model into this folder, where nothing of these "
        "samples was used to train, quantize or choose it",
        "--min-baseline X": "end after the first model, with exit code 4, where it scores worse than this",
        "--junit FILE": "write the verdicts and guarded groups as test cases of JUnit XML",
    }
    arguments.add(group, options, required=("--data",), tolerance=Tolerance.parse, min_baseline=float)
    arguments.add_groups(group, confidence="the probability with which each bound holds", units="bounds go by units")
    arguments.add_reading(parser, labels=True)
    arguments.add_opening(parser)
    arguments.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Score the models, and print how they compare."""
    options = arguments.options_for(args, EvaluateRequest)
    with junit_report(options.get("junit", ""), "evaluate"):
        request = EvaluateRequest(**options)
        request.check_named()
        files = request.check_models(args.models)
    with interruptible(), working(args, tensorflow=not all(map(is_lite, files))) as listener:
        from autoquant import api

        found = api.evaluate(*args.models, listener=listener, **options)
    say(json_text(found.facts()) if args.json else text(found))
    return exit_code(found)


def exit_code(found: Evaluation) -> int:
    """As that of a search; without a certificate to be made, what is met is well."""
    if found.verdict is Verdict.MISSED:
        return MISSED
    return UNCERTIFIED if found.verdict is Verdict.MET and found.file is not None else MET


def text(found: Evaluation) -> str:
    """The verdicts, a table of the models, and what changed."""
    verdicts = [*verdict_rows(found), *(("warning", text) for text in found.warnings)]
    changed = [row for one in found.models[1:] for row in _changes(one, found)]
    blocks: list[Block] = [labelled(verdicts) if verdicts else [], [_table(found), *_conditions(found)]]
    return page([*blocks, labelled(changed) if changed else []], columns=None)


def verdict_rows(found: Evaluation) -> Iterator[Row]:
    """The verdict of each model that is compared, where there is a tolerance."""
    first, max_drop = found.models[0], found.max_drop
    for one in found.models[1:]:
        if one.verdict is None or one.drop is None or max_drop is None:
            continue
        if one.verdict is Verdict.CERTIFIED and one.upper_bound is not None:
            bound = f"the drop is at most {number(one.upper_bound)} with {found.confidence * 100:g}% confidence"
            yield "certified", f"{one.name}: {bound}"
        elif one.verdict is Verdict.MISSED and within(one.drop, max_drop):
            yield "missed", f"{one.name}: within {number(max_drop)} of {first.name}, but a group is not"
        elif one.verdict is Verdict.MISSED:
            missed_by = f"{found.metric} {number(one.score)}, which misses by {number(one.drop - max_drop)}"
            yield "missed", f"{one.name}: {missed_by} (max drop {number(max_drop)})"
        else:
            uncertified = "" if found.file is None else "; not certified"
            met = f"{found.metric} {number(one.score)}, within {number(max_drop)} of {first.name}"
            yield "met", f"{one.name}: {met}{uncertified}"


def _table(found: Evaluation) -> Table:
    headings = ("model", "runs on", found.metric, "drop", "at least", "at most", "lost", "won")
    return Table(headings, [_cells(one) for one in found.models])


def _cells(one: ModelScore) -> tuple[str, ...]:
    drops = [UNKNOWN if value is None else number(value) for value in (one.drop, one.lower_bound, one.upper_bound)]
    changed = (None, None) if one.changes is None else (one.changes.worse, one.changes.better)
    return (one.name, one.engine, number(one.score), *drops, *(UNKNOWN if n is None else f"{n:,}" for n in changed))


def _conditions(found: Evaluation) -> Iterator[str]:
    """What scores and bounds are of."""
    units = "" if found.units is None else f" of {counted(found.units, 'unit')}"
    yield f"on {counted(found.samples, 'sample')}{units}, SHA-256 {found.data[:DIGITS]}"
    methods = dict.fromkeys(one.method for one in found.models[1:])
    if methods:
        confidence = f"each with {found.confidence * 100:g}% confidence"
        yield f"at least, at most: one-sided bounds of the true drop, {confidence}; {listed(list(methods))}"


def _changes(one: ModelScore, found: Evaluation) -> Iterator[Row]:
    """What of a model is another in the samples, groups and certificate."""
    changes = one.changes
    if changes is not None:
        answers = "" if changes.answers is None else f"; {counted(changes.answers, 'sample')} with another class"
        counts = f"{counted(changes.worse, 'sample')} lost, {changes.better:,} won{answers}"
        yield "changed", f"{one.name}: {counts}"
        if one.lost:
            names = [sample.id or str(sample.sample) for sample in one.lost]
            more = f" and {changes.worse - len(names[:MOST]):,} more" if changes.worse > len(names[:MOST]) else ""
            yield "lost", f"{', '.join(names[:MOST])}{more}"
    if one.certificate is not None:
        yield from certificate_rows(one.certificate, "that had no part in making the model")
        yield "certificate", str(found.file)
    else:
        yield from group_rows(one.guard, found.guard_max_drop)
    yield from (("note", f"{one.name}: {note}") for note in one.notes)
