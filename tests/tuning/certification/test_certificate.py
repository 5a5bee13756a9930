from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.errors import RunError
from autoquant.evaluation.statistics.paired import GroupBound
from autoquant.formats.codec import file_facts, save
from autoquant.tuning.certification.certificate import (
    Certificate,
    Origin,
    Verdict,
    load_certificate,
)

numbers = st.floats(allow_nan=False, allow_infinity=False)
uppers, lowers = numbers | st.just(math.inf), numbers | st.just(-math.inf)
counts = st.integers(0, 10**9)
maybe = st.none() | counts
words = st.text(max_size=8)
digests = st.text("0123456789abcdef", min_size=64, max_size=64)
groups = st.builds(GroupBound, words, counts, numbers, uppers, lowers, maybe, maybe)
certificates = st.builds(
    Certificate,
    verdict=st.sampled_from([Verdict.MET, Verdict.MISSED]),
    metric=words,
    baseline=numbers,
    score=numbers,
    drop=numbers,
    upper_bound=numbers,
    max_drop=numbers,
    confidence=st.floats(0.001, 0.999),
    samples=st.integers(1, 10**9),
    method=words,
    origin=st.builds(Origin, words, words, digests, digests, digests),
    suspicious=st.booleans(),
    losses=maybe,
    gains=maybe,
    needed_samples=maybe,
    guard=st.lists(groups, max_size=3).map(tuple),
    guard_max_drop=numbers,
    left_out=counts,
    unseen=st.lists(words, max_size=2).map(tuple),
)


def written(certificate: Certificate) -> str:
    """The text of the file."""
    with TemporaryDirectory() as folder:
        save(certificate, Path(folder) / "file")
        return (Path(folder) / "file").read_text()


def read(text: str) -> Certificate:
    with TemporaryDirectory() as folder:
        (Path(folder) / "file").write_text(text)
        return load_certificate(Path(folder) / "file")


@given(certificates)
def test_reading_inverts_writing(certificate: Certificate) -> None:
    text = written(certificate)
    assert read(text) == certificate
    facts = json.loads(text)
    assert text == json.dumps(facts, indent=2, sort_keys=True) + "\n"
    assert facts["version"] == 1


EXAMPLE = Certificate(
    verdict=Verdict.MET,
    metric="top1",
    baseline=0.85,
    score=0.845,
    drop=0.005,
    upper_bound=0.0107,
    max_drop=0.01,
    confidence=0.95,
    samples=1000,
    method="exact paired (trinomial)",
    origin=Origin("litert", "XNNPACK", "a" * 64, "b" * 64, "c" * 64),
    suspicious=False,
    losses=8,
    gains=3,
    needed_samples=1503,
    guard=(GroupBound("3", 100, 0.02, 0.08, -0.01),),
    guard_max_drop=0.1,
)


def test_the_file_is_plain_json() -> None:
    facts = file_facts(EXAMPLE)
    assert facts["verdict"] == "met, not certified"
    assert facts["origin"]["kernels"] == "XNNPACK"
    assert facts["guard"] == [{"label": "3", "samples": 100, "drop": 0.02, "upper": 0.08, "lower": -0.01}]


def test_a_bound_that_there_is_not_is_left_out() -> None:
    without = replace(EXAMPLE, upper_bound=math.inf, guard=(GroupBound("3", 1, 0.5, math.inf, -math.inf),))
    facts = file_facts(without)
    assert "upper_bound" not in facts
    assert facts["guard"] == [{"label": "3", "samples": 1, "drop": 0.5}]
    assert read(written(without)) == without


def changed(**changes: object) -> str:
    facts = {**file_facts(EXAMPLE), **changes}
    return json.dumps({key: value for key, value in facts.items() if value != "gone"})


WRONG = {
    "no JSON": ("{", "file: is not valid JSON"),
    "too deep": ("[" * 100_000, "file: is not valid JSON"),
    "a list": ("[]", r"file:\$: expected an object"),
    "twice": ('{"version": 1, "version": 1}', "'version' appears twice"),
    "NaN": (changed(drop=float("nan")), "NaN is not a number"),
    "too large": (changed().replace("0.0107", "1e999"), "finite"),
    "version": (changed(version=2), r"file:\$\.version: unknown 2"),
    "verdict": (changed(verdict="good"), r"file:\$\.verdict: unknown 'good'"),
    "unknown": (changed(bound=1.0), r"file:\$\.bound: unknown key"),
    "missing": (changed(drop="gone"), r"file:\$\.drop: is missing"),
    "certified without a bound": (changed(upper_bound="gone", verdict="certified"), "has a bound"),
    "kind": (changed(samples=1000.5), r"file:\$\.samples: expected int"),
    "true is not a count": (changed(losses=True), r"file:\$\.losses: expected int"),
    "digest": (changed(origin={**file_facts(EXAMPLE)["origin"], "data": "abc"}), "64 hexadecimal"),
    "origin": (changed(origin="gone"), r"file:\$\.origin: is missing, expected an object"),
    "group": (changed(guard=[{"label": "3"}]), r"file:\$\.guard\[0\]\.samples: is missing"),
    "group's key": (changed(guard=[{**file_facts(EXAMPLE)["guard"][0], "worst": 1}]), "unknown key"),
    "no groups": (changed(guard={}), r"file:\$\.guard: expected list"),
    "labels": (changed(unseen=[1]), r"file:\$\.unseen\[0\]: expected str, got 1"),
    "no largest drop": (changed(guard_max_drop="gone"), "a largest drop of each"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_errors_name_their_place(text: str, message: str) -> None:
    with pytest.raises(RunError, match=message):
        read(text)
