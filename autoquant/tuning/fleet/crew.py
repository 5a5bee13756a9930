"""The workers of a search as its owner has them, from the first that is started to the last that is told to leave."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial

from autoquant.calibration.plan import Plan
from autoquant.evaluation.scoring.sample_scorer import SampleScorer
from autoquant.tuning.builder import Builder
from autoquant.tuning.events import Listener, Warned
from autoquant.tuning.fleet.children import Children
from autoquant.tuning.fleet.float_outputs import float_digest
from autoquant.tuning.fleet.messages import ENDED, FLOAT, READY
from autoquant.tuning.fleet.owner import GRACE, Fleet
from autoquant.tuning.fleet.ownership import Ownership, owned
from autoquant.tuning.fleet.storages import Meeting, meet_in_database, meet_in_folder
from autoquant.tuning.session import Clock
from autoquant.tuning.study.request import SearchRequest
from autoquant.tuning.study.run_folder import RunFolder

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
        self, meeting: Meeting, ownership: Ownership, children: Children, folder: RunFolder, fleet: Fleet
    ) -> None:
        self.fleet = fleet
        self.meeting = meeting
        self._ownership = ownership
        self._children = children
        self._folder = folder
        self._published: dict[str, tuple[int, int, str]] = {}
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
        self._builder.prepared(self._builder.completed(plan))
        self._publish()

    def end(self, why: str) -> None:
        """Tell all workers that the search has come to its end."""
        self._ownership.why = ENDED
        self.fleet.look()
        self.fleet.close(why)

    def _publish(self) -> None:
        """Store the files that are new, or have changed, where the workers do not have this disk."""
        shelf, before = self.meeting.shelf, dict(self._published)
        for pattern in PUBLISHED if shelf is not None else ():
            for path in sorted(self._folder.path.glob(pattern)):
                name, stat = path.relative_to(self._folder.path).as_posix(), path.stat()
                known = self._published.get(name)
                if shelf is not None and (known is None or known[:2] != (stat.st_mtime_ns, stat.st_size)):
                    self._published[name] = stat.st_mtime_ns, stat.st_size, shelf.put(path.read_bytes())
        if not before or before != self._published:
            files = {name: digest for name, (_, _, digest) in self._published.items()}
            self.meeting.board.say(self._ownership.member, READY, files)


@contextmanager
def crew_of(
    request: SearchRequest,
    folder: RunFolder,
    listener: Listener,
    clock: Clock,
    *,
    sleep: Callable[[float], None] = time.sleep,
    grace: float = GRACE,
) -> Iterator[Crew | None]:
    """Own the search within, with the workers of this machine started; None where no workers are wanted.

    Raises RunError where another process owns it, StorageError where the storage is away.
    """
    if request.jobs == 1 and not request.storage:
        yield None
        return
    warn = partial(_warn, listener)
    if request.storage:
        meeting = meet_in_database(request.storage, request.study, warn)
    else:
        meeting = meet_in_folder(folder, warn)
    children = Children(folder.path, request.jobs, trust_model=request.trust_model)
    with (
        closing(meeting),
        owned(meeting.board, str(folder.path.resolve()), listener, clock, sleep) as ownership,
        closing(children),
    ):
        storage = meeting.storage
        fleet = Fleet(meeting.board, ownership.member, listener, clock, away=lambda: storage.away, grace=grace)
        children.start()
        yield Crew(meeting, ownership, children, folder, fleet)


def _warn(listener: Listener, text: str) -> None:
    listener(Warned(text))
