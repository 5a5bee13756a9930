"""What the owner of a search and its workers tell each other: a study of Optuna beside that of the search.

Each process is a trial of it, and what it says are attributes of that, each of which one process alone writes. One that
has left, or was dismissed, can write no more, whatever it believes: Optuna refuses to change a trial that has ended.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from autoquant.quiet import no_progress
from autoquant.tuning.study.journal import unannounced

OnHeard = Callable[[Mapping[str, Any]], None]
SUFFIX = "-workers"
"""What follows the name of a search's study in that of its board."""
OWNER, WORKER, VISITOR = "owner", "worker", "visitor"
"""The roles; a visitor would be a worker, where nobody is the owner yet."""
ROLE, ABOUT, BEAT = "role", "about", "beat"
"""Attributes of each process: its role, what it says of itself when it joins, and its signs of life: how many there
were, what it does, and the time by its clock (seconds since 1970), which nobody decides by."""
PARTS = "parts"
"""The key of a value that is long: the name of its parts, and how many there are."""
LONGEST = 30_000
"""Characters of an attribute: MySQL has 65,535 bytes, and quotes in a part are escaped."""
PURPOSE = "purpose"
"""The attribute of a study beside that of a search that tells people what it is."""
PERIOD = 5.0
"""Seconds from one sign of life to the next."""


class Dismissed(Exception):
    """A process is not on the board any more: it left, or another one declared it dead."""


@dataclass(frozen=True)
class Member:
    """A process, by its number on the board, and all that is written about it."""

    id: int
    number: int
    said: Mapping[str, Any]
    here: bool

    @property
    def role(self) -> str:
        """What it is."""
        return str(self.said.get(ROLE, ""))

    @property
    def beat(self) -> int:
        """How many signs of life it gave."""
        return int(self.said[BEAT][0])

    @property
    def doing(self) -> str:
        """What it does."""
        return str(self.said[BEAT][1])

    @property
    def time(self) -> float:
        """When it gave the last one, by its clock."""
        return float(self.said[BEAT][2])


class Board:
    """The board of a study, which is made when the first process joins. Raises what the storage raises."""

    def __init__(self, storage: BaseStorage, study: str) -> None:
        self._storage = storage
        self._name = f"{study}{SUFFIX}"
        self._purpose = f"owner and workers of {study}, each a trial, and what they tell each other"
        self._study: int | None = None

    def join(self, role: str, about: Mapping[str, Any]) -> int:
        """Be on the board; gives the id to speak under. Nobody else has it, nor its number."""
        said = {ROLE: role, ABOUT: dict(about), BEAT: [0, "", time.time()]}
        study = open_beside(self._storage, self._name, self._purpose)
        return self._storage.create_new_trial(study, create_trial(state=TrialState.RUNNING, user_attrs=said))

    def say(self, member: int, key: str, value: Any) -> None:
        """Write something, what is long in parts before it counts. Raises Dismissed."""
        text = json.dumps(value)
        parts = [text[start : start + LONGEST] for start in range(0, len(text), LONGEST)]
        name = f"{key}/{uuid.uuid4().hex[:8]}"
        try:
            for number, part in enumerate(parts if len(parts) > 1 else []):
                self._storage.set_trial_user_attr(member, f"{name}/{number}", part)
            said = {PARTS: [name, len(parts)]} if len(parts) > 1 else value
            self._storage.set_trial_user_attr(member, key, said)
        except UpdateFinishedTrialError:
            raise Dismissed from None

    def read(self, member: int) -> Mapping[str, Any]:
        """All that is written about one process."""
        return _whole(self._storage.get_trial_user_attrs(member))

    def find(self, member: int) -> Member:
        """One process, here or not."""
        return _member(self._storage.get_trial(member))

    def members(self, role: str) -> list[Member]:
        """The processes of a role that are here, by number."""
        return [one for one in self.everybody(TrialState.RUNNING) if one.role == role]

    def everybody(self, *states: TrialState) -> list[Member]:
        """All that ever were here, or those of some states, by number."""
        if self._study is None:
            try:
                self._study = self._storage.get_study_id_from_name(self._name)
            except KeyError:
                return []
        found = self._storage.get_all_trials(self._study, deepcopy=False, states=states or None)
        return [_member(one) for one in found]

    def leave(self, member: int, *, dead: bool = False) -> None:
        """Let a process be here no more: it leaves, or is `dead`. Nothing happens where it is not."""
        try:
            self._storage.set_trial_state_values(member, TrialState.FAIL if dead else TrialState.PRUNED)
        except UpdateFinishedTrialError:
            return

    @contextmanager
    def alive(
        self, member: int, doing: Callable[[], str] = str, *, heard: OnHeard = no_progress, period: float = PERIOD
    ) -> Iterator[threading.Event]:
        """Give signs of life within, from another thread, each with what is being done.

        `heard` is called there with all that is written about the process. The event that is given is set where the
        process was dismissed.
        """
        dismissed, left = threading.Event(), threading.Event()

        def beat() -> None:
            count = 0
            while not left.wait(period):
                count += 1
                try:
                    self.say(member, BEAT, [count, doing(), time.time()])
                    heard(self.read(member))
                except Dismissed:
                    dismissed.set()
                    return
                except Exception:  # whoever does the work meets it too, and says so
                    continue

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield dismissed
        finally:
            left.set()
            thread.join(period)


def open_beside(storage: BaseStorage, name: str, purpose: str) -> int:
    """The id of a study beside that of a search, which is made where there is none. Raises what the storage raises."""
    with unannounced():
        study = optuna.create_study(storage=storage, study_name=name, load_if_exists=True)
    if study.user_attrs.get(PURPOSE) != purpose:
        study.set_user_attr(PURPOSE, purpose)
    return study._study_id


def _member(trial: FrozenTrial) -> Member:
    return Member(trial._trial_id, trial.number, _whole(trial.user_attrs), trial.state is TrialState.RUNNING)


def _whole(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is said, long values put together."""
    found = {}
    for key, value in said.items():
        if isinstance(value, dict) and PARTS in value:
            name, count = value[PARTS]
            found[key] = json.loads("".join(said[f"{name}/{number}"] for number in range(count)))
        elif "/" not in key:
            found[key] = value
    return found
