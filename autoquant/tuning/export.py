"""A plan taken out of a run: its files, for the target it was found for or for another."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from hashlib import file_digest
from pathlib import Path
from typing import Any

from autoquant.errors import RunError
from autoquant.evaluation.scoring.evaluator import Progress
from autoquant.files import unwritable, write_bytes, write_text
from autoquant.formats.config_json import load_config
from autoquant.formats.quant_json import quant_json_path
from autoquant.formats.record_text import load_record
from autoquant.model.model import open_model
from autoquant.targets.base import Target
from autoquant.targets.table import open_target
from autoquant.tuning.certification.certificate_json import load_certificate
from autoquant.tuning.study.choices import AUTO, FLOAT32, MACS, TENSORFLOW, check_target
from autoquant.tuning.study.request import SearchRequest
from autoquant.tuning.study.run_folder import CERTIFICATE, RunFolder
from autoquant.tuning.transfer import Transferred, transfer

SCORE = "score.json"


@dataclass(frozen=True, slots=True)
class Export:
    """Files of one plan in a folder of the user's.

    `trial` is where in a run it comes from, with the score that it has there on the engine of the run; `transferred`
    what came of it where it was built for another target.
    """

    folder: Path
    config: Path
    record: Path
    model: Path
    trial: int | None = None
    score: float | None = None
    engine: str = ""
    transferred: Transferred | None = None

    @property
    def mapping(self) -> Path | None:
        """Which nodes of the model stand for which of the float graph; a .tflite comes without."""
        return quant_json_path(self.model) if self.model.suffix == ".pb" else None


def make_export(folder: Path, model: str, trial: int | None = None) -> Export:
    """The files to write for a model's file of this name, in a folder that is made.

    Raises RunError where that cannot be, or where the folder holds the record of another model, which would be lost.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    made = Export(folder, folder / "config.json", folder / "record.txt", folder / model, trial)
    if made.record.exists() and not made.model.exists():
        raise RunError(str(folder), f"holds the record of another model than {model}", hint="give another folder")
    return made


def drop_score(made: Export) -> None:
    """Remove the score of what was in the folder before, and what was claimed of it."""
    for name in (SCORE, CERTIFICATE):
        (made.folder / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class Source:
    """A trial that was carried out: its folder, the facts of its score.json, and what the run was asked."""

    run: RunFolder
    folder: Path
    facts: dict[str, Any]
    stored: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, run: Path, trial: int | None) -> Source:
        """The best trial of a run, or the one of this number. Raises RunError where there is none."""
        folder = RunFolder(run)
        folder.require_run()
        stored = folder.read_request()
        # Resolved once: a search that is going on may move `best` meanwhile.
        source = (folder.best if trial is None else folder.trial(trial)).resolve()
        if not ((source / "record.txt").is_file() and (source / "score.json").is_file()):
            what = "has no best trial yet" if trial is None else f"has no trial {trial} that was carried out"
            raise RunError(str(run), what, hint="`autoquant resume` goes on with the run")
        return cls(folder, source, json.loads((source / "score.json").read_text(encoding="utf-8")), stored)

    @property
    def target(self) -> str:
        """What the run was for; runs did not say so before there was a choice."""
        return str(self.stored["request"].get("target", TENSORFLOW))

    @property
    def io(self) -> str:
        """The type of inputs and outputs of its files."""
        return str(self.stored["request"].get("io", FLOAT32))

    def files(self, to: Path, target: Target) -> Export:
        """The files to write for it."""
        name = target.file_name(Path(self.stored["request"]["model"]).stem)
        made = make_export(to, name, int(self.facts["number"]))
        return replace(made, score=self.facts["score"], engine=str(self.facts["engine"]))

    def request(self, **given: Any) -> SearchRequest:
        """What the run was asked, with data that was in memory given anew. Raises RunError."""
        return SearchRequest.from_table(self.stored["request"], str(self.run.request), call="export", **given)


