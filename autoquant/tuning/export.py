"""Exporting a trial of a run: its files, for the target that it was found for or rebuilt for another."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoquant.errors import RunError, listed
from autoquant.files import changed_files, digests_of, sha256_of, write_bytes, write_text, writing
from autoquant.formats.codec import encode, json_text
from autoquant.formats.config_json import load_config
from autoquant.formats.quant_json import quant_json_path
from autoquant.formats.record_text import load_record
from autoquant.model.open import model_digest, open_model
from autoquant.targets.base import Target
from autoquant.targets.table import open_target
from autoquant.tuning.builder import existing_front, front_path
from autoquant.tuning.certification.certificate import load_certificate
from autoquant.tuning.evaluation.result import Evaluation
from autoquant.tuning.events import Listener
from autoquant.tuning.ship import shipped_float
from autoquant.tuning.study.choices import AUTO, FLOAT32, MACS, TENSORFLOW, check_target
from autoquant.tuning.study.code import check_code
from autoquant.tuning.study.origins import check_origins
from autoquant.tuning.study.request import TRUST_MODEL, SearchRequest
from autoquant.tuning.study.run_folder import CERTIFICATE, RunFolder
from autoquant.tuning.study.trial import SCORE, load_trial
from autoquant.tuning.transfer import Transferred, transfer


@dataclass(frozen=True, slots=True)
class Export:
    """Files of one plan in a folder of the user's.

    `trial` is the trial of a run that they are from, with the score that it has there on the engine of the run;
    `transferred` is its score where it was built for another target; `notes` say what of a model's file is another in
    the model, what was built again as it was damaged, and that a certificate is not of this file; `evaluation` compares
    it with the float model, where `quantize` was given data for that.
    """

    folder: Path
    config: Path
    record: Path
    model: Path
    trial: int | None = None
    score: float | None = None
    engine: str = ""
    transferred: Transferred | None = None
    notes: tuple[str, ...] = ()
    evaluation: Evaluation | None = None

    def __repr__(self) -> str:
        files = ", ".join(path.name for path in (self.model, self.config, self.record))
        of = "" if self.trial is None else f" of trial {self.trial}"
        return f"<Export{of}: {files} in {self.folder}>"

    @property
    def mapping(self) -> Path | None:
        """Which nodes of the model stand for which of the float graph; a .tflite comes without."""
        return quant_json_path(self.model) if self.model.suffix == ".pb" else None

    @property
    def front(self) -> Path | None:
        """The graph of TensorFlow that computes inputs of the model; None where it takes the data itself."""
        return existing_front(self.model)


def make_export(folder: Path, model: str) -> Export:
    """The files to write for a model's file of this name, in a folder that is made.

    Raises RunError where that cannot be, or where the folder holds the record of another model, which would be lost.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    made = Export(folder, folder / "config.json", folder / "record.txt", folder / model)
    if made.record.exists() and not made.model.exists():
        raise RunError(str(folder), f"holds the record of another model than {model}", hint="give another folder")
    return made


