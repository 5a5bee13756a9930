"""Searches on workers, of which a worker or the owner is stopped or killed at a point of its code, by name.

    python tests/faults/fleet_kills.py MODEL DATA CALIBRATION [--cases N] [--seed S] [--targets T,T]
        [--storages journal,postgresql,mysql] [--points P,P] [--folder DIR] [-- WORDS]

For each target a search is left alone, certification included. Then in each case an owner without trials of its own and
two workers, which meet in the run's folder or in a database, are started, and one of them is sent SIGKILL, SIGTERM or,
a worker, SIGSTOP, and SIGCONT once it was given up, at a point (fleet_points.py): cases go through points and signals
in turn. One that dies is followed by another, an owner by one that resumes. In half of the cases nobody can tell from
outside whether a worker's process lives. The search must come to the same as the one that was left alone, each of its
trials told once; workers must leave because it has ended, and leave nothing behind. All trials must be scored on all
samples, by a metric without bounds, or workers change what they are scored on. A line for each case, then the sums; the
exit code is 1 where one differs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
from databases import mariadb, postgresql
from fleet_points import OF_OWNER, OF_WORKER, be_elsewhere, hasten, striker
from kills import LIMIT, PATIENCE, load, outcome, run, start

OWNER, WORKER = "owner", "worker"
SIGNALS: Mapping[str, Sequence[signal.Signals]] = {
    OWNER: (signal.SIGKILL, signal.SIGTERM),
    WORKER: (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM),
}
ENDS = (0, 1, 3)
"""Exit codes of a search that came to its end."""
OF_JOURNAL, OF_DATABASES = "half of a line written", "half of the files left"
"""Points that are there in a journal, and in databases, alone."""
SILENT = "gave no sign of life"
WORKERS = 2


@dataclass(frozen=True)
class Strike:
    """A signal for an owner or a worker at a point, when it comes there for the so-and-so-manieth time.

    One that was stopped goes on so many seconds after it was given up.
    """

    role: str
    point: str
    number: signal.Signals
    call: int
    elsewhere: bool
    late: float

    def __str__(self) -> str:
        unseen = ", unseen" if self.elsewhere else ""
        return f"{self.number.name} of {self.role} at '{self.point}' ({self.call}){unseen}"


@dataclass
class Process:
    """A process of a case."""

    role: str
    pid: int
    log: Path
    code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""
        if self.code is None:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if done else None
        return self.code

    def text(self) -> str:
        """What it said."""
        return self.log.read_text(errors="replace")


@dataclass
class Case:
    """A search and its workers in a folder, one of which is struck."""

    folder: Path
    search: Sequence[str]
    storage: str
    strike: Strike
    processes: list[Process] = field(default_factory=list)
    study: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def run(self) -> Path:
        """The folder of the run."""
        return self.folder / "run"

    @property
    def claim(self) -> Path:
        """There once a process was struck; says which."""
        return self.folder / "struck"

    def play(self) -> str:
        """Play it; gives what is wrong, if anything."""
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "artifacts").mkdir(parents=True)
        (self.folder / "tmp").mkdir()
        try:
            return next(self._wrong(), "")
        finally:
            for process in self.processes:
                if process.poll() is None:
                    os.kill(process.pid, signal.SIGKILL)
                    os.waitpid(process.pid, 0)

    def told(self) -> list[list[str]]:
        """The numbers of the trials that each owner said to have ended."""
        owners = (process for process in self.processes if process.role == OWNER)
        return [re.findall(r"trial +(\d+):", one.text()) for one in owners]

    def _wrong(self) -> Iterator[str]:
        self._start_owner()
        for _ in range(WORKERS):
            self._start(WORKER, self._worker())
        begin, given_up = time.monotonic(), math.inf
        while (code := self._owner.poll()) not in ENDS:
            if time.monotonic() - begin > LIMIT:
                yield f"hangs: {self._owner.text().splitlines()[-3:]}"
            if code is not None and not self._may_end(self._owner):
                yield f"owner: exit {code}: {self._owner.text().splitlines()[-3:]}"
            if code is not None:
                self._start_owner()
            for process in [one for one in self.processes if one.role == WORKER and one.poll() not in (None, 0)]:
                if not self._may_end(process):
                    yield f"worker: exit {process.code}: {process.text().splitlines()[-3:]}"
                self.processes.remove(process)
                self._start(WORKER, self._worker())
            if given_up == math.inf and SILENT in self._owner.text():
                given_up = time.monotonic() + self.strike.late
            if time.monotonic() > given_up:
                self._go_on()
            time.sleep(PATIENCE)
        self._go_on()
        yield from self._not_left()

    def _go_on(self) -> None:
        """Let the process that was stopped, if any, go on."""
        for process in self.processes:
            if self.strike.number is signal.SIGSTOP and process.role == WORKER and process.poll() is None:
                os.kill(process.pid, signal.SIGCONT)

    def _not_left(self) -> Iterator[str]:
        """What of workers is still there once the search has ended."""
        until = time.monotonic() + 60.0
        for process in self.processes:
            while process.poll() is None and time.monotonic() < until:
                time.sleep(PATIENCE)
            if process.code not in (*ENDS, -signal.SIGKILL, 130):
                yield f"{process.role}: exit {process.code} at the end: {process.text().splitlines()[-3:]}"
            if "Traceback" in process.text():
                yield f"{process.role}: traceback"
        left = [str(path.name) for path in (*self.run.glob(".*-*"), *(self.folder / "tmp").glob(".worker-*"))]
        if left and self.strike.number is not signal.SIGKILL:
            yield f"left behind: {left}"
        numbers = Counter(number for told in self.told() for number in told)
        if twice := [number for number, count in numbers.items() if count > 1]:
            yield f"trials {', '.join(twice)} told more than once"

    @property
    def _owner(self) -> Process:
        return next(process for process in reversed(self.processes) if process.role == OWNER)

    def _may_end(self, process: Process) -> bool:
        """Whether a process ended as it was struck."""
        was_struck = self.claim.exists() and self.claim.read_text() == str(process.pid)
        return was_struck and process.code in (-signal.SIGKILL, 130) and "Traceback" not in process.text()

    def _start_owner(self) -> None:
        if (self.run / "run.toml").exists():
            words = ["resume", str(self.run), "--plain"]
        else:
            words = [*self.search, "--run", str(self.run), "--jobs", "0"]
            if self.storage:
                words += ["--storage", self.storage, "--study", self.study]
                words += ["--artifacts", str(self.folder / "artifacts")]
        self._start(OWNER, words)

    def _worker(self) -> list[str]:
        place = ["--storage", self.storage, "--study", self.study] if self.storage else [str(self.run)]
        return ["worker", *place, "--plain"]

    def _start(self, role: str, words: Sequence[str]) -> None:
        log = self.folder / f"{role}-{len(list(self.folder.glob('*.txt')))}.txt"
        if role == WORKER and not self.storage:
            while not (self.run / "run.toml").exists() and self._owner.poll() is None:
                time.sleep(PATIENCE)

        def before() -> None:
            os.environ["TMPDIR"] = tempfile.tempdir = str(self.folder / "tmp")
            if role == WORKER and self.strike.elsewhere:
                be_elsewhere()
            if role == self.strike.role:
                points = OF_OWNER if role == OWNER else OF_WORKER
                points[self.strike.point].hook(striker(self.strike.number, self.strike.call, self.claim))

        self.processes.append(Process(role, start(words, log, before), log))


def can_reach(point: str, storage: str) -> bool:
    """Whether a search in a kind of storage comes to a point."""
    return point != (OF_DATABASES if storage == "journal" else OF_JOURNAL)


def strikes(draw: random.Random, points: Sequence[str], storages: Sequence[str]) -> Iterator[Strike]:
    """All points with all signals, in an order of its own, again and again."""
    known = [(OWNER, *one) for one in product(OF_OWNER, SIGNALS[OWNER])]
    known += [(WORKER, *one) for one in product(OF_WORKER, SIGNALS[WORKER])]
    known = [one for one in known if not points or one[1] in points]
    known = [one for one in known if any(can_reach(one[1], storage) for storage in storages)]
    while True:
        draw.shuffle(known)
        for role, point, number in known:
            call = draw.randint(1, (OF_OWNER if role == OWNER else OF_WORKER)[point].most)
            yield Strike(role, point, number, call, draw.random() < 0.5, draw.uniform(0.0, 2.0))


def stored(case: Case) -> Mapping[str, int]:
    """The trials in the storage of a search by their state, but for those of plans that were tried before."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    storage: Any = case.storage or JournalStorage(JournalFileBackend(str(case.run / "study.journal")))
    study = optuna.load_study(study_name=case.study if case.storage else "autoquant", storage=storage)
    return Counter("told" if "outcome" in one.user_attrs else one.state.name for one in study.get_trials())


