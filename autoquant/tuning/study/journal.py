"""The journal of a study: Optuna's file, which is written again where it was cut, emptied or deleted, or has damage."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from autoquant.calibration.plan import Plan
from autoquant.errors import RunError, listed
from autoquant.files import write_bytes, writing
from autoquant.formats.codec import decode, encode, without_nulls
from autoquant.formats.strict import Fields
from autoquant.model.operators import is_tensor
from autoquant.quiet import no_progress
from autoquant.tuning.study.journal_file import JournalFile
from autoquant.tuning.study.trial import State, Trial

NAME = "autoquant"
SUGGESTED = ("why", "phase", "max_samples", "note")
"""The attributes of a trial that hold what was suggested with its point."""
OUTCOME = "outcome"
"""The attribute of a trial that holds how it ended: written in one piece, as each write waits for the disk."""
REPEATS = "repeats"
"""The attribute of a trial of a plan that was tried before: the number of that trial."""
SKIPPED = "skipped"
"""The attribute of a trial of a plan that is not tried: why."""
CONSTRAINTS = "constraints"
"""Optuna's attribute of a trial with constraints that have no name, which optuna-dashboard reads alone: here one, the
drop less the largest within tolerance."""
MOST_NAMES = 8
"""Layers that are named beside each other."""
Distributions = Mapping[str, BaseDistribution]


class Journal(JournalFile):
    """Optuna's journal, of which all is known that was read or written: what somebody takes from it is put back.

    Several records can be one write, as each write waits for the disk.
    """

    def __init__(self, path: Path, warn: Callable[[str], None]) -> None:
        super().__init__(str(path))
        self._path = path
        self._warn = warn
        self._lines: list[bytes] = []
        self._size = 0
        self._held: list[dict[str, Any]] | None = None

    @contextmanager
    def together(self) -> Iterator[None]:
        """Write what is recorded within at its end, at once."""
        self._held = []
        try:
            yield
        finally:
            held, self._held = self._held, None
            if held:
                self.append_logs(held)

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Read whole lines, as Optuna does."""
        self._restore()
        with self._path.open("rb") as file:
            file.seek(self._size)
            more = file.read()
        self._lines.append(more[: more.rfind(b"\n") + 1])
        self._size += len(self._lines[-1])
        yield from super().read_logs(log_number_from)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write lines behind whole ones, all of them or none, or hold them back."""
        if self._held is not None:
            self._held += logs
            return
        self._restore()
        cut_torn_line(self._path)
        size = self._path.stat().st_size
        try:
            super().append_logs(logs)
        except OSError:
            with suppress(OSError):
                os.truncate(self._path, size)  # half a line would swallow the next
            raise

    def _restore(self) -> None:
        """Put back what is known and not there."""
        if (self._path.stat().st_size if self._path.exists() else 0) < self._size:
            write_bytes(self._path, b"".join(self._lines))
            self._warn(f"{self._path} was cut or deleted while the search ran, and is written again")


def cut_torn_line(path: Path) -> None:
    """Remove what follows the last whole line, which a process that died did not finish."""
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        if file.read(1) in (b"", b"\n"):
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def open_study(storage: JournalStorage) -> optuna.Study:
    """The study of a journal, which is made where there is none."""
    with unannounced():
        return optuna.create_study(storage=storage, study_name=NAME, direction="minimize", load_if_exists=True)


@contextmanager
def unannounced() -> Iterator[None]:
    """Inside, Optuna announces no new study; then its verbosity is again what it was."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def mend_journal(
    journal: Path,
    stored: Mapping[int, Trial],
    distributions: Distributions,
    *,
    count: int,
    max_drop: float,
    metric: str,
    warn: Callable[[str], None],
) -> None:
    """See that a journal can be read, and has the trials that their folders say have ended, which are `stored`.

    Damaged lines are left out; where it does not agree with the trials then, it is written again from these, with
    numbers up to `count` taken. What was there before stays beside it, as study.journal.damaged.
    """
    if journal.exists():
        cut_torn_line(journal)
    content = journal.read_bytes() if journal.exists() else b""
    lines = content.splitlines(keepends=True)
    whole = [line for line in lines if _is_json(line)]
    if len(whole) == len(lines) and not stored:
        return
    with writing(journal), tempfile.TemporaryDirectory(dir=journal.parent, prefix=".temporary-") as folder:
        made = Path(folder) / journal.name
        made.write_bytes(b"".join(whole))
        if not _agrees(made, stored):
            made.unlink()
            ended = {number: ended_trial(trial, distributions, max_drop, metric) for number, trial in stored.items()}
            _write(made, ended, count=count)
            what = f"is written again from the {len(stored)} trials whose score.json is there"
        elif len(whole) < len(lines):
            what = f"{len(lines) - len(whole)} damaged lines are left out"
        else:
            return
        if content:
            journal.replace(journal.with_name(f"{journal.name}.damaged"))
        made.replace(journal)
    warn(f"{journal} is not as the search wrote it: {what}")


