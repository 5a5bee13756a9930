"""The files of the best trial: kept while there is no better one, and built again where they are lost or damaged.

That they are there is seen to after each trial; when a run is opened, and at its end, they are compared with the
digests that they had when the trial was scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from autoquant.errors import listed
from autoquant.evaluation.statistics.tolerance import drop_from, within
from autoquant.files import changed_files, digests_of, writing
from autoquant.formats.codec import save
from autoquant.tuning.events import Warned
from autoquant.tuning.session import SearchSession, Session
from autoquant.tuning.study.pareto import kept_trials
from autoquant.tuning.study.run_folder import CHANGES, CONFIG, RECORD
from autoquant.tuning.study.trial import SCORE, State, Trial, best, write_score


def keep_best(session: Session, among: Sequence[Trial] | None = None) -> Trial | None:
    """See that the files of the best trial are there, point `best` at it, then delete the models that are not kept."""
    kept = session.study.best if among is None else best(among, session.max_drop)
    if kept is not None:
        _restore(session, kept)
        session.folder.point_best(kept.number)
    if not session.keep_all_models:
        names = [*(file.name for file in session.builder.files(Path(session.builder.file_name))), CHANGES]
        every = session.study.trials() if among is None else among
        models = kept_trials(every, kept, session.max_drop, session.keep_models)
        session.folder.delete_models(names, keep=[trial.number for trial in models])
    return kept


def restore_best(session: SearchSession) -> Trial | None:
    """The best trial, its files as they were when it was scored: those that are not are built again, which is told.

    Where that gives another model, as other versions of libraries may, that is scored on all samples; then another
    trial may be the best. Raises TrialError where a model cannot be built or run, RunError where it cannot be written.
    """
    while (kept := session.study.best) is not None:
        folder = session.folder.trial(kept.number)
        built = _restore(session, kept, compared=True)
        keep_best(session)
        if not built or not changed_files(folder, kept.digests):
            break
        session.listener(Warned(f"trial {kept.number}: what was built again is another model, which is scored"))
        session.study.amend(score_on_all(session, kept))
    return kept


def _restore(session: Session, trial: Trial, *, compared: bool = False) -> bool:
    """Build the files of a trial again where one is lost, or, `compared`, another than when it was scored.

    That is told, but for the model of a trial that was not the best, which is deleted. Returns whether they were built.
    """
    folder, builder = session.folder.trial(trial.number), session.builder
    names = [CONFIG, RECORD, *(file.name for file in builder.files(folder / builder.file_name))]
    lost = [name for name in names if not (folder / name).is_file()]
    changed = changed_files(folder, trial.digests) if compared and not lost else ()
    if lost or changed:
        what = "not there any more" if lost else "not as when it was scored (another SHA-256)"
        if changed or session.folder.is_best(trial.number):
            session.listener(Warned(f"trial {trial.number}: {listed(lost or changed)}: {what}; built again"))
        session.on_progress(f"building trial {trial.number} again")
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        builder.build(trial.plan, folder)
    if not (folder / SCORE).is_file():
        write_score(folder, trial, session.terms)
    return bool(lost or changed)


def score_on_all(session: SearchSession, trial: Trial) -> Trial:
    """A trial, with the score of its model on all samples, which score.json has too. Raises TrialError."""
    on_progress = session.on_progress(f"trial {trial.number}, all samples")
    folder = session.folder.trial(trial.number)
    full = session.scorer.score_all(folder / session.builder.file_name, on_progress=on_progress)
    score = full.score
    drop = drop_from(session.terms.baseline, score.value, higher_is_better=session.metric.higher_is_better)
    if full.changes is not None:
        save(full.changes, folder / CHANGES)
    scored = replace(
        trial,
        state=State.DONE,
        score=score.value,
        drop=drop,
        low=drop,
        high=drop,
        within=within(drop, session.max_drop),
        samples=trial.samples + score.samples,
        digests=digests_of([folder / name for name in trial.digests]),
    )
    write_score(folder, scored, session.terms)
    return scored