def play_all(given: argparse.Namespace, folder: Path, target: str, storages: Mapping[str, str]) -> Counter[str]:
    """All cases of a target; counts those that came to the same, and others."""
    words = ["search", str(given.model), "--data", str(given.data), "--calibration", str(given.calibration)]
    words += ["--target", target, "--plain", "--sampler", "random", *given.options]
    alone = run([*words, "--run", str(folder / "alone")], folder / "alone.txt")
    if alone.code not in ENDS:
        raise SystemExit("\n".join(alone.lines))
    wanted = outcome(folder / "alone")
    what = f"{len(wanted['trials'])} trials, best {wanted['best']}, {wanted['verdict']}"
    print(f"{target}: alone {what}, in {alone.seconds:.1f}s", flush=True)
    counts, draw = Counter[str](), random.Random(f"{given.seed} {target}")
    for number, strike in zip(range(given.cases), strikes(draw, given.points, given.storages), strict=False):
        able = [name for name in storages if can_reach(strike.point, name)]
        name = able[number % len(able)]
        case = Case(folder / "case", words, storages[name], strike)
        wrong = case.play()
        if not wrong:
            found = outcome(case.run)
            differing = [name for name in found if found[name] != wanted[name]]
            wrong = f"differs in {', '.join(differing)}" if differing else ""
            if not differing and (kept := stored(case))["told"] != len(wanted["trials"]):
                wrong = f"the storage has {json.dumps(kept)}"
        struck = case.claim.exists()
        counts["differ" if wrong else "same"] += 1
        counts["struck"] += struck
        print(f"{target} {number} {name}: {strike}{'' if struck else ', not reached'}: {wrong or 'same'}", flush=True)
        if wrong:
            shutil.copytree(case.folder, folder / f"differs-{number}", symlinks=True, dirs_exist_ok=True)
    return counts


