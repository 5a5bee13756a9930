"""The workers of a search as its owner has them, from the first that is started to the last that is told to leave."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

from autoquant.calibration.plan import Plan
from autoquant.errors import PlanError, TrialError
from autoquant.evaluation.scoring.sample_scorer import SampleScorer
from autoquant.tuning.builder import Builder
from autoquant.tuning.events import Listener, Warned
from autoquant.tuning.fleet.board import VISITOR, WORKER
from autoquant.tuning.fleet.children import Children
from autoquant.tuning.fleet.float_outputs import float_digest
from autoquant.tuning.fleet.kept_results import remove_of_dead
from autoquant.tuning.fleet.left_files import LeftFiles
from autoquant.tuning.fleet.messages import ENDED, FLOAT, READY, WORKING, process_of, read_worker
from autoquant.tuning.fleet.owner import GRACE, Fleet
from autoquant.tuning.fleet.ownership import Ownership, owned
from autoquant.tuning.fleet.storages import Meeting, meet_in_database, meet_in_folder
from autoquant.tuning.session import Clock
from autoquant.tuning.study.artifacts import open_artifacts
from autoquant.tuning.study.request import SearchRequest
from autoquant.tuning.study.run_folder import RunFolder
from autoquant.tuning.study.trial import Trial

PUBLISHED = (
    "run.toml",
    "space.toml",
    "baseline.npz",
    "splits.npz",
    "statistics*.npz",
    "between-*.npz",
    "corrections/*",
)
"""The files of a run that workers elsewhere need."""


class Crew:
    """The workers of a search, and what they must have."""

    def __init__(
        self,
        meeting: Meeting,
        ownership: Ownership,
        children: Children,
        folder: RunFolder,
        fleet: Fleet,
        left: LeftFiles,
    ) -> None:
        self.fleet = fleet
        self.left = left
        self.meeting = meeting
        self.ended = False
        self._ownership = ownership
        self._children = children
        self._folder = folder
        self._published: dict[str, tuple[int, int, str]] = {}
        self._said: dict[str, str] | None = None
        self._builder: Builder | None = None

    def open(self, builder: Builder, scorer: SampleScorer) -> None:
        """Let workers come, now that all that they need is there: what builds and scores is that of the session."""
        self._builder = builder
        self.meeting.board.say(self._ownership.member, FLOAT, float_digest(scorer))
        self._publish()

    def check(self) -> None:
        """See that this process is still the owner, and that its own workers live. Raises RunError."""
        self._ownership.check()
        self._children.check(self.fleet)

    def provide(self, plan: Plan) -> None:
        """Compute what all workers would otherwise compute for a plan, and let them have it."""
        assert self._builder is not None
        plan = self._builder.completed(plan)
        self._builder.prepared(plan)
        with suppress(PlanError, TrialError):  # which whoever carries the plan out reports
            self._builder.round_weights(plan)
        self._publish()

    def end(self, why: str) -> None:
        """Tell all workers that the search has come to its end."""
        self.ended = True
        self._ownership.why = ENDED
        self.fleet.look()
        self.fleet.close(why)

    def _publish(self) -> None:
        """Store the files that are new, or have changed, where the workers do not have this disk."""
        shelf = self.meeting.shelf
        for pattern in PUBLISHED if shelf is not None else ():
            for path in sorted(self._folder.path.glob(pattern)):
                name, stat = path.relative_to(self._folder.path).as_posix(), path.stat()
                known = self._published.get(name)
                if shelf is not None and (known is None or known[:2] != (stat.st_mtime_ns, stat.st_size)):
                    self._published[name] = stat.st_mtime_ns, stat.st_size, shelf.put(path.read_bytes())
        files = {name: digest for name, (_, _, digest) in self._published.items()}
        if files != self._said:
            self.meeting.board.say(self._ownership.member, READY, files)
            self._said = files


class CrewCall:
    """Calls the crew of a search: at its beginning, if that wants workers, or once one comes to the run's folder.

    It is a context manager, in which this process owns the search once there is a `crew`. Entering it raises RunError
    where another process owns it, StorageError where the storage is away; so does `come`.
    """

    def __init__(
        self,
        request: SearchRequest,
        folder: RunFolder,
        listener: Listener,
        clock: Clock,
        *,
        sleep: Callable[[float], None] = time.sleep,
        grace: float = GRACE,
    ) -> None:
        self.crew: Crew | None = None
        self._request = request
        self._folder = folder
        self._listener = listener
        self._clock, self._sleep, self._grace = clock, sleep, grace
        self._stack = ExitStack()
        self._door: Meeting | None = None

    def __enter__(self) -> CrewCall:
        if self._request.jobs != 1 or self._request.storage:
            try:
                self._call()
            except BaseException:
                self._stack.close()
                raise
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def come(self, builder: Builder, scorer: SampleScorer) -> Crew | None:
        """The crew, if there is one by now; what builds and scores is that of the session."""
        if self.crew is None and self._somebody_came():
            self._listener(Warned("a worker has come: trials are carried out by workers from now on, one of them here"))
            self._call().open(builder, scorer)
        return self.crew

    def _somebody_came(self) -> bool:
        """Whether a worker waits in the folder of the run; its file is there from the first that ever came."""
        if not self._folder.workers.exists():
            return False
        if self._door is None:
            self._door = meet_in_folder(self._folder, self._warn)
        board = self._door.board
        came = [process_of(one) for one in board.members(VISITOR)]
        came += [read_worker(one).process for one in board.members(WORKER)]
        return any(process.lives is not False for process in came)

    def end(self, why: str, best: Trial | None) -> None:
        """Tell all workers, if any, that the search has ended; of the files that they left those of the best stay."""
        if self.crew is not None:
            self.crew.end(why)
            self.crew.left.close(best)

    def _call(self) -> Crew:
        request, folder, warn = self._request, self._folder, self._warn
        if request.storage:
            meeting = meet_in_database(request.storage, request.study, warn)
        else:
            meeting = meet_in_folder(folder, warn)
        self._stack.callback(meeting.close)
        ownership = self._stack.enter_context(owned(meeting.board, self._listener, self._clock, self._sleep))
        for visitor in meeting.board.members(VISITOR):
            meeting.board.leave(visitor.id)
        children = Children(folder.path, request.jobs, trust_model=request.trust_model)
        self._stack.callback(self._clear, meeting, children)
        storage = meeting.storage
        known: dict[str, Any] = {"away": lambda: storage.away, "grace": self._grace}
        fleet = Fleet(meeting.board, ownership.member, self._listener, self._clock, **known)
        children.start()
        left = LeftFiles(open_artifacts(request.artifacts, request.study, warn), self._listener)
        self.crew = Crew(meeting, ownership, children, folder, fleet, left)
        return self.crew

    def _clear(self, meeting: Meeting, children: Children) -> None:
        """End the workers of this machine, and remove the folders of all that are dead.

        Where the search has not ended, results that were not told stay.
        """
        children.close()
        board, kept = meeting.board, set()
        for member in board.members(WORKER):
            worker = read_worker(member)
            if worker.process.lives is False:
                board.leave(member.id, dead=True)
            else:
                kept.add(worker.folder)
        has_ended = self.crew is not None and self.crew.ended
        for path in self._folder.path.glob(f"{WORKING}*"):
            if path.name not in kept:
                remove_of_dead(path, results_too=has_ended)

    def _warn(self, text: str) -> None:
        self._listener(Warned(text))