def is_cut_off(frozen: FrozenTrial) -> bool:
    """Whether a trial has begun, or waits to begin again, and has not ended."""
    return frozen.state in (TrialState.RUNNING, TrialState.WAITING)


def has_ended(frozen: FrozenTrial) -> bool:
    """Whether a plan was really carried out to its end."""
    return frozen.state.is_finished() and OUTCOME in frozen.user_attrs


def ended_trial(trial: Trial, distributions: Distributions, max_drop: float, metric: str) -> FrozenTrial:
    """What Optuna has of a trial that ended."""
    state, value = ended_state(trial, max_drop)
    return create_trial(
        state=state,
        value=value,
        params=dict(trial.parameters),
        distributions=dict(distributions),
        user_attrs={
            **{name: getattr(trial, name) for name in SUGGESTED},
            **shown(trial, metric),
            OUTCOME: without_nulls(encode(trial)),
        },
        system_attrs=None if trial.drop is None else {CONSTRAINTS: [trial.drop - max_drop]},
        intermediate_values=None if trial.drop is None else {trial.samples: trial.objective},
    )


def ended_state(trial: Trial, max_drop: float) -> tuple[TrialState, float | None]:
    """The state and the value of a trial that ended, for Optuna: pruned where it is not within tolerance."""
    if trial.state is State.FAILED:
        return TrialState.FAIL, None
    if trial.within or trial.meets(max_drop):
        return TrialState.COMPLETE, trial.objective
    return TrialState.PRUNED, None


def shown(trial: Trial, metric: str) -> Mapping[str, Any]:
    """What people look for of a trial that ended, by plain names, as far as it is known."""
    in_float = [name for name, settings in trial.plan.layers.items() if settings is None and not is_tensor(name)]
    facts = {
        metric: trial.score,
        "drop": trial.drop,
        "share in INT8": trial.int8_share,
        "layers in INT8": f"{trial.int8_layers} of {trial.layers}",
        "layers in float": listed(in_float, most=MOST_NAMES) if in_float else "none",
        "samples": trial.samples,
        "failure": trial.failure or None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def _write(journal: Path, ended: Mapping[int, FrozenTrial], *, count: int) -> None:
    """Write a journal of these trials; numbers of which nothing is known are taken by trials that came to nothing."""
    add_ended(open_study(JournalStorage(Journal(journal, no_progress))), ended, count=count)


def add_ended(study: optuna.Study, ended: Mapping[int, FrozenTrial], *, count: int) -> None:
    """Give an empty study so many trials: these by number, and others that came to nothing."""
    for number in range(count):
        study.add_trial(ended.get(number) or create_trial(state=TrialState.FAIL))


def _agrees(journal: Path, stored: Mapping[int, Trial]) -> bool:
    """Whether a journal makes a study that has these trials."""
    try:
        found = open_study(JournalStorage(Journal(journal, no_progress))).get_trials(deepcopy=False)
    except Exception:  # whatever Optuna makes of a journal that it did not write
        return False
    for number, trial in stored.items():
        if number >= len(found) or found[number].params != trial.parameters:
            return False
        if not is_cut_off(found[number]) and not has_ended(found[number]):
            return False
    return all(_is_whole(frozen, found) for frozen in found)


def _is_whole(frozen: FrozenTrial, others: Sequence[FrozenTrial]) -> bool:
    """Whether what a trial says of itself is of itself: a line that is missing shifts what follows it."""
    attributes = frozen.user_attrs
    if OUTCOME in attributes:
        try:
            outcome = decode(Trial, Fields(attributes[OUTCOME], "", RunError), plan=Plan({}))
        except RunError:
            return False
        return outcome.number == frozen.number and attributes.keys() >= set(SUGGESTED)
    if REPEATS in attributes:
        earlier = attributes[REPEATS]
        return isinstance(earlier, int) and 0 <= earlier < len(others) and has_ended(others[earlier])
    return frozen.state is TrialState.FAIL or (
        attributes.keys() >= set(SUGGESTED) and (is_cut_off(frozen) or SKIPPED in attributes)
    )


def _is_json(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict) and line.endswith(b"\n")
    except (ValueError, RecursionError):
        return False
