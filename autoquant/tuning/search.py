"""A search from beginning to end: prepare, run trials, finalize, certify, report."""

from __future__ import annotations

import math
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from autoquant.cache import digest_of
from autoquant.errors import (
    AutoquantError,
    BudgetError,
    DataError,
    OutOfTime,
    RunError,
    StopSearch,
    StorageError,
    UsageError,
)
from autoquant.evaluation.data.splits import known_units
from autoquant.files import unwritable, write_text
from autoquant.formats.space_toml import load_space
from autoquant.model.open import model_digest
from autoquant.tuning.certification.certificate import read_holdout_log
from autoquant.tuning.certify import certify
from autoquant.tuning.device_check import add_device_check
from autoquant.tuning.events import OPENING, Event, Finished, Listener, Warned, reporter
from autoquant.tuning.finalize import add_costly_layers, add_latency, add_lost_samples, finalize, verify
from autoquant.tuning.fleet.crew import CrewCall
from autoquant.tuning.inputs import Inputs, model_of, open_inputs
from autoquant.tuning.isolation import IsolatedWorker
from autoquant.tuning.overview import OverviewFile
from autoquant.tuning.pictures import keep_pictures
from autoquant.tuning.prepare import prepare
from autoquant.tuning.restore import restore_best
from autoquant.tuning.result import Ended, SearchResult, result_text
from autoquant.tuning.session import Clock, PhaseTimes, SearchSession, TimeLimit
from autoquant.tuning.ship import choose_shipped
from autoquant.tuning.study.artifacts import Artifacts
from autoquant.tuning.study.choices import check_known
from autoquant.tuning.study.code import check_code, code_digests
from autoquant.tuning.study.identity import check_same, versions_of
from autoquant.tuning.study.origins import check_origins, origins_of
from autoquant.tuning.study.request import ACCEPTABLE, STORAGE, SearchRequest
from autoquant.tuning.study.run_folder import RunFolder, default_run
from autoquant.tuning.study.stores import check_moved, refuse_existing_study
from autoquant.tuning.study.supersede import supersede
from autoquant.tuning.study.workload import MULTIPLY_ADDS
from autoquant.tuning.trials import run_trials

STEPS = (add_lost_samples, add_costly_layers, add_latency, verify, add_device_check, certify, choose_shipped)
"""What follows once the result is known, in order: an interruption ends it, and the result stands."""
STOPPED_EARLY = "its listener stopped it before there was a result"
OTHER_VERSIONS = "the run was started with other versions of its libraries: scores may differ a little"


def start_search(
    request: SearchRequest, run: str | Path | None, listener: Listener, clock: Clock, *, adopt_model: bool = False
) -> SearchResult:
    """Search in a new folder, by default `default_run`.

    Raises InputError; a folder in which nothing was computed yet is removed again.
    With `adopt_model` the file of the model is moved into the folder.
    """
    limit = TimeLimit(clock, clock(), request.timeout)
    listen = PhaseTimes(listener, limit)
    run = default_run(request.model) if run is None else Path(run)
    folder = RunFolder(run)
    folder.refuse_existing()
    request.check_named()
    if request.storage:
        if adopt_model:
            hint = "save it, and give the path of its file"
            raise UsageError(
                "--storage", "is for workers of other machines, which a model in memory cannot reach", hint=hint
            )
        request = replace(request, study=request.study or run.name)
        refuse_existing_study(request.storage, request.study)
    if request.artifacts:
        Artifacts(request.artifacts, request.study).make()
    space = load_space(request.space)
    code = code_digests(request)
    try:
        with limit.enforced():
            reporter(listen, OPENING)
            inputs = open_inputs(request, space, model_of(request), listen, folder=run)
            # All data is read for its digest, which takes long: only then is there a folder, and a run to go on with.
            digests = {**inputs.digests(), "space": digest_of(inputs.space_file.text)}
            limit.check()
    except OutOfTime:
        raise listen.no_trial(str(run), "search again with a longer one: nothing is left of this") from None
    except StopSearch:
        raise BudgetError(str(run), STOPPED_EARLY, hint="search again: nothing is left of this") from None
    made = folder.create()
    with folder.locked():
        folder.refuse_existing()  # once more: another process may have been as quick
        try:
            if adopt_model:
                inputs = replace(inputs, request=replace(request, model=folder.adopt_model(Path(request.model))))
            write_text(folder.space, inputs.space_file.text)
            asked = inputs.request
            table = {"request": asked.as_table(), "digests": digests, "versions": versions_of(asked), "code": code}
            if asked.storage:
                table["study"] = {"id": uuid.uuid4().hex}
            if origins := origins_of(asked, space):
                table["plugins"] = origins
            if inputs.source.notes:
                table["model"] = {"notes": list(inputs.source.notes)}
            folder.write_request(table)
            return _search(inputs, folder, listen, limit)
        except BudgetError:
            raise
        except AutoquantError:
            if not folder.begun:
                folder.remove_files_of_start(folder_too=made)
            raise


