"""What a run was started with: whoever goes on with it, or carries trials out for it, must have the same."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from autoquant import __version__
from autoquant.errors import RunError
from autoquant.model.model import is_lite
from autoquant.targets.table import TARGETS
from autoquant.tuning.study.places import IN_MEMORY
from autoquant.tuning.study.request import ACCEPTABLE, SearchRequest

RESUMED = "resume with what the run was started with, or start a new run"


def check_same(
    where: Path | str,
    request: SearchRequest,
    stored: Mapping[str, str],
    digests: Mapping[str, str],
    *,
    hint: str = "",
) -> None:
    """Raise RunError, which names it, where model, data, calibration or metric are not what the run was started with.

    Without a `hint` it is for whoever resumes the run.
    """
    for what, digest in digests.items():
        if stored[what] != digest:
            given = getattr(request, what) or request.data
            named = given if isinstance(given, str | Path) else IN_MEMORY
            more = f"; --accept-changed {what} scores all trials again" if what in ACCEPTABLE else ""
            hint = hint or f"{RESUMED}{more}"
            raise RunError(str(where), f"the {what} ({named}) is not what the run was started with", hint=hint)


def check_versions(where: str, stored: Mapping[str, str], own: Mapping[str, str]) -> None:
    """Raise RunError, which names them, where versions of packages are not those that the run was started with."""
    other = [
        f"{name} {own.get(name, 'none')} instead of {wanted}"
        for name, wanted in stored.items()
        if own.get(name) != wanted
    ]
    if other:
        hint = "install the same versions here: others would not score alike"
        raise RunError(where, f"other versions are installed here: {', '.join(other)}", hint=hint)


def versions_of(request: SearchRequest) -> dict[str, str]:
    """The versions of what builds and scores the models of a request; a .tflite needs no TensorFlow."""
    names = {"numpy", "optuna", "ai-edge-litert", *TARGETS[request.target].packages}
    if not is_lite(request.model):
        names.add("tensorflow")  # which opens it
    return {"autoquant": __version__, **{name: version(name) for name in sorted(names)}}