def remove_claims(made: Export) -> None:
    """Remove the score and the certificate of the model that was in the folder before."""
    for name in (SCORE, CERTIFICATE):
        (made.folder / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class StoredTrial:
    """A trial of a run on disk: its folder, what its score.json says, and the tables of run.toml."""

    run: RunFolder
    folder: Path
    number: int
    score: float | None
    engine: str
    request: Mapping[str, Any]
    digests: Mapping[str, str]
    code: Mapping[str, str]
    file_digests: Mapping[str, str]

    @classmethod
    def load(cls, run: Path, trial: int | None) -> StoredTrial:
        """The best trial of a run, or the one of this number. Raises RunError where there is none."""
        folder = RunFolder(run)
        folder.require_run()
        tables = folder.read_request()
        # Resolved once: a search that is going on may move `best` meanwhile.
        source = (folder.best if trial is None else folder.trial(trial)).resolve()
        if not (source / SCORE).is_file():
            what = "has no best trial yet" if trial is None else f"has no trial {trial} that was carried out"
            raise RunError(str(run), what, hint="`autoquant resume` goes on with the run")
        scored, terms = load_trial(source)
        request, digests, code = tables["request"], tables["digests"], tables.get("code", {})
        return cls(folder, source, scored.number, scored.score, terms.engine, request, digests, code, scored.digests)

    @property
    def target(self) -> str:
        """The target of the run."""
        return str(self.request.get("target", TENSORFLOW))

    @property
    def io(self) -> str:
        """The type of inputs and outputs of its files."""
        return str(self.request.get("io", FLOAT32))

    @property
    def profile(self) -> str:
        """The device that its files are for, '' for none."""
        return str(self.request.get("profile", ""))

    @property
    def integer_only(self) -> bool:
        """Whether its files have no operators in float."""
        return bool(self.request.get("integer_only", False))

    @property
    def config(self) -> Path:
        """Its config.json."""
        return self.folder / "config.json"

    def files(self, to: Path, target: Target) -> Export:
        """The files to write for it."""
        made = make_export(to, target.file_name(Path(self.request["model"]).stem))
        return replace(made, trial=self.number, score=self.score, engine=self.engine)

    @property
    def damaged(self) -> tuple[str, ...]:
        """The names of its files that are not as when it was scored; models are deleted, so that may be missing."""
        there = {name: digest for name, digest in self.file_digests.items() if (self.folder / name).exists()}
        return changed_files(self.folder, there)

    def check_plan(self) -> None:
        """Raise RunError where its config.json, of which all else could be built again, is not what was scored."""
        if self.config.name in self.damaged:
            hint = f"`autoquant resume {self.run.path}` writes it again, where it is of the best trial"
            raise RunError(str(self.config), "is not the file that was scored (another SHA-256)", hint=hint)

    def check_same(self, what: str, digest: str) -> None:
        """Raise RunError where the model or data is not what the run was started with."""
        if digest != self.digests[what]:
            named = self.request.get(what, self.request["data"])
            hint = "put it back, say where it is, or export the best trial, whose model is kept"
            raise RunError(str(self.run.path), f"its {what} {named} is not what the run was started with", hint=hint)


def export_float(run: Path, to: Path) -> Export | None:
    """Copy the float model that a run ships, with the plan that has nothing in INT8; None where it ships none.

    Raises RunError where it is damaged.
    """
    shipped = shipped_float(run)
    if shipped is None:
        return None
    model, why = shipped
    made = make_export(to, model.name)
    remove_claims(made)
    front = existing_front(model)
    for source, copy in ((model, made.model), (front, front_path(made.model))):
        if source is not None:
            write_bytes(copy, source.read_bytes())
    for file in (made.config, made.record):
        write_bytes(file, (model.parent / file.name).read_bytes())
    return replace(made, notes=(f"the float model: {why}",))


def export_trial(
    trial: StoredTrial,
    to: Path,
    *,
    target: str | None,
    io: str | None,
    profile: str | None,
    integer_only: bool | None,
    simulation: bool,
    listener: Listener,
    **given: Any,
) -> Export:
    """Copy the files of a trial, or build them again: for another target or device, or where the model was deleted.

    `given` are data and functions that the run had in memory, new places of model, data, calibration and metric, and
    `trust_model`.
    """
    wanted = target or trial.target
    wanted_io = io or (trial.io if wanted == trial.target else FLOAT32)
    device = profile if profile is not None else trial.profile if wanted == trial.target else ""
    whole = integer_only if integer_only is not None else trial.integer_only and wanted == trial.target
    asked: dict[str, Any] = {"target": wanted, "io": wanted_io, "profile": device, "integer_only": whole}
    check_target(trial.request["model"], simulation=simulation, **asked)
    trial.check_plan()
    made, same = None, all(getattr(trial, name) == value for name, value in asked.items())
    if same and (trial.folder / "record.txt").is_file():
        made = _copy(trial, to, open_target(wanted, io=wanted_io, simulation=simulation), simulation, given)
    if made is None:
        made = _transfer(trial, to, asked, listener, given)
        if not simulation:  # it was scored with what runs it
            _drop_simulation(made)
    return replace(made, notes=(*_damage(trial), *_certificate(trial, made)))


def _copy(trial: StoredTrial, to: Path, target: Target, simulation: bool, given: Mapping[str, Any]) -> Export | None:
    """Copy a trial's files, its model rebuilt from the record where needed; None where that does not say enough.

    What is damaged is not copied, and nothing is built from it.
    """
    made, plan = trial.files(to, target), load_config(trial.config)
    if made.record.name in trial.damaged:
        return None
    complete = not plan.repaired  # repairs are not in a record
    copied = (simulation or not complete) and _copy_model(trial, made, target)
    if not copied and not (complete and trial.target == TENSORFLOW):
        return None
    if not copied:
        _save_from_record(trial, made, given, simulation=simulation)
    elif not simulation:
        _drop_simulation(made)
    remove_claims(made)
    for file in (made.config, made.record):
        write_bytes(file, (trial.folder / file.name).read_bytes())
    return made


def _copy_model(trial: StoredTrial, made: Export, target: Target) -> bool:
    """Copy the model's files; False where they are damaged, or were deleted, as the trial was not the best."""
    if trial.damaged:
        return False
    try:
        contents = [file.read_bytes() for file in target.files(trial.folder / made.model.name)]
    except FileNotFoundError:
        return False
    for path, content in zip(target.files(made.model), contents, strict=True):
        write_bytes(path, content)
    front = existing_front(trial.folder / made.model.name)
    if front is not None:
        write_bytes(front_path(made.model), front.read_bytes())
    return True


def _save_from_record(trial: StoredTrial, made: Export, given: Mapping[str, Any], *, simulation: bool) -> None:
    """Write the graph of TensorFlow that a record says."""
    from autoquant.model.survey import survey_graph
    from autoquant.targets.tensorflow import TensorFlowTarget

    asked = trial.request
    names = {name: asked.get(name, ()) for name in ("inputs", "outputs", "feed")}
    file, trust = Path(given.get("model", asked["model"])), bool(given.get(TRUST_MODEL))
    trial.check_same("model", model_digest(file))
    model = open_model(file, **names, signature=asked.get("signature") or None, trust=trust)
    record = load_record(trial.folder / made.record.name)
    TensorFlowTarget(simulation=simulation).save(model.graph, survey_graph(model.graph).by_name, record, made.model)


def _drop_simulation(made: Export) -> None:
    from autoquant.targets.tensorflow import drop_simulation

    drop_simulation(made.model)


def _damage(trial: StoredTrial) -> Iterator[str]:
    if damaged := trial.damaged:
        what = f"{listed(damaged)} of trial {trial.number}"
        yield f"{what}: not as when it was scored (another SHA-256); what is exported was built again"


def _certificate(trial: StoredTrial, made: Export) -> Iterator[str]:
    """Copy the certificate of a trial, if the exported model is the very file that was certified; else tell."""
    certificate = trial.folder / CERTIFICATE
    if not certificate.is_file():
        return
    if load_certificate(certificate).origin.int8_model == sha256_of(made.model):
        write_bytes(made.folder / CERTIFICATE, certificate.read_bytes())
    else:
        yield f"the certificate of trial {trial.number} is of another file (another SHA-256), and not exported"


def _transfer(
    trial: StoredTrial, to: Path, wanted: Mapping[str, Any], listener: Listener, given: Mapping[str, Any]
) -> Export:
    """Build the trial's plan anew for the target, io and profile that are wanted, and score it there."""
    check_origins(str(trial.run.request), trial.run.read_request().get("plugins", {}))
    request = SearchRequest.from_table(trial.request, str(trial.run.request), call="export", **given)
    request = replace(request, engine=AUTO, objective=MACS, **wanted)
    check_code(trial.run.path, request, trial.code, given)
    trial.check_same("model", model_digest(Path(request.model)))
    made = trial.files(to, open_target(request.target, io=request.io))
    remove_claims(made)
    batches = max(trial.run.read_space().whole["batch_num"])
    found = transfer(request, trial.config, to, batches=batches, check=trial.check_same, listener=listener)
    found_with = json.loads((trial.folder / SCORE).read_text(encoding="utf-8"))
    score = {**encode(found), "digests": digests_of([made.model]), "found_with": found_with}
    write_text(to / SCORE, json_text(score))
    return replace(made, transferred=found)