def resume_search(
    run: Path, listener: Listener, clock: Clock, *, accept_changed: Collection[str] = (), **changed: Any
) -> SearchResult:
    """Go on with a run, nothing finished lost.

    `changed` are fields of the request given anew: the budget, what was in memory, and new places of model, data,
    metric and study. `accept_changed` names what may be another one: all trials are scored again then. Raises
    UsageError for others, RunError when model, data, metric or study are not those of the run.
    """
    begin = clock()
    for what in accept_changed:
        check_known("--accept-changed", what, ACCEPTABLE)
    folder = RunFolder(run)
    folder.require_run()
    with folder.locked():
        stored = folder.read_request()
        check_origins(str(folder.request), stored.get("plugins", {}), accepted=accept_changed)
        _check_storage(folder, stored["request"], changed, accept_changed)
        request = SearchRequest.from_table(stored["request"], str(folder.request), **changed)
        limit = TimeLimit(clock, begin, request.timeout)
        listen = PhaseTimes(listener, limit)
        check_code(run, request, stored.get("code", {}), changed, accepted=accept_changed)
        # Before it is opened: a stranger's model may run what it brings, and another model's data would not even fit.
        check_same(run, request, stored["digests"], {"model": model_digest(Path(request.model))})
        reporter(listen, OPENING)
        model = model_of(request)
        digests = dict(stored["digests"])
        inputs = open_inputs(request, folder.read_space(), model, listen, folder=run)
        found = inputs.digests()
        other = [what for what in accept_changed if digests[what] != found[what]]
        digests.update({what: found[what] for what in other})
        check_same(run, request, digests, found)
        warnings = [] if stored.get("versions") == versions_of(request) else [OTHER_VERSIONS]
        if other:
            again = supersede(folder)
            warnings.append(f"the {' and the '.join(other)} changed: {again} trials are scored again")
        # The budget stays, if this is cut off too.
        code = code_digests(request)
        tables = {**stored, "request": request.as_table(), "digests": digests, "code": code}
        if origins := origins_of(request, inputs.space_file):
            tables["plugins"] = origins
        folder.write_request(tables)
        return _search(inputs, folder, listen, limit, warnings)


def _check_storage(
    folder: RunFolder, asked: Mapping[str, Any], changed: Mapping[str, Any], accept_changed: Collection[str]
) -> None:
    """Raise UsageError, RunError, StorageError where the study of a run cannot be gone on with as is asked."""
    if STORAGE in changed:
        check_moved(folder, asked, changed[STORAGE])
    if accept_changed and asked.get(STORAGE):
        what = "scores trials again in the journal of a run, and this one has its study in a storage"
        raise UsageError("--accept-changed", what, hint="start a new run")


