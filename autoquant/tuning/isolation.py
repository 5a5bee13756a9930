"""Trials in a process of their own, which may die of them: out of memory, in a kernel that crashes, or hanging.

The process opens the run by its folder, as another machine would. It is told of a trial by a line of JSON on its
standard input and answers with such lines: progress, then the trial as it ended, or an error that is not the trial's.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

from autoquant import errors
from autoquant.errors import AutoquantError, RunError
from autoquant.evaluation.metrics.metric import OnProgress
from autoquant.evaluation.scoring.stopping import StoppingRules
from autoquant.formats.codec import decode, encode
from autoquant.formats.strict import Fields
from autoquant.quiet import no_progress, stderr_held_back
from autoquant.tuning.events import Event, Progress, reporter
from autoquant.tuning.inputs import model_of, open_inputs
from autoquant.tuning.own_process import TRUSTED, be_first_victim, command, environment
from autoquant.tuning.prepare import prepare_worker
from autoquant.tuning.session import TimeLimit
from autoquant.tuning.study.request import SearchRequest
from autoquant.tuning.study.run_folder import RunFolder
from autoquant.tuning.study.trial import Trial, as_told, sent_facts, sent_trial
from autoquant.tuning.worker import Begin, failed

PERIOD = 0.5
"""Seconds from one look at the clock to the next while a trial runs."""


class IsolatedWorker:
    """Carries trials out in another process, which is started again where it died."""

    def __init__(self, run: Path, limit: TimeLimit, *, trust_model: bool = False) -> None:
        self._run = run
        self._trust_model = trust_model
        self._limit = limit
        self._process: subprocess.Popen[str] | None = None
        self._replies: queue.Queue[str] = queue.Queue()

    def start(self, begin: Begin) -> None:
        """Start the process, unless it is there. Raises RunError where it dies before it is ready."""
        if self._process is not None and self._process.poll() is None:
            return
        self._replies = queue.Queue()
        self._process = subprocess.Popen(
            command(__name__, self._run, trust_model=self._trust_model),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is not for it
            env=environment(),
        )
        threading.Thread(target=_read, args=(self._process.stdout, self._replies), daemon=True).start()
        with self._killed_if_it_ends():
            begin("starting the process of trials")
            if self._answer(begin) is None:
                what = f"the process that carries out its trials {self._death()} before the first of them"
                raise RunError(str(self._run), what, hint="resume without --isolate, which says more")

    def run(self, trial: Trial, rules: StoppingRules, folder: Path, begin: Begin) -> Trial:
        """As Worker has it; a trial that the process dies of has failed."""
        self.start(begin)
        start = self._limit.clock()
        with self._killed_if_it_ends():
            self._tell({"trial": sent_facts(trial), "rules": encode(rules), "folder": str(folder)})
            answer = self._answer(begin)
        if answer is None:
            return failed(trial, f"its process {self._death()}", self._limit.clock() - start)
        return as_told(answer["trial"], trial, "trial")

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with suppress(OSError):
                        stream.close()
            self._process = None

    def _tell(self, task: Mapping[str, Any]) -> None:
        assert self._process is not None and self._process.stdin is not None
        with suppress(OSError):  # it has died, as will be seen
            self._process.stdin.write(json.dumps(task) + "\n")
            self._process.stdin.flush()

    def _answer(self, begin: Begin) -> dict[str, Any] | None:
        """The next answer that is not about progress; None where the process has died. Raises what it says."""
        told = ""
        on_progress: OnProgress = no_progress
        while True:
            try:
                line = self._replies.get(timeout=PERIOD)
            except queue.Empty:
                self._limit.check_silent()
                continue
            if not line:
                return None
            reply: dict[str, Any] = json.loads(line)
            if "progress" in reply:
                what, done, total = reply["progress"]
                if what != told:
                    told, on_progress = what, begin(what)
                on_progress(done, total)
            elif "error" in reply:
                raise getattr(errors, reply["error"])(reply["where"], reply["what"], hint=reply["hint"])
            elif "bug" in reply:
                raise RuntimeError(reply["bug"])
            else:
                return reply

    def _death(self) -> str:
        """How the process died, in words."""
        assert self._process is not None
        code = self._process.wait()
        self.close()
        if code >= 0:
            return f"ended with exit code {code}"
        memory = ", as where memory runs out" if code == -signal.SIGKILL else ""
        return f"was ended by {signal.Signals(-code).name}{memory}"

    @contextmanager
    def _killed_if_it_ends(self) -> Iterator[None]:
        """End the process where what waits for it ends: the time is over, or somebody interrupts it."""
        try:
            yield
        except BaseException:
            self.close()
            raise


def _read(stream: IO[str], replies: queue.Queue[str]) -> None:
    """Hand lines on; an empty one is the end."""
    with suppress(ValueError, OSError):  # it was closed
        for line in stream:
            replies.put(line)
    replies.put("")


def _serve(run: Path, tasks: IO[str], replies: IO[str], *, trust_model: bool) -> None:
    """Carry out the trials that standard input names, until it ends."""

    def reply(**facts: Any) -> None:
        replies.write(json.dumps(facts) + "\n")
        replies.flush()

    def listen(event: Event) -> None:
        if isinstance(event, Progress):
            reply(progress=[event.what, event.done, event.total])

    try:
        folder = RunFolder(run)
        table = folder.read_request()["request"]
        request = SearchRequest.from_table(table, str(folder.request), trust_model=trust_model)
        with stderr_held_back(shown_if_it_fails=True):  # what TensorFlow says when it is loaded
            model = model_of(request)
        inputs = open_inputs(request, folder.read_space(), model, listen, folder=run)
        worker = prepare_worker(inputs, folder, listen, time.monotonic)
        reply(ready=True)
        for line in tasks:
            task = json.loads(line)
            trial = sent_trial(task["trial"], inputs.space.plan)
            rules = decode(StoppingRules, Fields(task["rules"], "rules", RunError))
            reply(trial=sent_facts(worker.run(trial, rules, Path(task["folder"]), partial(reporter, listen))))
    except AutoquantError as error:
        reply(error=type(error).__name__, where=error.where, what=error.what, hint=error.hint)
    except Exception:
        reply(bug=traceback.format_exc())


def _forward(tasks: IO[str], descriptor: int) -> None:
    """Hand tasks on, in a thread: where there are no more, the search is gone, and so is this process."""
    with os.fdopen(descriptor, "w", encoding="utf-8") as lines:
        for line in tasks:
            lines.write(line)
            lines.flush()
    os._exit(0)


def main() -> None:
    """Serve, with standard output for the answers alone."""
    read, write = os.pipe()
    threading.Thread(target=_forward, args=(sys.stdin, write), daemon=True).start()
    with os.fdopen(read, encoding="utf-8") as tasks, os.fdopen(os.dup(1), "w", encoding="utf-8") as replies:
        os.dup2(2, 1)
        be_first_victim()
        _serve(Path(sys.argv[1]), tasks, replies, trust_model=TRUSTED in sys.argv[2:])


if __name__ == "__main__":
    main()
