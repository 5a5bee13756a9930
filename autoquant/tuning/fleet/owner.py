"""The owner's side of a fleet: which workers are there, what they carry out, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from autoquant.evaluation.scoring.stopping import StoppingRules
from autoquant.tuning.events import Listener, Warned, WorkerHere, WorkersSeen
from autoquant.tuning.fleet.board import PERIOD, WORKER, Board, Dismissed, Member
from autoquant.tuning.fleet.messages import (
    END,
    JOB,
    REFUSED,
    RESULT,
    Job,
    Result,
    WorkerFacts,
    job_facts,
    last_words,
    read_result,
    read_worker,
)
from autoquant.tuning.study.study import ATTEMPTS
from autoquant.tuning.study.trial import State, Trial, sent_facts
from autoquant.tuning.worker import failed

GRACE = 90.0
"""Seconds without a sign of life after which a worker is taken to be dead: a converter may keep all threads waiting."""
PAUSE = 3 * PERIOD
"""Seconds between two looks at the board after which nobody is blamed for silence: it was not listened to."""
SICK = 3
"""So many trials fail on a machine on which none ever ended well, before it is sent away."""


@dataclass
class Worker:
    """A worker on the board, by `member`, and the trial that it carries out, if any, as its `job`.

    `heard` is when it gave its last sign of life. Of a trial that an owner `before` gave it number and point are there
    until it gets another. So many trials `ended` well there, and so many failed before the first.
    """

    member: int
    number: int
    facts: WorkerFacts
    heard: float
    beat: int = 0
    doing: str = ""
    trial: int | None = None
    job: str = ""
    before: tuple[int, Mapping[str, Any]] | None = None
    ended: int = 0
    failures: int = 0

    @property
    def host(self) -> str:
        """The machine that it is on."""
        return self.facts.process.host

    def __str__(self) -> str:
        return f"worker {self.number} on {self.facts.process}"


@dataclass(frozen=True)
class Task:
    """A trial with what its worker must know, the machines where it failed, and how many workers died of it."""

    trial: Trial
    rules: StoppingRules
    seconds: float | None
    closest: float | None
    failed_on: frozenset[str] = frozenset()
    deaths: int = 0


@dataclass(frozen=True)
class Ended:
    """A trial as it ended, what its worker said of itself, None where workers died of it, and which files it left."""

    trial: Trial
    worker: WorkerFacts | None = None
    files: Mapping[str, str] = field(default_factory=dict)


class Fleet:
    """Gives trials to workers and gathers what became of them.

    A trial whose worker left, or is silent for `grace` seconds by the clock of this process, is given to another; one
    that ATTEMPTS workers died of has failed. What a worker says that was dismissed is not heard. A trial that fails on
    a machine on which none has ended well yet is carried out once more on another machine, where there is one, and a
    machine on which SICK have failed so is sent away. Where a worker already has a trial, from an `owner` before this
    one, that goes on. `away` counts how often the storage was not there.
    """

    def __init__(
        self,
        board: Board,
        owner: int,
        listener: Listener,
        clock: Callable[[], float],
        *,
        away: Callable[[], int] = lambda: 0,
        grace: float = GRACE,
    ) -> None:
        self._board = board
        self._owner = owner
        self._listener = listener
        self._clock = clock
        self._away = away
        self._grace = grace
        self._looked, self._seen_away = clock(), away()
        self._workers: dict[int, Worker] = {}
        self._tasks: dict[int, Task] = {}
        self._waiting: list[int] = []
        self._sick: dict[str, str] = {}
        self._refused: set[int] = set()
        self._told: list[Ended] = []
        self._jobs = 0
        self._shown: tuple[WorkerHere, ...] = ()

    @property
    def workers(self) -> Sequence[Worker]:
        """Those that are here."""
        return tuple(self._workers.values())

    @property
    def running(self) -> int:
        """Trials that have not ended, whether a worker has them or they wait for one."""
        return len(self._tasks)

    @property
    def free(self) -> int:
        """How many workers have nothing to do while no trial waits for one."""
        return sum(worker.trial is None for worker in self._workers.values()) - len(self._waiting)

    def give(
        self, trial: Trial, rules: StoppingRules, seconds: float | None = None, closest: float | None = None
    ) -> None:
        """Let a worker carry a trial out, within so many seconds; `closest` is as Job has it."""
        self._tasks[trial.number] = Task(trial, rules, seconds, closest)
        self._waiting.append(trial.number)
        self._assign()

    def look(self) -> Sequence[Ended]:
        """Read the board; gives the trials that have ended since it was read last."""
        members = {member.id: member for member in self._board.members(WORKER)}
        now, away = self._clock(), self._away()
        listened = away == self._seen_away and now - self._looked < PAUSE
        self._looked, self._seen_away = now, away
        for gone in [worker for member, worker in self._workers.items() if member not in members]:
            member = self._board.find(gone.member)
            self._hear(gone, member)
            self._lose(gone, last_words(member))
        for member in [one for one in members.values() if one.id not in self._refused]:
            worker = self._workers.get(member.id) or self._welcome(member, now)
            if worker is not None:
                if member.beat != worker.beat or not listened:
                    worker.beat, worker.heard = member.beat, now
                self._hear(worker, member)
                self._dismiss_if_silent(worker, now)
        self._assign()
        self._show()
        told, self._told = self._told, []
        return told

    def close(self, why: str) -> None:
        """Tell all workers to leave, as the search has ended."""
        for worker in self.workers:
            self._say(worker, {END: why})

    def bury(self, worker: Worker) -> None:
        """A worker is known to have died, as its process was one of ours."""
        self._board.leave(worker.member, dead=True)
        self._lose(worker, "has died", died=True)

    def recall(self) -> None:
        """Tell workers to give back what they have; nothing is waited for."""
        for worker in self.workers:
            if worker.trial is not None:
                self._say(worker, None)
                worker.trial = None
        self._tasks.clear()
        self._waiting.clear()

    def _welcome(self, member: Member, now: float) -> Worker | None:
        """A worker that is new; nobody is taken from a machine that was sent away."""
        facts = read_worker(member)
        worker = Worker(member.id, member.number, facts, now, member.beat)
        given = member.said.get(JOB) or {}
        if "trial" in given:
            worker.job, trial = given["name"], given["trial"]
            worker.before = trial["number"], trial["parameters"]
        if worker.host in self._sick:
            self._refuse(worker)
            return None
        self._workers[member.id] = worker
        if not facts.exact:
            what = f"{worker} ({facts.process.cpu}) does not compute what FP32 does here, bit by bit"
            self._listener(Warned(f"{what}: what may be the best is scored again"))
        return worker

    def _hear(self, worker: Worker, member: Member) -> None:
        """Take what a worker says: how far it is, and how its trial ended."""
        worker.doing = member.doing
        if worker.trial is None or RESULT not in member.said:
            return
        task = self._tasks[worker.trial]
        result = read_result(member.said[RESULT], task.trial)
        if result.job == worker.job:
            worker.trial = None
            self._take(worker, task, result)

    def _take(self, worker: Worker, task: Task, result: Result) -> None:
        """A trial has ended, if that is to be believed."""
        trial = result.trial
        blameless = trial.state is State.FAILED and not trial.at_fault and worker.ended == 0
        elsewhere = any(other.host not in task.failed_on | {worker.host} for other in self.workers)
        if blameless and not task.failed_on and elsewhere:
            self._tasks[trial.number] = replace(task, failed_on=task.failed_on | {worker.host})
            self._waiting.append(trial.number)
        else:
            self._end(Ended(trial, worker.facts, result.files))
        if not blameless:
            worker.ended += trial.state is not State.FAILED
            return
        worker.failures += 1
        if worker.failures >= SICK and elsewhere:
            self._sick[worker.host] = f"all of its trials failed, the last of them: {trial.failure}"
            self._listener(Warned(f"{worker} is sent away: {self._sick[worker.host]}"))
            self._workers.pop(worker.member)
            self._refuse(worker)

    def _refuse(self, worker: Worker) -> None:
        """Send a worker of a sick machine away."""
        self._refused.add(worker.member)
        self._say(worker, {REFUSED: self._sick[worker.host]})

    def _end(self, ended: Ended) -> None:
        del self._tasks[ended.trial.number]
        self._told.append(ended)

    def _dismiss_if_silent(self, worker: Worker, now: float) -> None:
        if now - worker.heard > self._grace:
            self._board.leave(worker.member, dead=True)
            self._lose(worker, f"gave no sign of life for {self._grace:g} s", died=True)
        elif worker.facts.process.lives is False:
            self.bury(worker)

    def _lose(self, worker: Worker, why: str, *, died: bool = False) -> None:
        """A worker is here no more; its trial waits for another."""
        del self._workers[worker.member]
        number = worker.trial
        if number is None:
            return
        task = self._tasks[number]
        task = self._tasks[number] = replace(task, deaths=task.deaths + died)
        if task.deaths >= ATTEMPTS:
            self._end(Ended(failed(task.trial, f"its process died {task.deaths} times", 0.0)))
        else:
            self._waiting.insert(0, number)
            self._listener(Warned(f"{worker} {why}: trial {number} is carried out by another"))

    def _assign(self) -> None:
        """Give trials that wait to workers that have nothing to do: not where they failed, if others can have them."""
        for number in list(self._waiting):
            task = self._tasks[number]
            free = [worker for worker in self.workers if worker.trial is None]
            others = [worker for worker in self.workers if worker.host not in task.failed_on]
            able = [worker for worker in free if not others or worker in others]
            if not able:
                continue
            self._waiting.remove(number)
            has_it = (one for one in able if number in one.facts.kept or one.before == (number, task.trial.parameters))
            chosen = next(has_it, able[0])
            chosen.trial = number
            if chosen.before != (number, task.trial.parameters):
                self._jobs += 1
                chosen.job = f"{self._owner}.{self._jobs}"
                job = Job(chosen.job, sent_facts(task.trial), task.rules, task.seconds, task.closest)
                self._say(chosen, job_facts(job))
            chosen.before = None

    def _say(self, worker: Worker, job: object) -> None:
        """Tell a worker something; one that has left meanwhile is noticed when the board is read."""
        try:
            self._board.say(worker.member, JOB, job)
        except Dismissed:
            return

    def _show(self) -> None:
        """Tell the listener who is here, where that has changed."""
        here = tuple(
            WorkerHere(one.number, one.host, one.facts.process.pid, one.doing, one.ended + one.failures, one.trial)
            for one in self.workers
        )
        if here != self._shown:
            self._shown = here
            self._listener(WorkersSeen(here))
