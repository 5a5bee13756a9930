"""Which file a name of a model means."""

from __future__ import annotations

from pathlib import Path

from autoquant.errors import RunError
from autoquant.model.model import FROZEN, LITE, check_file
from autoquant.tuning.benchmark import check_unchanged
from autoquant.tuning.study.run_folder import RunFolder


def model_file(path: str | Path) -> Path:
    """The file or SavedModel that a path means: itself, or the best model of a run.

    Raises ModelError where it is not there, RunError where the run has none, or not the file that was scored.
    """
    run = RunFolder(Path(path))
    if not run.request.is_file():
        check_file(path)
        return run.path
    run.check_links()
    found = [file for file in sorted(run.best.glob("*")) if file.suffix in (LITE, FROZEN)]
    models = [file for file in found if not file.name.endswith("_front.pb")]
    if len(models) != 1:
        raise RunError(str(path), "has no best model yet", hint="`autoquant resume` goes on with the run")
    check_unchanged(models[0])
    return models[0]
