"""The record of evaluations on the holdout."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoquant.errors import RunError
from autoquant.formats.codec import encode
from autoquant.tuning.certification.certificate import HoldoutEvaluation, Verdict, add_to_holdout_log, read_holdout_log
from autoquant.tuning.study.run_folder import RunFolder

digests = st.text("0123456789abcdef", min_size=64, max_size=64)
evaluations = st.builds(HoldoutEvaluation, digests, st.integers(0, 10**6), digests, st.sampled_from(Verdict))
FIRST = HoldoutEvaluation("a" * 64, 3, "b" * 64, Verdict.MET)


@given(st.lists(evaluations, max_size=4, unique=True))
def test_reading_inverts_writing(many: list[HoldoutEvaluation]) -> None:
    with TemporaryDirectory() as path:
        for one in many:
            add_to_holdout_log(one, RunFolder(Path(path)))
        assert read_holdout_log(RunFolder(Path(path))) == tuple(many)


def test_evaluations_are_added_once_and_in_order(tmp_path: Path) -> None:
    folder, other = RunFolder(tmp_path), replace(FIRST, data="c" * 64, verdict=Verdict.MISSED)
    assert read_holdout_log(folder) == ()
    for one in (FIRST, other, FIRST):
        add_to_holdout_log(one, folder)
    assert read_holdout_log(folder) == (FIRST, other)


def changed(**changes: object) -> str:
    return json.dumps({"version": 1, "evaluations": [{**encode(FIRST), **changes}]})


WRONG = {
    "no JSON": ("{", "holdout_log.json: is not valid JSON"),
    "version": ('{"version": 2, "evaluations": []}', r"\$\.version: unknown 2"),
    "no evaluations": ('{"version": 1}', r"\$\.evaluations: is missing"),
    "unknown": ('{"version": 1, "evaluations": [], "more": 1}', "unknown key"),
    "verdict": (changed(verdict="good"), r"evaluations\[0\]\.verdict: unknown 'good'"),
    "digest": (changed(data="abc"), "64 hexadecimal"),
    "trial": (changed(trial=-1), "count from 0"),
    "key": (changed(more=1), "unknown key"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_a_damaged_record_is_refused_and_not_forgotten(text: str, message: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.holdout_log.write_text(text)
    with pytest.raises(RunError, match=message):
        read_holdout_log(folder)
    with pytest.raises(RunError, match=message):
        add_to_holdout_log(FIRST, folder)
    assert folder.holdout_log.read_text() == text
