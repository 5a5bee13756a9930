"""The folder of a run: the paths in it, and the operations that never leave it half done.

run.toml  space.toml  study.journal  holdout_log.json  result.json
model/         the model, where it was given in memory
float/         the float model, where that is shipped (--min-speedup)
report.html    made of overview.json, pictures.npz, phases.json and what the trials have
baseline.npz  splits.npz  statistics.npz  statistics-equalized.npz  operators.npz
corrections/   weights rounded by gptq, bias corrections, what was trained, and what they are computed from
trials/0007/   config.json record.txt score.json [model, its quant.json] [certificate.json] [changes.json]
best -> trials/0007
workers.journal  workers.log   what owner and workers tell each other, and what workers of this machine write
superseded/    trials that were scored again, as the metric or the calibration changed, with their journal
study.journal.damaged   what a journal that was damaged was, before it was written again
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from typing import Any

from autoquant.cache import digest_of
from autoquant.errors import RunError, SpaceError
from autoquant.files import write_text, writing
from autoquant.formats.space_toml import SpaceFile, load_space, parse_space
from autoquant.tuning.study.run_toml import read_run_toml, toml_text

LOCK = ".lock"
CONFIG, RECORD = "config.json", "record.txt"
CERTIFICATE = "certificate.json"
CHANGES = "changes.json"
"""Which samples the best trial changed: there for that alone, as its model is."""
TEMPORARY = ".temporary-"
"""The prefix of folders that are removed again, also where the process that made them died."""


class RunFolder:
    """The paths of a run, and operations on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.request = path / "run.toml"
        self.model = path / "model"
        self.space = path / "space.toml"
        self.journal = path / "study.journal"
        self.workers = path / "workers.journal"
        self.baseline = path / "baseline.npz"
        self.splits = path / "splits.npz"
        self.statistics = path / "statistics.npz"
        self.statistics_equalized = path / "statistics-equalized.npz"
        self.corrections = path / "corrections"
        self.operators = path / "operators.npz"
        self.holdout_log = path / "holdout_log.json"
        self.result = path / "result.json"
        self.overview = path / "overview.json"
        self.pictures = path / "pictures.npz"
        self.phases = path / "phases.json"
        self.shipped_float = path / "float"
        self.report = path / "report.html"
        self.best = path / "best"
        self._is_run = False  # once run.toml was read or written
        self._with_model: set[Path] | None = None  # the folders of trials that may have one, where that is known

    def refuse_existing(self) -> None:
        """Raise RunError where a new run would meet anything."""
        if (self.path.exists() or self.path.is_symlink()) and not _is_empty_folder(self.path):
            hint = f"`autoquant resume {self.path}` goes on with it; or choose another --run"
            raise RunError(str(self.path), "exists already", hint=hint)

    def create(self) -> bool:
        """Make the folder; returns whether it was not there before. Raises RunError."""
        before = self.path.is_dir()
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        return not before

    def remove_files_of_start(self, *, folder_too: bool) -> None:
        """Remove what a search wrote before its first trial."""
        caches = (self.baseline, self.splits, self.statistics, self.statistics_equalized, self.operators)
        told = (self.overview, self.phases, self.report)
        measured = (file for name in ("between", "together") for file in self.path.glob(f"{name}-*.npz"))
        for file in (self.request, self.space, *told, *caches, *measured, self.path / LOCK):
            with suppress(OSError):
                file.unlink()
        shutil.rmtree(self.corrections, ignore_errors=True)
        shutil.rmtree(self.model, ignore_errors=True)
        if folder_too:
            with suppress(OSError):
                self.path.rmdir()

    def require_run(self) -> None:
        """Raise RunError when there is no run in the folder, or when links lead out of it."""
        if not self.request.is_file():
            raise RunError(str(self.path), "is not a run: it has no run.toml", hint="give the folder that --run named")
        self.check_links()

    def check_links(self) -> None:
        """Raise RunError where something in it is a link to elsewhere: files there would be written, or deleted."""
        inside = self.path.resolve()
        parts = (self.path / "trials", self.corrections, self.shipped_float)
        for entry in (*parts, *(entry for part in parts for entry in part.glob("*")), *self.path.iterdir()):
            if entry.is_symlink() and not entry.resolve().is_relative_to(inside):
                what = f"is a link that leads out of the run, to {entry.readlink()}"
                raise RunError(str(entry), what, hint="autoquant makes no such link: remove it, if you know the run")

    def trial(self, number: int) -> Path:
        """The folder of a trial."""
        return self.path / "trials" / f"{number:04d}"

    def trials(self) -> dict[int, Path]:
        """The folders of trials by number, also of those that did not end."""
        found = {path for path in self.path.glob("trials/[0-9]*") if path.is_dir() and path.name.isdecimal()}
        return {int(path.name): path for path in sorted(found)}

    @property
    def begun(self) -> bool:
        """Whether there have been trials, or are about to be."""
        return self.journal.exists() or any(self.trials())

    def make_trial(self, number: int) -> Path:
        """Make the folder of a trial, empty even if a process that died left something there.

        Raises RunError where the run is there no more.
        """
        folder = self.trial(number)
        if self._is_run and not self.request.exists():
            raise RunError(str(self.path), "was deleted while the search ran", hint="start a new run")
        with writing(folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        if self._with_model is not None:
            self._with_model.add(folder)
        return folder

    def is_best(self, number: int) -> bool:
        """Whether `best` points at this trial."""
        return self.best.is_symlink() and self.best.readlink() == Path("trials") / f"{number:04d}"

    def point_best(self, number: int) -> None:
        """Point `best` at this trial, atomically."""
        target = Path("trials") / f"{number:04d}"
        if self.is_best(number):
            return
        temporary = self.path / ".best.tmp"
        with writing(self.best):
            temporary.unlink(missing_ok=True)
            if self.best.is_dir() and not self.best.is_symlink():  # what a copy makes that follows links
                shutil.rmtree(self.best)
            temporary.symlink_to(target, target_is_directory=True)
            temporary.replace(self.best)

    def delete_models(self, names: Sequence[str], *, keep: Collection[int]) -> None:
        """Remove the files of the models of all trials but some; `names` are those of one model, its own first.

        All folders are looked into once, then those of trials made since.
        """
        if self._with_model is None:
            self._with_model = {found.parent for found in self.path.glob(f"trials/[0-9]*/{glob.escape(names[0])}")}
        kept = {self.trial(number) for number in keep}
        for folder in sorted(self._with_model - kept):
            for name in reversed(names):  # itself last: the others are found by it
                (folder / name).unlink(missing_ok=True)
        self._with_model = kept

    def adopt_model(self, file: Path) -> Path:
        """Move a model into the run, which then can go on without whoever had it. Raises RunError."""
        with writing(self.model):
            self.model.mkdir()
            return Path(shutil.move(file, self.model / file.name))

    def write_request(self, table: Mapping[str, Mapping[str, Any]]) -> None:
        """Write run.toml; a model inside the run is named from there, so that the folder can be moved."""
        model = Path(table["request"]["model"])
        if model.is_relative_to(self.model.resolve()):
            request = {**table["request"], "model": model.relative_to(self.path.resolve()).as_posix()}
            table = {**table, "request": request}
        write_text(self.request, toml_text(table))
        self._is_run = True

    def read_request(self) -> dict[str, dict[str, Any]]:
        """Read run.toml. Raises RunError when it is damaged."""
        tables = read_run_toml(self.request)
        own = self.path / tables["request"]["model"]
        if Path(tables["request"]["model"]).parts[:1] == (self.model.name,) and own.exists():
            tables["request"]["model"] = str(own.resolve())
        self._is_run = True
        return tables

    def identity(self) -> str:
        """What the study of this run is known by in a database; empty where it has none there."""
        return str(self.read_request().get("study", {}).get("id", ""))

    def read_space(self) -> SpaceFile:
        """Read space.toml, as the run was started with it; where it is lost, from the preset or file that it was.

        Raises RunError.
        """
        tables = self.read_request()
        wanted, named = tables["digests"].get("space"), tables["request"].get("space")
        try:
            found = parse_space(self.space.read_text(encoding="utf-8"), str(self.space))
            if wanted in (None, digest_of(found.text)):
                return found
            what = "is not what the run was started with"
        except (OSError, UnicodeDecodeError, SpaceError) as error:
            what = f"cannot be read ({error})"
        with suppress(SpaceError):
            origin = load_space(named or "")
            if wanted == digest_of(origin.text):
                write_text(self.space, origin.text)
                return origin
        raise RunError(str(self.space), what, hint="put it back, or start a new run") from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes of this machine out of the run. Raises RunError when one is in it.

        The lock goes with the process, however that ends.
        """
        try:
            import fcntl
        except ImportError:  # not on Windows: there nobody is kept out
            yield
            return
        with writing(self.path):
            file = (self.path / LOCK).open("w")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(str(self.path), "another process is working on it", hint="wait for it") from None
            except OSError as error:
                what = (
                    f"is on a file system without locks ({error.strerror}), so that nothing keeps another process out"
                )
                raise RunError(str(self.path), what, hint="choose another folder for --run") from None
            self._mend()
            yield

    def is_locked(self) -> bool:
        """Whether a process of this machine works on the run; False where nobody can tell."""
        try:
            import fcntl

            with (self.path / LOCK).open("r") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except (ImportError, OSError):
            return False
        return False

    def _mend(self) -> None:
        """Remove what a killed process leaves: half-written files, and its lock on the journal."""
        for file in (*self.path.glob(".*.tmp"), Path(f"{self.journal}.lock")):
            with suppress(FileNotFoundError):
                file.unlink()
        for folder in self.path.glob(f"{TEMPORARY}*"):
            shutil.rmtree(folder, ignore_errors=True)


def default_run(model: str | Path) -> Path:
    """A folder for a run that no other process chooses, nor this one in the same second."""
    name = f"{Path(model).stem}-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(folder for folder in (Path("runs") / name for name in names) if not folder.exists())


def _is_empty_folder(path: Path) -> bool:
    """Whether there is nothing in it but the files of a search that died before there was a run."""
    started = {LOCK, "space.toml"}
    return path.is_dir() and all(file.name in started or file.match(".*.tmp") for file in path.iterdir())
