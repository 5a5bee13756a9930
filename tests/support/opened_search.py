"""A search opened up to its first trial, for benchmarks that carry out plans of their own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from autoquant.evaluation.statistics.tolerance import Tolerance
from autoquant.formats.space_toml import load_space
from autoquant.quiet import no_progress
from autoquant.tuning.inputs import model_of, open_inputs
from autoquant.tuning.prepare import prepare
from autoquant.tuning.session import SearchSession, TimeLimit
from autoquant.tuning.study.request import SearchRequest
from autoquant.tuning.study.run_folder import RunFolder


def opened_search(model: Path, data: Any, run: Path, *, tolerance: str, **options: Any) -> SearchSession:
    """What `autoquant.search` with these options would run, in the folder `run`, which is made."""
    request = SearchRequest(model=model, data=data, tolerance=Tolerance.parse(tolerance), **options)
    inputs = open_inputs(request, load_space(request.space), model_of(request))
    folder = RunFolder(run)
    folder.create()
    folder.write_request({"request": request.as_table(), "digests": inputs.digests()})
    return prepare(inputs, folder, no_progress, TimeLimit(time.monotonic, time.monotonic(), request.timeout))
