"""Workers that a test plays by hand, and trials for them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from autoquant.calibration.plan import Plan
from autoquant.evaluation.scoring.stopping import StoppingRules
from autoquant.formats.codec import encode
from autoquant.tuning.events import Event, Warned
from autoquant.tuning.fleet.board import BEAT, WORKER, Board
from autoquant.tuning.fleet.messages import (
    JOB,
    LEFT,
    RESULT,
    Job,
    Process,
    Result,
    WorkerFacts,
    read_job,
    result_facts,
)
from autoquant.tuning.fleet.owner import Fleet
from autoquant.tuning.study.trial import State, Trial

RULES = StoppingRules(max_drop=0.01, alpha=0.05)


@dataclass
class Played:
    """A worker on a board."""

    board: Board
    host: str = "a"
    kept: tuple[int, ...] = ()
    member: int = -1
    beats: int = 0

    def __post_init__(self) -> None:
        facts = WorkerFacts(Process(self.host, 7), kept=self.kept)
        self.member = self.board.join(WORKER, encode(facts))

    @property
    def said(self) -> Any:
        """What the owner said last."""
        return self.board.read(self.member).get(JOB)

    @property
    def job(self) -> Job:
        return read_job(self.said)

    def beat(self, doing: str = "") -> None:
        self.beats += 1
        self.board.say(self.member, BEAT, [self.beats, doing, 0.0])

    def end(self, failure: str = "", **facts: Any) -> None:
        """The current trial has ended."""
        job = self.job
        known = {"state": State.FAILED, "failure": failure} if failure else {"state": State.DONE, "drop": 0.0}
        trial = replace(trial_of(job.trial["number"]), **{**known, **facts})
        self.board.say(self.member, RESULT, result_facts(Result(job.name, trial)))

    def leave(self, why: str = "was interrupted") -> None:
        self.board.say(self.member, LEFT, why)
        self.board.leave(self.member)


@dataclass
class PlayedFleet:
    """A fleet with a clock that a test sets, and what it told."""

    board: Board
    now: float = 0.0
    away: int = 0
    told: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fleet = self.owned(0)

    def owned(self, owner: int) -> Fleet:
        """The fleet of an owner."""
        return Fleet(self.board, owner, self.told.append, lambda: self.now, away=lambda: self.away, grace=30.0)

    @property
    def warnings(self) -> list[str]:
        return [event.text for event in self.told if isinstance(event, Warned)]

    def pass_time(self, seconds: float, *beating: Played) -> list[Trial]:
        """Look every second for so long, while some workers give signs of life."""
        ended: list[Trial] = []
        for _ in range(round(seconds)):
            self.now += 1.0
            for worker in beating:
                worker.beat()
            ended += self.look()
        return ended

    def look(self) -> list[Trial]:
        return [one.trial for one in self.fleet.look()]

    def give(self, *numbers: int) -> None:
        for number in numbers:
            self.fleet.give(trial_of(number), RULES, 60.0)


def trial_of(number: int) -> Trial:
    return Trial(number, State.RUNNING, Plan({}), "a test", parameters={"batch_num": number})
