"""The record of looks at samples kept aside."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.errors import RunError
from autoquant.tuning.certification.certificate import Certificate, Origin, Verdict
from autoquant.tuning.certification.certificate_json import certificate_text
from autoquant.tuning.certification.holdout_log import Look, looks_of, looks_text, parse_looks, record
from autoquant.tuning.study.run_folder import RunFolder

digests = st.text("0123456789abcdef", min_size=64, max_size=64)
looks = st.builds(Look, digests, st.integers(0, 10**6), digests, st.sampled_from(Verdict))
LOOK = Look("a" * 64, 3, "b" * 64, Verdict.MET)


@given(st.lists(looks, max_size=4))
def test_what_was_written_is_read(many: list[Look]) -> None:
    assert parse_looks(looks_text(many), "file") == tuple(many)


def test_looks_are_added_once_and_in_order(tmp_path: Path) -> None:
    folder, other = RunFolder(tmp_path), replace(LOOK, data="c" * 64, verdict=Verdict.MISSED)
    assert looks_of(folder) == ()
    for look in (LOOK, other, LOOK):
        record(look, folder)
    assert looks_of(folder) == (LOOK, other)


def test_certificates_of_trials_are_looks_and_those_of_other_folders_are_none(tmp_path: Path) -> None:
    numbers: dict[str, Any] = {
        "baseline": 0.9,
        "score": 0.89,
        "drop": 0.01,
        "upper_bound": 0.03,
        "allowed": 0.02,
        "confidence": 0.95,
    }
    origin = Origin("litert", "XNNPACK", "c" * 64, LOOK.model, LOOK.data)
    facts: dict[str, Any] = {"metric": "top1", "samples": 80, "method": "exact", "suspicious": False, "origin": origin}
    for name in ("0003", "0003.bak"):
        (tmp_path / "trials" / name).mkdir(parents=True)
        text = certificate_text(Certificate(Verdict.MET, **numbers, **facts))
        (tmp_path / "trials" / name / "certificate.json").write_text(text)
    assert looks_of(RunFolder(tmp_path)) == (LOOK,)


def changed(**changes: object) -> str:
    (look,) = json.loads(looks_text([LOOK]))["looks"]
    return json.dumps({"version": 1, "looks": [{**look, **changes}]})


WRONG = {
    "no JSON": ("{", "looks.json: is not valid JSON"),
    "version": ('{"version": 2, "looks": []}', r"\$\.version: unknown 2"),
    "no looks": ('{"version": 1}', r"\$\.looks: is missing"),
    "unknown": ('{"version": 1, "looks": [], "more": 1}', "unknown key"),
    "verdict": (changed(verdict="good"), r"looks\[0\]\.verdict: unknown 'good'"),
    "digest": (changed(data="abc"), "64 hexadecimal"),
    "trial": (changed(trial=-1), "count from 0"),
    "key": (changed(more=1), "unknown key"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_a_damaged_record_is_refused_and_not_forgotten(text: str, message: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.looks.write_text(text)
    with pytest.raises(RunError, match=message):
        looks_of(folder)
    with pytest.raises(RunError, match=message):
        record(LOOK, folder)
    assert folder.looks.read_text() == text
