from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Any

import pytest
from databases import PostgreSQL
from fleet_searches import untimed

import autoquant
from autoquant.cli.main import main
from autoquant.errors import RunError, UsageError
from autoquant.tuning.study.run_folder import RunFolder


def test_a_search_goes_on_in_the_database_that_its_own_was_moved_to(
    options: dict[str, Any], server: PostgreSQL, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is refused where its study is not, or is an older copy, or that of another run."""
    alone = autoquant.search(**{**options, "run": tmp_path / "alone"})
    run, study = options["run"], uuid.uuid4().hex
    moved, empty, other = (server.made(f"{name}{study}") for name in ("moved", "empty", "other"))
    autoquant.search(**{**options, "max_trials": 3}, storage=server.url, study=study)
    server.copy(to=moved)
    asked = RunFolder(run).read_request()["request"]

    def refused(url: str, folder: Path = run) -> str:
        found = []
        for what in (autoquant.resume, autoquant.work, autoquant.status):
            with pytest.raises(RunError) as error:
                what(run=folder, storage=url)
            found.append(str(error.value))
        assert len(set(found)) == 1
        return found[0]

    message = f"--storage {empty}: there is no study '{study}'; restore the dump of its database there first"
    assert refused(empty) == message
    assert main(["resume", str(run), "--storage", empty]) == 2 and message in capsys.readouterr().err
    autoquant.search(**{**options, "run": tmp_path / "other", "max_trials": 3}, storage=other, study=study)
    assert f"the study '{study}' there is of another run" in refused(other)
    assert RunFolder(run).read_request()["request"] == asked

    result = autoquant.resume(run, max_trials=6, storage=moved)
    assert untimed(result) == untimed(alone)
    assert RunFolder(run).read_request()["request"] == {**asked, "max_trials": 6, "storage": moved}
    assert autoquant.status(run).trials == autoquant.status(storage=moved, study=study).trials
    assert sum(autoquant.status(storage=server.url, study=study).trials.values()) < 6
    message = refused(server.url)
    assert re.search(rf"the study '{study}' there has \d trials, and the folder of the run \d; it is an older", message)
    assert len(autoquant.resume(run, max_trials=7).trials) == 7, "it stays there"


def test_a_run_with_its_own_journal_has_no_storage(options: dict[str, Any], server: PostgreSQL) -> None:
    autoquant.search(**{**options, "max_trials": 1})
    for what in (autoquant.resume, autoquant.work, autoquant.status):
        with pytest.raises(UsageError, match="has its own journal; leave it out"):
            what(run=options["run"], storage=server.url)


def test_trials_in_a_storage_are_not_scored_again(options: dict[str, Any], server: PostgreSQL) -> None:
    autoquant.search(**{**options, "max_trials": 1}, storage=server.url, study=uuid.uuid4().hex)
    with pytest.raises(UsageError, match="this one has its study in a storage; start a new run"):
        autoquant.resume(options["run"], accept_changed=["metric"])


def test_a_url_is_checked_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str], options: dict[str, Any]
) -> None:
    autoquant.search(**{**options, "max_trials": 1})
    assert main(["resume", str(options["run"]), "--storage", "postgresql+psycopg://aq:secret@host/db"]) == 2
    told = capsys.readouterr().err
    assert "has a password" in told and "secret" not in told
