"""What is to be shipped where INT8 must be worth it: the best model, or the float one unless INT8 is fast enough."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoquant.calibration.plan import Plan
from autoquant.errors import RunError
from autoquant.files import sha256_of, write_bytes, writing
from autoquant.formats.config_json import save_config
from autoquant.formats.record_text import save_record
from autoquant.model.litert.graph import LiteGraph
from autoquant.tuning.builder import front_path
from autoquant.tuning.certification.certificate import Verdict
from autoquant.tuning.events import Warned
from autoquant.tuning.result import FLOAT, INT8, SearchResult, Shipped
from autoquant.tuning.session import SearchSession
from autoquant.tuning.study.run_folder import CONFIG, RECORD, RunFolder


def choose_shipped(session: SearchSession, result: SearchResult) -> SearchResult:
    """The result with what to ship, where the request has a least speedup: float unless INT8 is met and that fast.

    As fast is what was so in three rounds of four. The float model is written into the run. Raises RunError.
    """
    least = session.request.min_speedup
    if least is None:
        return result
    why, fast = _reason(result, least)
    shutil.rmtree(session.folder.shipped_float, ignore_errors=True)  # that of an earlier decision
    if fast and result.model is not None:
        return replace(result, shipped=Shipped(INT8, result.model, sha256_of(result.model), why))
    path = _write_float(session)
    session.listener(Warned(f"the float model is shipped: {why}"))
    return replace(result, shipped=Shipped(FLOAT, path, sha256_of(path), why))


def _reason(result: SearchResult, least: float) -> tuple[str, bool]:
    """Why which model is shipped, and whether it is INT8."""
    if result.model is None or result.verdict is Verdict.MISSED:
        return "INT8 misses the tolerance", False
    if result.latency is None:
        return f"that INT8 is {least:g} times as fast could not be measured", False
    speed = result.latency.models[1].speed
    quartiles = f"({speed.lower_quartile:.2f} to {speed.upper_quartile:.2f})"
    fast = speed.lower_quartile >= least
    told = "at least" if fast else "not"
    return f"INT8 has {speed.median:.2f} times the speed of float here {quartiles}, {told} {least:g}", fast


def _write_float(session: SearchSession) -> Path:
    """Write the float model, as it is lowered for the target, and what is in front of it."""
    model = session.builder.model
    assert isinstance(model.program, LiteGraph)  # targets of others have no speed here
    path = session.folder.shipped_float / f"{model.name}_float.tflite"
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    layers = session.builder.workload.layers
    save_config(Plan(dict.fromkeys(layers)), path.with_name(CONFIG), layers=layers)
    save_record({}, path.with_name(RECORD))
    write_bytes(path, model.program.content)
    if model.front is not None:
        graph_def = model.front.graph.to_graph_def()
        write_bytes(front_path(path), graph_def.SerializeToString(deterministic=True))
    return path


def shipped_float(run: Path) -> tuple[Path, str] | None:
    """The float model that a run ships, and why; None where it ships none. Raises RunError where that is damaged."""
    folder = RunFolder(run)
    folder.require_run()
    try:
        found: Any = json.loads(folder.result.read_text(encoding="utf-8")).get("shipped") or {}
    except (OSError, ValueError, AttributeError):
        return None
    if not isinstance(found, dict) or found.get("what") != FLOAT:
        return None
    model = folder.shipped_float / Path(str(found.get("model"))).name
    if not model.is_file() or sha256_of(model) != found.get("digest"):
        what = "is not the file that the search wrote (another SHA-256)"
        raise RunError(str(model), what, hint=f"`autoquant resume {run}` writes it again")
    return model, str(found.get("why"))