def _search(
    inputs: Inputs,
    folder: RunFolder,
    phases: PhaseTimes,
    limit: TimeLimit,
    known: Iterable[str] = (),
) -> SearchResult:
    """Tell the story; `known` are warnings to begin with."""
    warnings: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Warned):
            warnings.append(event.text)
        phases(event)

    for text in (*known, *_warnings(inputs)):
        listen(Warned(text))
    try:
        read_holdout_log(folder)  # so that damage is reported before hours are spent
        trusted = inputs.request.trust_model
        isolated = IsolatedWorker(folder.path, limit, trust_model=trusted) if inputs.request.isolate else None
        with CrewCall(inputs.request, folder, listen, limit.clock) as call:
            with limit.enforced(not folder.begun):  # of trials that there are, there is a result
                session = prepare(inputs, folder, listen, limit, isolated, call.crew)
                overview = OverviewFile(session, session.study.best)
                session = replace(session, listener=overview)
            restore_best(session)
            ended = run_trials(session, lambda: call.come(session.builder, session.scorer))
            if ended is Ended.TIMEOUT and not session.study.trials():
                raise OutOfTime
            result = _finalized(session, overview, ended)
            if result.ended is not Ended.INTERRUPTED:
                call.end(result.ended, result.best)
    except OutOfTime:
        longer = f"--timeout {max(math.ceil(2 * limit.used()), 1)}s"
        hint = f"`autoquant resume {folder.path} {longer}` goes on with what is done"
        raise phases.no_trial(str(folder.path), hint) from None
    except StopSearch:
        hint = f"`autoquant resume {folder.path}` goes on with what is done"
        raise BudgetError(str(folder.path), STOPPED_EARLY, hint=hint) from None
    except OSError as error:  # the study's journal, mostly: all else says so itself
        raise _resumable(unwritable(Path(error.filename or folder.path), error), folder) from error
    except (RunError, DataError, StorageError) as error:
        raise _resumable(error, folder) from error
    plugins = tuple(line for lines in origins_of(inputs.request, inputs.space_file).values() for line in lines)
    ended = Ended.STOPPED if result.ended is Ended.INTERRUPTED and phases.stopped else result.ended
    facts: dict[str, Any] = {"warnings": tuple(warnings), "seconds": session.limit.used(), "plugins": plugins}
    result = replace(result, ended=ended, **facts)
    try:
        write_text(folder.result, result_text(result))
    except RunError as error:  # the verdict is known, and is reported all the same
        phases(Warned(str(error)))
    phases(Finished(result))
    return result


def _finalized(session: SearchSession, overview: OverviewFile, ended: Ended) -> SearchResult:
    """The result of the trials, certified and all; of an interrupted search it is what is known by then."""
    result = finalize(session, ended)
    try:
        if result.ended is not Ended.INTERRUPTED:
            overview.keep(result.best)  # which may be another one, scored on everything at last
            keep_pictures(session)
            for step in STEPS:
                result = step(session, result)
    except KeyboardInterrupt:
        result = replace(result, ended=Ended.INTERRUPTED)
    if result.ended is Ended.INTERRUPTED:
        result = certify(session, result)  # by what is known of it: the holdout is not used any more
    return result


def _resumable(error: AutoquantError, folder: RunFolder) -> AutoquantError:
    """The same error; once there are trials the way out is to go on with them."""
    if not folder.begun:
        return error
    hint = f"{error.hint or 'fix that'}; finished trials are kept, and `autoquant resume {folder.path}` goes on"
    return type(error)(error.where, error.what, hint=hint)


def _warnings(inputs: Inputs) -> Iterator[str]:
    """What the user should know before the search begins."""
    yield from inputs.source.notes
    if inputs.workload.unit != MULTIPLY_ADDS:
        yield f"multiply-adds are not known for every layer: shares are of {inputs.workload.unit} instead"
    if inputs.model.front is not None:
        made = ", ".join(inputs.model.front.graph.outputs)
        given = ", ".join(inputs.model.front.graph.inputs)
        what = "LiteRT cannot run what is in front of the layers: the model takes"
        yield f"{what} {made}, which a graph of TensorFlow makes of {given}"
    if dropped := inputs.splits.dropped:
        data = inputs.splits.calibration
        total = len(data) + dropped
        yield f"{data.name}: {dropped:,} of {total:,} calibration samples left out: evaluation has them too"
    unit = inputs.request.unit
    if unit and known_units(inputs.splits.calibration, unit) is None:
        yield f"{inputs.splits.calibration.name}: names no '{unit}', so its units may be among those that are evaluated"
    if inputs.request.allow_overlap:
        yield "calibration and search may share samples: these flatter the score, and certify nothing"
