"""A run whose files were damaged: the journal is made of the trials' folders, and these of the journal."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoquant.formats.config_json import load_config, save_config
from autoquant.formats.space_toml import parse_space
from autoquant.model.layer import Layer
from autoquant.quiet import no_progress
from autoquant.tuning.study.recovery import open_recovered, restore_folders
from autoquant.tuning.study.run_folder import RunFolder
from autoquant.tuning.study.space import SearchSpace, Suggestion
from autoquant.tuning.study.study import Study
from autoquant.tuning.study.trial import State, Terms, Trial, load_trial, write_score

TEXT = """
[layer]
quant_enable = [true, false]
act_algo = ["ifmr", "minmax"]
"""
LAYERS = [Layer(f"l{i}", "Conv2D", (f"x{i}",), -1, f"w{i}", (3, 3, 2, 4), (3,), None, None, 10) for i in range(4)]
SPACE = SearchSpace(parse_space(TEXT, "space"), LAYERS, batches=8)
TERMS = Terms("top1", 0.9, 0.01, "litert", "litert", "macs")


def untried(trials: Sequence[Trial]) -> Suggestion:
    """The first point that no trial has."""
    names, choices = SPACE.dimensions.keys(), SPACE.dimensions.values()
    points = (dict(zip(names, point, strict=True)) for point in itertools.product(*choices))
    return Suggestion(next(point for point in points if all(one.parameters != point for one in trials)), "untried")


def opened(folder: Path, warn: Callable[[str], None] = no_progress) -> Study:
    run = RunFolder(folder)
    study = open_recovered(
        run, SPACE, untried, max_drop=0.01, starts=SPACE.starts(), warn=warn, metric="top1", minimized="macs"
    )
    restore_folders(run, study, TERMS)
    return study


def ended(trial: Trial) -> Trial:
    """Of four kinds in turn."""
    known = replace(trial, int8_share=0.5, objective=0.5, seconds={"score": 0.25}, samples=100)
    drop = 0.001 * trial.number
    return (
        replace(known, state=State.DONE, score=0.9 - drop, drop=drop, within=drop <= 0.01),
        replace(known, state=State.STOPPED, drop=0.2, low=0.1, high=0.3, within=False),
        replace(known, state=State.FAILED, failure="no luck", at_fault="l1"),
        replace(known, state=State.STOPPED, drop=0.005, low=-0.1, high=0.3),
    )[trial.number % 4]


def play(study: Study, folder: Path, trials: int) -> None:
    run = RunFolder(folder)
    for _ in range(trials):
        trial = study.propose()
        assert trial is not None
        own = run.make_trial(trial.number)
        save_config(trial.plan, own / "config.json")
        write_score(own, ended(trial), TERMS)
        study.finish(ended(trial))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    play(opened(folder), folder, 9)
    return folder


def copy_of(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / "copy", dirs_exist_ok=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in folder.glob("trials/*/score.json")}


def check_recovered(damaged: Path, whole: Path, *, told: bool = True) -> None:
    """All trials are there, go on under new numbers, and every finished folder stays as it is."""
    heard: list[str] = []
    study = opened(damaged, heard.append)
    wanted = opened(whole)
    assert study.trials() == wanted.trials()
    assert study.best == wanted.best
    assert any("study.journal" in text for text in heard) == told
    before = contents(damaged)
    assert before == contents(whole)
    play(study, damaged, 2)
    assert before.items() <= contents(damaged).items()
    assert len(contents(damaged)) == len(before) + 2
    assert opened(damaged, heard.append).trials() == study.trials()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda content: b"",
    "half of it": lambda content: content[: len(content) // 2],
    "begins with zeros": lambda content: b"\0" * 4096 + content[4096:],
    "another file": lambda content: b"[project]\nname = 'x'\n",
    "brackets without end": lambda content: content.replace(b"\n", b"\n" + b"[" * 100_000 + b"\n", 1),
    "no study": lambda content: content.split(b"\n", 1)[1],
    "torn in the middle": lambda content: content.replace(b"\n", b'\n{"op_code": 8, "wor', 20).replace(
        b"wor{", b"w\n{"
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_journal_is_written_again(run: Path, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    copy = copy_of(run, tmp_path)
    journal = copy / "study.journal"
    journal.write_bytes(damage(journal.read_bytes()))
    check_recovered(copy, run)


def test_a_journal_that_was_deleted(run: Path, tmp_path: Path) -> None:
    copy = copy_of(run, tmp_path)
    (copy / "study.journal").unlink()
    check_recovered(copy, run)


@given(data=st.data())
@settings(max_examples=25)
def test_one_damaged_or_missing_line_loses_nothing(
    run: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    copy = shutil.copytree(run, tmp_path_factory.mktemp("damaged") / "run")
    journal = copy / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    place = int(data.draw(st.floats(0.0, 1.0, exclude_max=True)) * len(lines))  # opening it adds lines
    change = data.draw(st.sampled_from(["missing", "cut", "swapped byte", "without its end"]))
    line = lines[place]
    lines[place] = {
        "missing": b"",
        "cut": line[: len(line) // 2] + b"\n",
        "swapped byte": line[:5] + b"\xff" + line[6:],
        "without its end": line[:-1],
    }[change]
    journal.write_bytes(b"".join(lines))
    study = opened(copy)
    assert study.trials() == opened(run).trials()
    assert contents(copy) == contents(run)
    play(study, copy, 1)
    assert contents(run).items() <= contents(copy).items()


def test_what_was_cut_off_stays_whole_lines(run: Path, tmp_path: Path) -> None:
    """Half a line at the end is no damage: a process that dies leaves it."""
    copy = copy_of(run, tmp_path)
    with (copy / "study.journal").open("ab") as journal:
        journal.write(b'{"op_code": 8, "worker')
    check_recovered(copy, run, told=False)


@pytest.mark.parametrize("name", ["score.json", "config.json"])
@pytest.mark.parametrize("damage", [b"", b"{}", b'{"version": 1', b"\xff\xfe", None])
def test_a_file_of_a_trial_is_written_again(run: Path, tmp_path: Path, name: str, damage: bytes | None) -> None:
    copy = copy_of(run, tmp_path)
    file = copy / "trials" / "0000" / name
    whole = file.read_bytes()
    if damage is None:
        file.unlink()
    else:
        file.write_bytes(damage)
    check_recovered(copy, run, told=False)
    assert file.read_bytes() == whole


def test_a_folder_of_a_trial_is_made_again(run: Path, tmp_path: Path) -> None:
    copy = copy_of(run, tmp_path)
    shutil.rmtree(copy / "trials" / "0004")
    check_recovered(copy, run, told=False)
    assert load_trial(copy / "trials" / "0004") == load_trial(run / "trials" / "0004")
    assert load_config(copy / "trials" / "0004" / "config.json").int8


def test_a_trial_that_both_have_lost_costs_that_trial(run: Path, tmp_path: Path) -> None:
    copy = copy_of(run, tmp_path)
    (copy / "study.journal").write_text("")
    (copy / "trials" / "0004" / "score.json").write_text("")
    study = opened(copy)
    before = opened(run).trials()
    assert study.trials() == tuple(trial for trial in before if trial.number != 4)
    play(study, copy, 3)
    assert all(trial.number > before[-1].number for trial in study.trials()[-3:])
    points = [json.dumps(dict(trial.parameters)) for trial in study.trials()]
    assert len(set(points)) == len(points)


def test_a_score_that_the_journal_does_not_have_is_taken_over(run: Path, tmp_path: Path) -> None:
    """Death between score.json and journal, at the end of a trial and when it was scored on everything."""
    copy = copy_of(run, tmp_path)
    study = opened(copy)
    trial = study.propose()
    assert trial is not None
    own = RunFolder(copy).make_trial(trial.number)
    save_config(trial.plan, own / "config.json")
    write_score(own, ended(trial), TERMS)
    (late,) = (one for one in study.trials() if one.number == 3)
    late = replace(late, state=State.DONE, score=0.9, drop=0.0, low=0.0, high=0.0, within=True)
    write_score(RunFolder(copy).trial(3), late, TERMS)
    again = opened(copy)
    assert len(again) == 10
    assert ended(trial) in again.trials()
    assert late in again.trials()


@pytest.mark.parametrize(
    "remove", [Path.unlink, partial(Path.write_text, data=""), partial(Path.write_text, data="{}\n")]
)
def test_a_journal_that_is_lost_in_mid_run_is_written_again(
    run: Path, tmp_path: Path, remove: Callable[[Path], object]
) -> None:
    copy, heard = copy_of(run, tmp_path), list[str]()
    study = opened(copy, heard.append)
    remove(copy / "study.journal")
    play(study, copy, 2)
    assert [text for text in heard if "was cut or deleted while the search ran" in text] == heard[:1] != []
    assert opened(copy, heard.append).trials() == study.trials()
    assert len(heard) == 1


def test_a_line_that_did_not_fit_on_the_disk_swallows_no_other(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copy_of(run, tmp_path)
    study, journal = opened(copy), copy / "study.journal"
    size = journal.stat().st_size
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            study.propose()
    assert journal.stat().st_size == size
    with journal.open("ab") as file:
        file.write(b'{"half a li')
    play(study, copy, 1)
    assert len(opened(copy)) == 10
