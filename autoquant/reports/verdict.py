"""The verdict of a run in one sentence, with the numbers that a reviewer asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autoquant.evaluation.statistics.tolerance import within
from autoquant.reports.run_files import RunFiles
from autoquant.reports.words import at_most, counted, number, percent, wide_words
from autoquant.tuning.certification.certificate import Certificate, Verdict
from autoquant.tuning.study.trial import State, Terms, Trial


@dataclass(frozen=True, slots=True)
class Headline:
    """The verdict: one word of `kind` for its style, a short `title`, a `sentence`, and what follows from it."""

    kind: str
    title: str
    sentence: str
    more: tuple[str, ...] = ()


def headline(run: RunFiles) -> Headline:
    """Of a run in whatever state."""
    if run.trials is None or run.terms is None:
        sentence = "No trial has ended yet" + ("." if run.going_on else ", and no process works on the run.")
        return Headline("open", "Begun" if run.going_on else "Cut off", sentence, _resume(run))
    if run.result is None:
        return _without_result(run, run.terms)
    best = run.best
    shipped = run.result.get("shipped")
    shipping = (f"To ship is the {shipped['what']} model: {shipped['why']}.",) if shipped else ()
    ended = (f"Why the search ended: {run.result['ended']}.", *shipping)
    if best is None or best.drop is None:
        return Headline("missed", "Missed", f"None of {counted(len(run.trials.trials), 'trial')} finished.", ended)
    verdict, certificate = run.result["verdict"], run.trials.certificate
    if certificate is not None and verdict == Verdict.CERTIFIED:
        return Headline("certified", "Certified", _certified(run, best, certificate), ended)
    if verdict == Verdict.MISSED:
        return Headline("missed", "Missed", _missed(run, run.terms, best, certificate), ended)
    uncertified = run.result.get("uncertified") or "no certificate was asked for"
    if certificate is not None:
        why = (
            f"Not certified: with {_confidence(certificate)} the drop is {at_most(certificate.upper_bound)}, which is "
        )
        uncertified = f"{why}more than the tolerance of {number(certificate.max_drop)}."
        if within(certificate.upper_bound, certificate.max_drop):
            uncertified = "Not certified: groups of the holdout are undecided, or have no sample there."
    else:
        uncertified = f"Not certified: {uncertified}."
    return Headline("met", "Met, not certified", _met(run, run.terms, best), (uncertified, *ended))


def _without_result(run: RunFiles, terms: Terms) -> Headline:
    """Of a search that goes on, or was cut off."""
    assert run.trials is not None
    count, best = counted(len(run.trials.trials), "trial"), run.best
    if best is None or best.drop is None:
        so_far = "none of them can be judged yet"
    elif best.meets(terms.max_drop):
        so_far = f"the best so far is within tolerance: {_met(run, terms, best)[:-1]}"
    else:
        so_far = f"none is known to be within tolerance yet; the closest: {layers_words(run, best)}, {_drop(best)}"
    if run.going_on:
        return Headline("open", "Going on", f"After {count} {so_far}.")
    return Headline("open", "Cut off", f"The search was cut off after {count}; {so_far}.", _resume(run))


def _resume(run: RunFiles) -> tuple[str, ...]:
    return () if run.going_on else (f"`autoquant resume {run.folder.path}` goes on with it.",)


def _certified(run: RunFiles, best: Trial, certificate: Certificate) -> str:
    return (
        f"{layers_words(run, best)}. On {counted(certificate.samples, 'holdout sample')} that the search has not seen, "
        f"{certificate.metric} {_moves(certificate.drop)} (FP32 {number(certificate.baseline)}, INT8 "
        f"{number(certificate.score)}), and with {_confidence(certificate)} the drop is "
        f"{at_most(certificate.upper_bound)}: within the tolerance of {number(certificate.max_drop)}."
    )


def _met(run: RunFiles, terms: Terms, best: Trial) -> str:
    score = f"{terms.metric} is {number(best.score)}" if best.score is not None else "the score is not known"
    return (
        f"{layers_words(run, best)}. On the samples of the search {score}, FP32 has {number(terms.baseline)}: "
        f"{_drop(best)}, within the tolerance of {number(terms.max_drop)}."
    )


def _missed(run: RunFiles, terms: Terms, best: Trial, certificate: Certificate | None) -> str:
    if certificate is not None and best.meets(terms.max_drop):
        return (
            f"{layers_words(run, best)}. The tolerance of {number(terms.max_drop)} was met on the samples of the "
            f"search, but missed on {counted(certificate.samples, 'holdout sample')}: {terms.metric} drops by "
            f"{number(certificate.drop)} there{_groups(certificate)}."
        )
    assert best.drop is not None
    score = (
        "" if best.score is None else f"{terms.metric} {number(best.score)} where FP32 has {number(terms.baseline)}, "
    )
    return (
        f"No plan was found within the tolerance of {number(terms.max_drop)}. The closest: {layers_words(run, best)}, "
        f"{score}{_drop(best)}, which is {number(best.drop - terms.max_drop)} too much."
    )


def _groups(certificate: Certificate) -> str:
    """What a guard adds, where it is groups that missed."""
    max_drop = certificate.guard_max_drop
    if max_drop is None or not within(certificate.drop, certificate.max_drop):
        return ""
    missed = [group for group in certificate.guard if not within(group.lower, max_drop)]
    return f", and {counted(len(missed), 'group')} of it by more than {number(max_drop)}"


def layers_words(run: RunFiles, best: Trial) -> str:
    """How much of a plan is INT8."""
    unit = run.overview.unit if run.overview else (run.result or {}).get("share_of", "work")
    int8 = f"{best.int8_layers} of {best.layers} layers run in INT8, {percent(best.int8_share)} of the {unit}"
    return f"{int8}{wide_words(best.int16_layers)}"


def _drop(best: Trial) -> str:
    assert best.drop is not None
    if best.state is State.DONE:
        return f"a drop of {number(best.drop)}"
    interval = ""
    if best.low is not None and best.high is not None and math.isfinite(best.low) and math.isfinite(best.high):
        interval = f" ({number(best.low)} to {number(best.high)})"
    return f"a drop of about {number(best.drop)}{interval}, estimated on {counted(best.samples, 'sample')}"


def _moves(drop: float) -> str:
    return f"drops by {number(drop)}" if drop >= 0.0 else f"gets better by {number(-drop)}"


def _confidence(certificate: Certificate) -> str:
    return f"{certificate.confidence * 100:g}% confidence"
