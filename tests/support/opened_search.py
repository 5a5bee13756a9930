"""A search opened up to its first trial, for benchmarks that carry out plans of their own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from autoquant.api import nobody
from autoquant.evaluation.statistics.tolerance import Tolerance
from autoquant.formats.space_toml import load_space
from autoquant.tuning.inputs import model_of, open_request
from autoquant.tuning.prepare import assembled
from autoquant.tuning.study.request import SearchRequest
from autoquant.tuning.study.run_folder import RunFolder
from autoquant.tuning.trials import Loop


def opened_search(model: Path, data: Any, run: Path, *, tolerance: str, **options: Any) -> Loop:
    """What `autoquant.search` with these options would run, in the folder `run`, which is made."""
    request = SearchRequest(model=model, data=data, tolerance=Tolerance.parse(tolerance), **options)
    opening = open_request(request, load_space(request.space), model_of(request))
    folder = RunFolder(run)
    folder.create()
    folder.write_request({"request": request.as_table(), "digests": opening.digests()})
    return assembled(opening, folder, nobody, time.monotonic, 0.0).loop