def main() -> int:
    """Read the arguments and play."""
    parser = argparse.ArgumentParser()
    for name in ("model", "data", "calibration"):
        parser.add_argument(name, type=lambda text: Path(text).resolve())
    parser.add_argument("--cases", type=int, default=40, help="of each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", default="litert,tensorflow", type=lambda text: text.split(","))
    parser.add_argument("--storages", default="journal,postgresql", type=lambda text: text.split(","))
    parser.add_argument("--points", default="", type=lambda text: [one for one in text.split(",") if one])
    parser.add_argument("--folder", type=Path)
    words = [*sys.argv[1:], "--"]
    place = words.index("--")
    given = parser.parse_args(words[:place])
    given.options = words[place + 1 : -1]
    load(tensorflow=given.model.suffix != ".tflite" or "tensorflow" in given.targets)
    hasten()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # to end what was started
    total, storages = Counter[str](), dict.fromkeys(given.storages, "")
    with ExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryDirectory())
        if "postgresql" in storages:
            storages["postgresql"] = stack.enter_context(postgresql()).url
        if "mysql" in storages:
            storages["mysql"] = stack.enter_context(mariadb()).url
        for target in given.targets:
            folder = (given.folder or Path(temporary)).resolve() / target
            folder.mkdir(parents=True)
            total += play_all(given, folder, target, storages)
    print(f"{total['struck']} struck, {total['same']} the same, {total['differ']} differ")
    return 1 if total["differ"] else 0


if __name__ == "__main__":
    sys.exit(main())
