"""Joining a search as a worker: its run opened, what is computed already taken over, and FP32 compared with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoquant.cache import digest_of
from autoquant.errors import RunError
from autoquant.evaluation.scoring.sample_scorer import SampleScorer
from autoquant.files import sha256_of, write_bytes
from autoquant.formats.codec import encode, json_text
from autoquant.model.open import model_digest
from autoquant.tuning.events import Listener, Warned, progress
from autoquant.tuning.fleet.board import OWNER, VISITOR, Member
from autoquant.tuning.fleet.float_outputs import check_float, float_digest
from autoquant.tuning.fleet.kept_results import KeptResults, working_folder
from autoquant.tuning.fleet.messages import FLOAT, READY, Process, WorkerFacts, has_ended
from autoquant.tuning.fleet.storages import Meeting
from autoquant.tuning.fleet.work import Joined
from autoquant.tuning.inputs import Inputs, model_of, open_inputs
from autoquant.tuning.prepare import prepare_worker
from autoquant.tuning.session import Clock
from autoquant.tuning.study.artifacts import open_artifacts
from autoquant.tuning.study.code import check_code
from autoquant.tuning.study.identity import check_same, check_versions, versions_of
from autoquant.tuning.study.origins import check_origins
from autoquant.tuning.study.request import CHANGEABLE, MOVABLE, STORAGE, SearchRequest
from autoquant.tuning.study.run_folder import RunFolder

SEARCH = "the search"
HINT = "give this worker what the search has: --model, --data and --calibration say where it is here"
OTHER_CPU = (
    "this machine does not compute FP32 as the owner's does, bit by bit: what may be the best is scored there again"
)


class SearchEnded(Exception):
    """A search has come to its end."""


@dataclass(frozen=True)
class Patient:
    """How long to wait, and how: `idle` seconds at most, by a clock."""

    idle: float
    clock: Clock = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def owner_of(meeting: Meeting, listener: Listener, patient: Patient) -> Member:
    """The owner of a search, once it has all that workers need. Raises SearchEnded, and RunError after `idle`."""
    with ExitStack() as stack:
        begin, told = patient.clock(), ""
        while True:
            owners = meeting.board.members(OWNER)
            ready = [one for one in owners if READY in one.said]
            if ready:
                return ready[0]
            if not owners and has_ended(meeting.board):
                raise SearchEnded
            waited = patient.clock() - begin
            if waited >= patient.idle:
                what = f"no search was ready within {waited:.0f} s"
                raise RunError(
                    meeting.where, what, hint="start it, or `autoquant resume` it; or wait longer with --idle"
                )
            what = "waiting for the search to be ready" if owners else "waiting for a search, or its resumption"
            if what != told:
                progress(listener, what, 0, 0)
                if not told:  # a search that carries its trials out itself sees it, and becomes an owner
                    stack.callback(meeting.board.leave, meeting.board.join(VISITOR, encode(Process.own())))
                told = what
            patient.sleep(min(1.0, max(patient.idle - waited, 0.05)))


@dataclass
class Files:
    """The files of a run, in a `folder` here that is filled through the storage, unless that is the run itself."""

    meeting: Meeting
    folder: RunFolder
    shared: bool
    _known: dict[str, str] = field(default_factory=dict)

    def fetch(self) -> None:
        """Get what the owner has computed since. Raises RunError."""
        owners = [] if self.shared else self.meeting.board.members(OWNER)
        if owners:
            self.take(owners[0].said.get(READY, {}))

    def take(self, files: Mapping[str, str]) -> None:
        """Get files by name, those whose SHA-256 is not that of the one that is here. Raises RunError."""
        if self.shared or self.meeting.shelf is None:
            return
        new = {name: digest for name, digest in files.items() if self._known.get(name) != digest}
        for name, content in zip(new, self.meeting.shelf.get(*new.values()), strict=True):
            path = self.folder.path / name
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise RunError(SEARCH, f"names a file outside of its run, {name}", hint="leave it")
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, content)
        self._known.update(new)


@contextmanager
def joined(
    meeting: Meeting,
    run: Path | None,
    listener: Listener,
    patient: Patient,
    *,
    trust_model: bool = False,
    moved: Mapping[str, Any],
) -> Iterator[Joined]:
    """A search as a worker of it has opened it; `run` is its folder, where that is on a disk of this machine.

    `moved` are model, data and calibration, as far as they are elsewhere here. Raises SearchEnded, and RunError where
    something here is not what the search has.
    """
    owner = owner_of(meeting, listener, patient)
    with working_folder(run) as own:
        files = Files(meeting, RunFolder(own if run is None else run), run is not None)
        files.take(owner.said[READY])
        if run is None:
            files.folder.journal.touch()  # so that the split is that of the owner
        inputs = _opened(files.folder, listener, trust_model=trust_model, moved=moved)
        worker = prepare_worker(inputs, files.folder, listener, patient.clock)
        assert isinstance(worker.scorer, SampleScorer)
        exact = float_digest(worker.scorer) == owner.said.get(FLOAT)
        if not exact:
            tolerance = inputs.request.tolerance.absolute(worker.scorer.subset.score.value)
            check_float(worker.scorer, tolerance)
            listener(Warned(OTHER_CPU))
        facts = WorkerFacts(Process.own(), exact=exact, folder="" if run is None else own.name)
        place = inputs.request.artifacts if run is None and exact else ""
        artifacts = open_artifacts(place, inputs.request.study, lambda text: listener(Warned(text)))
        kept = KeptResults(own, _origin_of_results(files.folder, inputs.request.study), with_files=run is not None)
        with kept.those_of_the_dead():
            yield Joined(meeting.board, facts, worker, inputs.space, own, kept, files.fetch, artifacts)


def _origin_of_results(folder: RunFolder, study: str) -> str:
    """A digest of all that results of a search come of, but for their plans and rules."""
    stored = folder.read_request()
    request = {key: value for key, value in stored["request"].items() if key not in CHANGEABLE | MOVABLE | {STORAGE}}
    known = (study, request, stored["digests"], stored["versions"], stored["code"])
    files = (folder.baseline, folder.splits)
    return digest_of(json_text(known), *(sha256_of(path) if path.is_file() else "" for path in files))


def _opened(folder: RunFolder, listener: Listener, *, trust_model: bool, moved: Mapping[str, Any]) -> Inputs:
    """The inputs of a run, once all of them are known to be what the search was started with. Raises RunError."""
    stored = folder.read_request()
    check_origins(SEARCH, stored.get("plugins", {}))
    where = str(folder.request)
    request = SearchRequest.from_table(stored["request"], where, trust_model=trust_model, **moved)
    check_versions(SEARCH, stored.get("versions", {}), versions_of(request))
    check_code(folder.path, request, stored.get("code", {}), moved.keys(), hint=HINT)
    check_same(SEARCH, request, stored["digests"], {"model": model_digest(Path(request.model))}, hint=HINT)
    inputs = open_inputs(request, folder.read_space(), model_of(request), listener, folder=folder.path)
    check_same(SEARCH, request, stored["digests"], inputs.digests(), hint=HINT)
    return inputs
