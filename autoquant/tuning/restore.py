"""The files of the best trial, compared with their digests when it was scored, and built again where they differ."""

from __future__ import annotations

from dataclasses import replace

from autoquant.errors import listed
from autoquant.evaluation.statistics.tolerance import drop_from, within
from autoquant.files import changed_files, digests_of
from autoquant.formats.codec import save
from autoquant.tuning.events import Warned
from autoquant.tuning.session import SearchSession
from autoquant.tuning.study.run_folder import CHANGES
from autoquant.tuning.study.trial import State, Trial, write_score
from autoquant.tuning.trials import keep_best


def restore_best(session: SearchSession) -> Trial | None:
    """The best trial, its files as they were when it was scored: those that are not are built again, which is told.

    Where that gives another model, as other versions of libraries may, that is scored on all samples; then another
    trial may be the best. Raises TrialError where a model cannot be built or run, RunError where it cannot be written.
    """
    while (kept := keep_best(session)) is not None:
        folder = session.folder.trial(kept.number)
        damaged = changed_files(folder, kept.digests)
        if not damaged:
            break
        what = f"trial {kept.number}: {listed(damaged)}: not as when it was scored (another SHA-256)"
        session.listener(Warned(f"{what}; built again"))
        session.on_progress(f"building trial {kept.number} again")
        session.builder.build(kept.plan, folder)
        if changed_files(folder, kept.digests):
            session.listener(Warned(f"trial {kept.number}: what was built again is another model, which is scored"))
            session.study.amend(score_on_all(session, kept))
    return kept


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