def export_trial(
    source: Source,
    to: Path,
    *,
    target: str | None,
    io: str | None,
    simulation: bool,
    on_progress: Progress,
    **given: Any,
) -> Export:
    """Copy the files of a trial, or build them again: for another target, or where the model was deleted.

    `given` are data and functions that the run had in memory.
    """
    wanted = target or source.target
    kind = io or (source.io if wanted == source.target else FLOAT32)
    check_target(source.stored["request"]["model"], target=wanted, io=kind, simulation=simulation)
    if (wanted, kind) == (source.target, source.io):
        chosen = open_target(wanted, io=kind, simulation=simulation)
        made = source.files(to, chosen)
        whole = _is_whole(source)
        if _copied(source, made, chosen, simulation or not whole) or (whole and _saved(source, made, simulation)):
            if not (simulation or whole):
                _drop_simulation(made)
            drop_score(made)
            for file in (made.config, made.record):
                write_bytes(file, (source.folder / file.name).read_bytes())
            _copy_certificate(source, made)
            return made
    made = _transferred(source, to, wanted, kind, on_progress, given)
    if not simulation:  # it was scored with what runs it
        _drop_simulation(made)
    return made


def _copy_certificate(source: Source, made: Export) -> None:
    """Let the certificate of a trial go with its model, if that is the very file that was certified."""
    kept = source.folder / CERTIFICATE
    if not kept.is_file():
        return
    with made.model.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    if load_certificate(kept).origin.int8_model == digest:
        write_bytes(made.folder / CERTIFICATE, kept.read_bytes())


def _is_whole(source: Source) -> bool:
    """Whether a record says all that was done to the model: repairs of its weights and biases are not in it."""
    plan = load_config(source.folder / "config.json")
    return plan.bias_correction == "none" and not plan.equalize


def _drop_simulation(made: Export) -> None:
    from autoquant.targets.tensorflow import drop_simulation

    drop_simulation(made.model)


def _copied(source: Source, made: Export, target: Target, wanted: bool) -> bool:
    """Whether the model's files are wanted and there, and were copied. Graphs have the functions that run them."""
    if not wanted:
        return False
    try:
        kept = target.files(source.folder / made.model.name)
        contents = [file.read_bytes() for file in kept]
    except FileNotFoundError:  # deleted, as it was not the best
        return False
    for path, content in zip(target.files(made.model), contents, strict=True):
        write_bytes(path, content)
    return True


def _saved(source: Source, made: Export, simulation: bool) -> bool:
    """Whether the model could be made from its record alone, as graphs of TensorFlow can."""
    if source.target != TENSORFLOW:
        return False
    _save(source, made, source.folder / made.record.name, simulation=simulation)
    return True


def _save(source: Source, made: Export, record: Path, *, simulation: bool) -> None:
    """Write the graph of TensorFlow that a record says."""
    from autoquant.model.layers import survey
    from autoquant.targets.tensorflow import TensorFlowTarget

    asked = source.stored["request"]
    model = open_model(asked["model"], inputs=asked.get("inputs", ()), outputs=asked.get("outputs", ()))
    _same(source, "model", model.digest)
    layers = survey(model.graph).by_name
    TensorFlowTarget(simulation=simulation).save(model.graph, layers, load_record(record), made.model)


def _transferred(
    source: Source, to: Path, target: str, io: str, on_progress: Progress, given: dict[str, Any]
) -> Export:
    request = replace(source.request(**given), target=target, engine=AUTO, objective=MACS, io=io)
    made = source.files(to, open_target(target, io=io))
    drop_score(made)
    facts = transfer(
        request,
        source.folder / "config.json",
        to,
        check=lambda what, digest: _same(source, what, digest),
        on_progress=on_progress,
    )
    text = json.dumps({**facts.facts(), "found_with": source.facts}, indent=2, sort_keys=True, allow_nan=False)
    write_text(to / SCORE, text + "\n")
    return replace(made, transferred=facts)


def _same(source: Source, what: str, digest: str) -> None:
    """Raise RunError where the model or data is not what the run was started with."""
    if digest != source.stored["digests"][what]:
        named = source.stored["request"].get(what, source.stored["request"]["data"])
        hint = "put it back, or export the best trial, whose model is kept"
        raise RunError(str(source.run.path), f"its {what} {named} is not what the run was started with", hint=hint)
