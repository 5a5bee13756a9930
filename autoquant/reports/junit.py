"""JUnit XML: what a search or an evaluation found, as test cases that a CI server shows."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

from autoquant.errors import AutoquantError, BaselineError, BudgetError, RunError
from autoquant.evaluation.statistics.paired import GroupBound
from autoquant.evaluation.statistics.tolerance import within
from autoquant.files import write_bytes, writing
from autoquant.messages import printable
from autoquant.reports.words import at_most, number
from autoquant.tuning.certification.certificate import Verdict
from autoquant.tuning.evaluation.result import Evaluation, ModelScore
from autoquant.tuning.result import FLOAT, Ended, SearchResult
from autoquant.tuning.study.run_folder import RunFolder

ROOT = "testsuites"
SUITE = "autoquant"
NOT_XML = re.compile("[\ufffe\uffff]")
"""What XML cannot hold, besides control characters, which `printable` writes out."""
MISSED, UNDECIDED = "missed", "not certified"
"""Types of failures: what exit codes 1 and 3 say."""


@dataclass(frozen=True, slots=True)
class Case:
    """A test case: passed where it has neither a failure, an error, nor a reason why it was skipped."""

    name: str
    text: str = ""
    failure: str = ""
    kind: str = MISSED
    error: str = ""
    skipped: str = ""


def search_cases(result: SearchResult) -> Iterator[Case]:
    """The baseline, the tolerance, the certificate with its groups, and the speed."""
    least = "" if result.min_baseline is None else f"; on all evaluation samples not worse than {result.min_baseline:g}"
    yield Case("baseline", f"FP32: {result.metric} {number(result.baseline)}{least}")
    if result.ended is Ended.INTERRUPTED:
        yield Case("search", error="interrupted: `autoquant resume` goes on")
    best = result.best
    if best is None or best.score is None or best.drop is None:
        what = f"no trial is within {number(result.max_drop)} of FP32"
        yield Case("tolerance", failure=what)
    else:
        what = f"{result.metric} {number(best.score)}, drop {number(best.drop)} (max drop {number(result.max_drop)})"
        yield Case("tolerance", what) if best.meets(result.max_drop) else Case("tolerance", failure=what)
    yield _certificate_case(result)
    if result.certificate is not None:
        each = result.certificate.guard_max_drop
        yield from group_cases(result.certificate.guard, each)
        for group in result.certificate.unseen:
            yield Case(f"guard {group}", failure="has no holdout sample", kind=UNDECIDED)
    if result.shipped is not None:
        slow = result.shipped.what == FLOAT
        why = result.shipped.why
        yield Case("speedup", skipped=f"float is shipped: {why}") if slow else Case("speedup", why)


def _certificate_case(result: SearchResult) -> Case:
    certificate = result.certificate
    if certificate is None:
        if result.declined or result.verdict is Verdict.MISSED:
            return Case("certificate", skipped=result.uncertified or "none was made")
        why = result.uncertified or "the search was interrupted"
        return Case("certificate", failure=f"none: {why}", kind=UNDECIDED)
    drops = f"drop {number(certificate.drop)}, {at_most(certificate.upper_bound)}"
    text = f"{drops} with {certificate.confidence * 100:g}% confidence (max drop {number(certificate.max_drop)})"
    if certificate.verdict is Verdict.CERTIFIED:
        return Case("certificate", text)
    kind = MISSED if certificate.verdict is Verdict.MISSED else UNDECIDED
    groups = "; but not every group is within its own" if within(certificate.upper_bound, certificate.max_drop) else ""
    return Case("certificate", failure=f"{text}{groups}", kind=kind)


def group_cases(guard: Sequence[GroupBound], max_drop: float | None, *, certifies: bool = True) -> Iterator[Case]:
    """Groups that are guarded; one that is undecided fails where it is to be certified."""
    for one in guard if max_drop is not None else ():
        assert max_drop is not None
        text = f"drop {number(one.drop)}, {at_most(one.upper)} on {one.samples} samples (max drop {number(max_drop)})"
        if not within(one.lower, max_drop):
            yield Case(f"guard {one.label}", failure=text)
        elif certifies and not within(one.upper, max_drop):
            yield Case(f"guard {one.label}", failure=f"undecided: {text}", kind=UNDECIDED)
        else:
            yield Case(f"guard {one.label}", text)


def evaluation_cases(found: Evaluation) -> Iterator[Case]:
    """The score of each model, its drop where there is a tolerance, its certificate and groups."""
    first = found.models[0]
    yield Case(f"{first.name}: score", f"{found.metric} {number(first.score)}")
    for one in found.models[1:]:
        text = _compared(one, found)
        if one.verdict is None or one.drop is None or found.max_drop is None:
            yield Case(f"{one.name}: score", text)
            continue
        met = within(one.drop, found.max_drop)
        yield Case(f"{one.name}: tolerance", text) if met else Case(f"{one.name}: tolerance", failure=text)
        if one.certificate is not None:
            certified = one.certificate.verdict is Verdict.CERTIFIED
            kind = MISSED if one.certificate.verdict is Verdict.MISSED else UNDECIDED
            name = f"{one.name}: certificate"
            yield Case(name, text) if certified else Case(name, failure=text, kind=kind)
        for case in group_cases(one.guard, found.guard_max_drop, certifies=one.certificate is not None):
            yield Case(f"{one.name}: {case.name}", case.text, case.failure, case.kind)


def _compared(one: ModelScore, found: Evaluation) -> str:
    bound = "no bound" if one.upper_bound is None else at_most(one.upper_bound)
    limit = "" if found.max_drop is None else f" (max drop {number(found.max_drop)})"
    confidence = f"with {found.confidence * 100:g}% confidence"
    return f"{found.metric} {number(one.score)}, drop {number(one.drop or 0.0)}, {bound} {confidence}{limit}"


@contextmanager
def junit_report(path: str | Path, name: str) -> Iterator[Callable[[Iterable[Case]], None]]:
    """Gives what writes cases to a file, called once; an error that is raised inside is written as a case itself.

    A file of an earlier run is removed at once, so that nobody takes it for this one's. Without a path nothing is
    written. Raises RunError where the file cannot be.
    """
    begin = time.monotonic()
    if path:
        with writing(Path(path)):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            if is_junit_of_ours(Path(path)):
                Path(path).unlink()

    def write(cases: Iterable[Case]) -> None:
        if path:
            write_bytes(Path(path), junit_xml(name, list(cases), time.monotonic() - begin))

    try:
        yield write
    except BaselineError as error:
        write([Case("baseline", failure=str(error), kind="min-baseline")])
        raise
    except BudgetError as error:
        write([Case("search", failure=str(error))])
        raise
    except AutoquantError as error:
        write([Case("input", error=str(error))])
        raise


def junit_xml(name: str, cases: Sequence[Case], seconds: float) -> bytes:
    """The file, in UTF-8: one suite with these cases, which are called after it."""
    counts = {
        "tests": len(cases),
        "failures": sum(bool(case.failure) for case in cases),
        "errors": sum(bool(case.error) for case in cases),
        "skipped": sum(bool(case.skipped) for case in cases),
    }
    totals = {key: str(value) for key, value in counts.items()} | {"time": f"{seconds:.3f}"}
    root = ElementTree.Element(ROOT, {"name": SUITE, **totals})
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    suite = ElementTree.SubElement(root, "testsuite", {"name": _xml(name), **totals, "timestamp": stamp})
    for case in cases:
        attributes = {"classname": f"{SUITE}.{_xml(name)}", "name": _xml(case.name), "time": "0"}
        one = ElementTree.SubElement(suite, "testcase", attributes)
        if case.failure:
            failure = {"message": _xml(case.failure), "type": case.kind}
            ElementTree.SubElement(one, "failure", failure).text = _xml(case.failure)
        if case.error:
            ElementTree.SubElement(one, "error", {"message": _xml(case.error), "type": "error"}).text = _xml(case.error)
        if case.skipped:
            ElementTree.SubElement(one, "skipped", {"message": _xml(case.skipped)})
        if case.text:
            ElementTree.SubElement(one, "system-out").text = _xml(case.text)
    ElementTree.indent(root)
    content: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return content + b"\n"


def _xml(text: str) -> str:
    """The text in characters that XML can hold; what escapes markup is the writer's doing."""
    return NOT_XML.sub(lambda found: f"\\u{ord(found[0]):04x}", printable(text))


def stored_junit(run: Path, given: str | Path | None, warn: Callable[[str], None]) -> str | Path:
    """The file that a run that goes on writes: the one that is `given` now, or that of run.toml, or none ('').

    A run may come from a stranger, so that of run.toml is written only where it is in the folder that the command is
    run in, or in the run's, and is new or was written so before; else `warn` is told.
    """
    if given is not None:
        return given
    try:
        named = str(RunFolder(run).read_request()["request"].get("junit", ""))
    except (RunError, KeyError):  # which is told by what reads it next
        return ""
    path = Path(named).resolve()
    near = any(path.is_relative_to(folder.resolve()) for folder in (Path.cwd(), run))
    if named and not (near and (is_junit_of_ours(path) or not path.exists())):
        warn(f"{named} is not written, though run.toml names it: give --junit again")
        return ""
    return named


def is_junit_of_ours(path: Path) -> bool:
    """Whether a file was written by `junit_report`, by its beginning."""
    try:
        with path.open("rb") as file:
            return f'<{ROOT} name="{SUITE}"'.encode() in file.read(256)
    except OSError:
        return False
