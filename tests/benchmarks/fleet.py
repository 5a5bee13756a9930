"""What workers gain, and what the storage costs: trials that sleep, in processes that load no TensorFlow.

    python tests/benchmarks/fleet.py [--workers 1,2,4,8] [--seconds 1.0] [--trials 8] [--sampler guided]
        [--storage journal,postgresql] [--layers 40]

Each number of workers carries out so many trials a worker. Printed are the speed-up over one process that sleeps as
long (`ideal` is the number of workers), the CPU milliseconds of the owner and of the workers a trial, and, of a
database, statements and commits a trial, those of waiting included. PostgreSQL is started for it on loopback.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from databases import postgresql
from fake_search import MAX_DROP, FakeBuilder, FakeScorer, Formula, fake_session, search_problem
from optuna.storages import RDBStorage

from autoquant.calibration.plan import Plan
from autoquant.evaluation.metrics.metric import OnProgress
from autoquant.evaluation.scoring.stopping import SequentialScore, StoppingRules
from autoquant.quiet import no_progress
from autoquant.targets.base import OnStep
from autoquant.tuning.builder import Builder
from autoquant.tuning.fleet.crew import Crew
from autoquant.tuning.fleet.dispatch import run_on_workers
from autoquant.tuning.fleet.kept_results import KeptResults
from autoquant.tuning.fleet.left_files import LeftFiles
from autoquant.tuning.fleet.messages import Process, WorkerFacts
from autoquant.tuning.fleet.owner import Fleet
from autoquant.tuning.fleet.storages import Meeting, meet_in_database, meet_in_folder
from autoquant.tuning.fleet.work import AtWork, Joined
from autoquant.tuning.session import TimeLimit
from autoquant.tuning.study.run_folder import RunFolder
from autoquant.tuning.study.stores import database_store
from autoquant.tuning.study.study import Study
from autoquant.tuning.study.workload import Macs
from autoquant.tuning.worker import LocalWorker

STORAGES = ("journal", "postgresql")


@dataclass(frozen=True)
class Spent:
    """Of a search: seconds, trials carried out and numbers taken, CPU seconds, statements and commits of the owner."""

    seconds: float
    trials: int
    numbers: int
    owner: float
    workers: float
    statements: int = 0
    commits: int = 0


@dataclass
class Sleeping(FakeScorer):
    """Sleeps before it scores."""

    seconds: float = 0.0

    def score(self, path: Path, rules: StoppingRules, on_step: OnStep, on_progress: OnProgress) -> SequentialScore:
        time.sleep(self.seconds)
        return super().score(path, rules, on_step, on_progress)


@dataclass
class SleepingCrew:
    """What the search asks of its crew."""

    fleet: Fleet
    left: LeftFiles = field(default_factory=lambda: LeftFiles(None, no_progress))

    def check(self) -> None:
        """The process is the owner."""

    def provide(self, plan: Plan) -> None:
        """Sleeping needs nothing."""


def meeting_of(folder: Path, url: str, study: str) -> Meeting:
    return meet_in_database(url, study) if url else meet_in_folder(RunFolder(folder))


def work(folder: Path, url: str, study: str, layers: int, seconds: float, cpu: Any) -> None:
    """A worker's process."""
    problem = search_problem(layers)
    workload = cast(Macs, problem.objective).workload
    builder = FakeBuilder(workload)
    scorer = Sleeping(builder, Formula(workload), seconds)
    with closing(meeting_of(folder, url, study)) as meeting, tempfile.TemporaryDirectory() as own:
        local = LocalWorker(cast(Builder, builder), scorer, time.monotonic)
        joined = Joined(
            meeting.board, WorkerFacts(Process.own()), local, problem.space, Path(own), KeptResults(Path(own), study)
        )
        begin = time.process_time()
        AtWork(joined, no_progress).run()
        cpu.put(time.process_time() - begin)


def searched(
    workers: int, trials: int, *, seconds: float, layers: int, sampler: str = "guided", url: str = ""
) -> Spent:
    """A search with so many workers and trials, on the journal of its folder or in a database."""
    study, context = uuid.uuid4().hex, multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, problem = Path(name), search_problem(layers)
        meeting = stack.enter_context(closing(meeting_of(folder, url, study)))
        cpu = context.Queue()
        arguments = (folder, url, study, layers, seconds, cpu)
        processes = [context.Process(target=work, args=arguments, daemon=True) for _ in range(workers)]
        for process in processes:
            process.start()
        session = fake_session(folder, problem, sampler, trials=trials)
        if url:
            store = database_store(meeting.storage, study, ended={}, count=0)
            study_of_it = Study(store, problem.space, session.study._sampler, max_drop=MAX_DROP, starts=[])
            session = replace(session, study=study_of_it)
        session = replace(session, limit=TimeLimit(time.monotonic, time.monotonic()))
        fleet = Fleet(meeting.board, 0, no_progress, time.monotonic)
        while len(fleet.workers) < workers:
            time.sleep(0.1)
            fleet.look()
        count = stack.enter_context(counted(meeting)) if url else lambda: (0, 0)
        begin, own = time.perf_counter(), time.process_time()
        run_on_workers(session, cast(Crew, SleepingCrew(fleet)))
        spent, own = time.perf_counter() - begin, time.process_time() - own
        statements, commits = count()
        numbers = len(session.study._stored.every())
        fleet.look()
        fleet.close("it is enough")
        used = sum(cpu.get(timeout=60) for _ in processes)
        for process in processes:
            process.join()
        return Spent(spent, len(session.study), numbers, own, used, statements, commits)


@contextmanager
def counted(meeting: Meeting) -> Iterator[Callable[[], tuple[int, int]]]:
    """Counts the statements and the commits of this process within."""
    from sqlalchemy import event

    engine = cast(RDBStorage, cast(Any, meeting.storage)._storage._backend).engine
    found = {"before_cursor_execute": 0, "commit": 0}

    def counter(name: str) -> Callable[..., None]:
        def hear(*_: Any) -> None:
            found[name] += 1

        return hear

    hearing = {name: counter(name) for name in found}
    for name, hear in hearing.items():
        event.listen(engine, name, hear)
    try:
        yield lambda: (found["before_cursor_execute"], found["commit"])
    finally:
        for name, hear in hearing.items():
            event.remove(engine, name, hear)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="1,2,4,8")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--layers", type=int, default=40)
    parser.add_argument("--sampler", default="guided")
    parser.add_argument("--storage", default=",".join(STORAGES))
    args = parser.parse_args(argv)
    print(f"{args.sampler}, {args.layers} layers, trials of {args.seconds:g} s, {args.trials} a worker")
    columns = (
        "storage",
        "workers",
        "speed-up",
        "of ideal",
        "repeated",
        "owner ms",
        "worker ms",
        "statements",
        "commits",
    )
    print("  ".join(f"{name:>10}" for name in columns))
    for storage in args.storage.split(","):
        with ExitStack() as stack:
            url = stack.enter_context(postgresql()).url if storage == "postgresql" else ""
            for workers in map(int, args.workers.split(",")):
                found = searched(
                    workers,
                    workers * args.trials,
                    seconds=args.seconds,
                    layers=args.layers,
                    sampler=args.sampler,
                    url=url,
                )
                speed = found.trials * args.seconds / found.seconds
                a_trial = [1e3 * found.owner, 1e3 * found.workers, found.statements, found.commits]
                cells = [storage, workers, f"{speed:.2f}", f"{speed / workers:.3f}", found.numbers - found.trials]
                cells += [f"{one / found.trials:.1f}" for one in a_trial]
                print("  ".join(f"{cell:>10}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
