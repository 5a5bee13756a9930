"""The Python files that a request names: what a run imports is what it was started with, and is never its own.

A run's folder may come from a stranger. Its run.toml says which functions make data and metric, and to import one is to
run it; so the digests of their files, which run.toml has too, are compared before that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from autoquant.errors import DataError, RunError
from autoquant.evaluation.data.opening import names_function
from autoquant.evaluation.data.plugins import code_files
from autoquant.evaluation.metrics.metric import AT_OUTPUT
from autoquant.tuning.study.request import SearchRequest

NAMED = ("data", "calibration", "certify", "preprocess", "metric")
"""The fields of a request that may name functions."""


def code_digests(request: SearchRequest) -> dict[str, str]:
    """SHA-256 (hex) of the code that each field of a request imports, where it names a function; none is imported.

    It is that of the files that the name tells, a module's packages included, and of no others that these import.
    """
    return {name: _digest(files) for name, files in _named(request).items()}


def check_code(
    run: Path,
    request: SearchRequest,
    stored: Mapping[str, Any],
    given: Collection[str],
    *,
    accepted: Collection[str] = (),
    hint: str = "resume with what the run was started with, or start a new run",
) -> None:
    """Raise RunError where a request of a run imports code of the run's own folder, or other code than it was started
    with.

    `stored` are the digests of that, `given` the fields that whoever goes on with the run names now, and `accepted`
    those whose code may have changed.
    """
    for name, files in _named(request).items():
        spec = getattr(request, name)
        if name in given:
            continue
        inside = [file for file in files if file.resolve().is_relative_to(run.resolve())]
        if inside:
            what = f"the {name} ({spec}) is code in the run's own folder, which is never imported"
            raise RunError(str(run), what, hint="read it, and move it elsewhere if you trust it")
        if name not in accepted and stored.get(name) != _digest(files):
            what = f"the {name} ({spec}) is not what the run was started with"
            raise RunError(str(run), what, hint=hint)


def _named(request: SearchRequest) -> dict[str, tuple[Path, ...]]:
    """The files of each field that names a function."""
    found = {}
    for name in NAMED:
        spec = getattr(request, name)
        if name == "metric" and isinstance(spec, str):
            spec = spec.partition(AT_OUTPUT)[0]
        if names_function(spec):
            found[name] = code_files(str(spec))
    return found


def _digest(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for file in files:
        try:
            digest.update(file.read_bytes())
        except OSError as error:
            raise DataError(str(file), f"cannot be read ({error.strerror})", hint="is it still there?") from None
    return digest.hexdigest()
