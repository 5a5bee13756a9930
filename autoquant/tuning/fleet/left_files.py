"""The files that workers of other disks leave for the owner: taken where they are of the best, removed otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from autoquant.errors import RunError
from autoquant.tuning.events import Listener, Warned
from autoquant.tuning.session import Session
from autoquant.tuning.study.artifacts import Artifacts
from autoquant.tuning.study.run_folder import CHANGES, CONFIG, RECORD
from autoquant.tuning.study.trial import Trial


class LeftFiles:
    """Files among the artifacts of a search; without these there are none. What goes wrong there is told."""

    def __init__(self, artifacts: Artifacts | None, listener: Listener) -> None:
        self._artifacts = artifacts
        self._listener = listener
        self._best: int | None = None

    def take(self, session: Session, trial: Trial, files: Mapping[str, str], folder: Path) -> None:
        """Get the files of a trial; what is not there, or is another, will be built again."""
        if self._artifacts is None or not files:
            return
        names = (
            CONFIG,
            RECORD,
            CHANGES,
            *(path.name for path in session.builder.files(Path(session.builder.file_name))),
        )
        wanted = {name: digest for name, digest in {**files, **trial.digests}.items() if name in names}
        session.on_progress(f"getting the files of trial {trial.number}")
        try:
            self._artifacts.take(trial.number, wanted, folder)
        except RunError as error:
            self._listener(Warned(f"trial {trial.number} is built again: {error}"))

    def tidy(self, session: Session, files: Mapping[str, str]) -> None:
        """Remove files of trials that have ended and are not the best, where there may be some."""
        best = session.study.best
        number = None if best is None else best.number
        if files or number != self._best:
            self._best = number
            ended = {trial.number for trial in session.study.trials()}
            self._keep(lambda found: found == number or found not in ended)

    def close(self, best: Trial | None) -> None:
        """Remove all files but those of the best."""
        self._keep(lambda found: best is not None and found == best.number)

    def _keep(self, is_wanted: Callable[[int], bool]) -> None:
        try:
            if self._artifacts is not None:
                self._artifacts.keep(is_wanted)
        except RunError as error:
            self._listener(Warned(f"files of trials that are not the best stay there: {error}"))
