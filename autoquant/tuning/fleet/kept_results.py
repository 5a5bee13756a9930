"""Results on the disk of their worker until the owner has heard of them, for another worker that follows one that died.

That one is given the trial as any other is, and then has its result at once: so none is told twice, or told of a trial
that another has carried out.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from autoquant.errors import RunError
from autoquant.files import write_text, writing
from autoquant.formats.codec import decode, encode, json_text
from autoquant.formats.strict import load_object
from autoquant.tuning.fleet.messages import WORKING, Job, Process, job_facts

LOCK = ".lock"
"""The file of a worker's folder that is locked for as long as it lives."""
RESULTS = "result-*.json"
"""The files of a worker's folder that hold results."""
ATTEMPTS = 5
"""So often is a folder made for a worker: one that is starting may take a new one for that of one that died."""
SEARCH, MEMBER, PROCESS, JOB, RESULT = "search", "member", "process", "job", "result"


@dataclass(frozen=True)
class Kept:
    """A result in a file: of a `job`, by a member of the board, which was a `process`."""

    path: Path
    member: int
    process: Process
    job: Mapping[str, Any]
    result: Mapping[str, Any]


class KeptResults:
    """The results in the `folder` of a worker, and in those of others that died before they could tell theirs.

    Each is of a `search`, known by a digest of all that its results come of. `with_files` are those whose trials have
    their files beside them, for the owner to take.
    """

    def __init__(self, folder: Path, search: str, *, with_files: bool = False) -> None:
        self._folder = folder
        self._search = search
        self._with_files = with_files
        self._process = Process.own()
        self._kept: dict[int, Kept] = {}

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of their trials."""
        return tuple(sorted(self._kept))

    @property
    def workers(self) -> Mapping[int, Process]:
        """The members of the board, and processes, that died before they could tell theirs."""
        return {kept.member: kept.process for kept in self._kept.values()}

    @contextmanager
    def those_of_the_dead(self) -> Iterator[None]:
        """Within, results of this search are here too that workers of this machine left beside its own folder."""
        with ExitStack() as stack:
            for other in sorted(self._folder.parent.glob(f"{WORKING}*")):
                lock = _locked(other) if other != self._folder and _is_same_user(other, self._folder) else None
                if lock is None:
                    continue
                with ExitStack() as own:
                    own.enter_context(lock)
                    own.callback(_clear, other)
                    found = [kept for path in other.glob(RESULTS) if (kept := self._read(path)) is not None]
                    for kept in found:
                        self._add(kept)
                    if found:  # else another may have it: it may be of another search
                        stack.push(own.pop_all())
            yield

    def keep(self, job: Job, member: int, result: Mapping[str, Any]) -> None:
        """Keep a result until it is told."""
        number = int(job.trial["number"])
        path = self._folder / RESULTS.replace("*", f"{number:04d}")
        kept = Kept(path, member, self._process, _facts(job), result)
        facts = {SEARCH: self._search, MEMBER: member, PROCESS: encode(self._process)}
        write_text(path, json_text({**facts, JOB: kept.job, RESULT: result}))
        self._add(kept)

    def find(self, job: Job) -> Mapping[str, Any] | None:
        """The result of a job, its files in the own folder; None where none is here, or it is of other rules."""
        number = int(job.trial["number"])
        kept = self._kept.get(number)
        if kept is None:
            return None
        there, here = _files(kept.path.parent, kept.job), _files(self._folder, kept.job)
        if kept.job != _facts(job) or (self._with_files and not there.is_dir()):
            self.drop(number)
            return None
        if self._with_files and there != here:
            shutil.rmtree(here, ignore_errors=True)
            with writing(here):
                there.replace(here)
        return kept.result

    def drop(self, number: int) -> None:
        """Keep the result of a trial, if there is one, no more."""
        kept = self._kept.pop(number, None)
        if kept is not None:
            kept.path.unlink(missing_ok=True)

    def _add(self, kept: Kept) -> None:
        number = int(kept.job["trial"]["number"])
        if number in self._kept and self._kept[number].path != kept.path:
            self.drop(number)
        self._kept[number] = kept

    def _read(self, path: Path) -> Kept | None:
        """A result of this search, as this machine makes them; None where a file is none, or of another version."""
        with suppress(RunError, KeyError, TypeError, ValueError):
            found = load_object(path, RunError, hint="leave it")
            process, own = decode(Process, found.sub(PROCESS)), self._process
            if found.raw(SEARCH) == self._search and (process.host, process.cpu) == (own.host, own.cpu):
                job, result = found.sub(JOB).rest(), found.sub(RESULT).rest()
                _files(path.parent, job)  # which says whether it has a number
                return Kept(path, int(found.raw(MEMBER)), process, job, result)
        return None


@contextmanager
def working_folder(parent: Path | None) -> Iterator[Path]:
    """A folder for a worker, in one for temporary files or in another; in the end only results stay that were not told.

    Raises RunError where there can be none.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    for _ in range(ATTEMPTS):
        with writing(parent):
            folder = Path(tempfile.mkdtemp(prefix=WORKING, dir=parent))
        lock = _locked(folder)
        if lock is not None:
            break
        shutil.rmtree(folder, ignore_errors=True)
    else:
        hint = "give the worker its model, data and --storage instead of the run; or set TMPDIR to another disk"
        raise RunError(str(parent), "is on a file system without locks", hint=hint)
    with lock:
        try:
            yield folder
        finally:
            _clear(folder)


def remove_of_dead(folder: Path, *, results_too: bool) -> None:
    """Remove the folder of a worker if that is dead, but not where there are results, unless these too."""
    lock = _locked(folder)
    if lock is not None:
        with lock:
            if results_too or not any(folder.glob(RESULTS)):
                shutil.rmtree(folder, ignore_errors=True)


def _locked(folder: Path) -> IO[str] | None:
    """The lock of a worker's folder, which goes with the process; None where another has it.

    Without locks, as on Windows, one that is there already is another's.
    """
    is_new = not (folder / LOCK).exists()
    try:
        file = (folder / LOCK).open("a")
    except OSError:
        return None
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_ours = os.path.samestat(os.fstat(file.fileno()), (folder / LOCK).stat())
    except ImportError:
        is_ours = is_new
    except OSError:
        is_ours = False
    if is_ours:
        return file
    file.close()
    return None


def _is_same_user(one: Path, other: Path) -> bool:
    """Whether two folders are of one user: anybody can make some among temporary files."""
    with suppress(OSError):
        return one.stat().st_uid == other.stat().st_uid
    return False


def _clear(folder: Path) -> None:
    """Remove the folder of a worker, but for results and the files of their trials."""
    wanted = {LOCK}
    for path in folder.glob(RESULTS):
        wanted |= {path.name, path.stem.partition("-")[2]}
    for path in folder.iterdir() if len(wanted) > 1 else ():
        if path.name in wanted:
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if len(wanted) == 1:
        shutil.rmtree(folder, ignore_errors=True)


def _files(folder: Path, job: Mapping[str, Any]) -> Path:
    """The folder of the files of a job's trial in that of its worker."""
    return folder / f"{job['trial']['number']:04d}"


def _facts(job: Job) -> dict[str, Any]:
    """All of a job that its result comes of."""
    return {key: value for key, value in job_facts(job).items() if key not in ("name", "closest")}
