"""Trials that are scored again, because the metric or the calibration data they were scored with is another one now."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from autoquant.files import writing
from autoquant.quiet import no_progress
from autoquant.tuning.study.journal import OUTCOME, SUGGESTED, Journal, add_ended, is_cut_off, open_study
from autoquant.tuning.study.run_folder import TEMPORARY, RunFolder


def supersede(folder: RunFolder) -> int:
    """Move all trials of a run aside, and let their points wait to be tried again; gives how many these are.

    The numbers begin behind those before, so that the holdout log names none of two. A process that dies in this leaves
    a run on which it can be done again. Raises RunError.
    """
    aside = folder.path / "superseded"
    journal = Journal(folder.journal, no_progress)
    found = open_study(JournalStorage(journal)).get_trials(deepcopy=False) if folder.journal.exists() else []
    points = [one for one in found if one.params and (is_cut_off(one) or OUTCOME in one.user_attrs)]
    with writing(folder.path), tempfile.TemporaryDirectory(dir=folder.path, prefix=TEMPORARY) as temporary:
        made = Path(temporary) / folder.journal.name
        _write(made, points, count=max(len(found), *(number + 1 for number in folder.trials()), 0))
        aside.mkdir(exist_ok=True)
        for path in folder.trials().values():
            path.replace(aside / path.name)
        folder.best.unlink(missing_ok=True)
        folder.result.unlink(missing_ok=True)
        if folder.journal.exists():
            folder.journal.replace(aside / f"study-{len(found)}.journal")
        made.replace(folder.journal)
    return len(points)


def _write(journal: Path, points: Sequence[FrozenTrial], *, count: int) -> None:
    """A journal in which so many numbers are taken, and then these points wait."""
    study = open_study(JournalStorage(Journal(journal, no_progress)))
    add_ended(study, {}, count=count)
    for one in points:
        known = {name: one.user_attrs[name] for name in SUGGESTED}
        why = known["why"] if is_cut_off(one) else f"trial {one.number} again: {known['why']}"
        study.add_trial(
            create_trial(
                state=TrialState.WAITING,
                params=one.params,
                distributions=one.distributions,
                user_attrs={**known, "why": why},
            )
        )
