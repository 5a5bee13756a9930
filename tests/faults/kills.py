"""Searches that are killed at random, resumed, and compared with one that was left alone.

    python tests/faults/kills.py MODEL DATA CALIBRATION [--cases N] [--seed S] [--targets T,T] [--folder DIR] [-- WORDS]

For each target a search is left alone, certification included. Then in each case a search is sent a signal at a random
moment: after a random line of its log and up to a fifth of a second, SIGKILL as often as SIGTERM, Ctrl-C or Ctrl-C
twice. It is resumed, in half of the cases killed and resumed once more, and must come to the same: numbers, plans,
states and scores of all trials, the best, the verdict and the figures of the certificate. A line for each case, then
the sums; the exit code is 1 where one differs. The processes are forked off one that has loaded everything and run
nothing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SIGNALS = {
    "SIGKILL": (signal.SIGKILL,),
    "SIGTERM": (signal.SIGTERM,),
    "Ctrl-C": (signal.SIGINT,),
    "Ctrl-C twice": (signal.SIGINT, signal.SIGINT),
}
WEIGHTS = (3, 1, 1, 1)
DELAY = 0.2
"""Seconds after a line of the log, at most."""
LIMIT = 300.0
"""Seconds after which a process hangs."""
FACTS = ("number", "state", "why", "phase", "score", "drop", "low", "high", "within", "samples", "failure", "at_fault")
"""What trials must have in common."""
PATIENCE = 0.002
"""Seconds between two looks at a process."""


@dataclass(frozen=True)
class Ended:
    """How a process ended, and the lines of its log."""

    code: int
    lines: tuple[str, ...]
    seconds: float


def load(*, tensorflow: bool) -> None:
    """Import what a search needs, and compile the templates of its report, so that a fork has it."""
    names = ["autoquant.api", "autoquant.cli.search", "autoquant.cli.resume", "autoquant.cli.screen", "rich.live"]
    names += ["autoquant.cli.summary", "autoquant.reports.view", "autoquant.reports.page", "scipy.sparse.csgraph"]
    names += ["autoquant.tuning.verification", "autoquant.targets.litert", "ai_edge_litert.interpreter"]
    for name in [*names, *(["tensorflow"] if tensorflow else [])]:
        importlib.import_module(name)
    environment = sys.modules["autoquant.reports.page"]._environment()
    for template in environment.list_templates(extensions=["j2"]):
        environment.get_template(template)


def start(words: Sequence[str], log: Path, before: Callable[[], object] = lambda: None) -> int:
    """Run the command line in a process of its own, which is given; `before` is called there first."""
    from autoquant.cli.main import main

    with log.open("a"):
        pid = os.fork()
    if pid == 0:
        try:
            descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            os.setsid()
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            before()
            code = main(list(words))
            sys.stdout.flush()
            os._exit(code)
        except BaseException:
            traceback.print_exc()
            os._exit(99)
    return pid


def run(
    words: Sequence[str],
    log: Path,
    *,
    kill: Callable[[int, Path], bool] = lambda pid, log: False,
    before: Callable[[], object] = lambda: None,
) -> Ended:
    """As `start`, until it ends; `kill` is asked again and again until it has killed it."""
    log.write_text("")
    begin, pid, killed = time.monotonic(), start(words, log, before), False
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        killed = killed or kill(pid, log)
        if time.monotonic() - begin > LIMIT:
            os.kill(pid, signal.SIGKILL)
        time.sleep(PATIENCE)
    lines = tuple(log.read_text(errors="replace").splitlines())
    return Ended(os.waitstatus_to_exitcode(status), lines, time.monotonic() - begin)


def killer(line: int, delay: float, signals: Sequence[signal.Signals]) -> Callable[[int, Path], bool]:
    """Sends signals so many seconds after a log has so many lines."""
    seen: list[float] = []

    def kill(pid: int, log: Path) -> bool:
        if not seen and log.read_bytes().count(b"\n") >= line:
            seen.append(time.monotonic())
        if not seen or time.monotonic() - seen[0] < delay:
            return False
        for number in signals:
            os.kill(pid, number)
            time.sleep(0.02)
        return True

    return kill


def outcome(run: Path) -> dict[str, Any]:
    """What a search came to, but for times and places."""
    found = json.loads((run / "result.json").read_text())
    trials = []
    for trial in found["all_trials"]:
        config = json.loads((run / "trials" / f"{trial['number']:04d}" / "config.json").read_text())
        own = config.pop("autoquant", {})
        own.pop("float_operators", None)  # of what is rebuilt only the best has them
        config |= own
        trials.append({**{name: trial[name] for name in FACTS}, "config": config})
    certificate = found["certificate"]
    figures = ("verdict", "score", "drop", "upper_bound", "samples", "losses", "gains")
    return {
        "trials": trials,
        "best": found["best_trial"],
        "score": found["score"],
        "verdict": found["verdict"],
        "certificate": certificate and {name: certificate.get(name) for name in figures},
        "holdout": len(json.loads((run / "holdout_log.json").read_text())["evaluations"]) if certificate else 0,
    }


@dataclass(frozen=True)
class Case:
    """A search of one target that is killed."""

    search: Sequence[str]
    folder: Path
    alone: dict[str, Any]
    lines: int

    def play(self, draw: random.Random) -> tuple[str, str]:
        """Kill and resume; gives what was done in words, and what is wrong then."""
        run_folder, log, done = self.folder / "run", self.folder / "log.txt", []
        shutil.rmtree(run_folder, ignore_errors=True)
        words = [*self.search, "--run", str(run_folder)]
        for _ in range(draw.choice((1, 2))):
            name = draw.choices(list(SIGNALS), WEIGHTS)[0]
            line, delay = draw.randint(1, self.lines), draw.uniform(0.0, DELAY)
            ended = run(words, log, kill=killer(line, delay, SIGNALS[name]))
            done.append(f"{name} {delay:.2f}s after line {line} (exit {ended.code})")
            if wrong := _wrong(ended, name):
                return "; ".join(done), wrong
            if (run_folder / "run.toml").exists():
                words = ["resume", str(run_folder), "--plain"]
        ended = run(words, log)
        if ended.code not in (0, 1, 3):
            return "; ".join(done), f"resume: exit {ended.code}: {' | '.join(ended.lines[-3:])}"
        found = outcome(run_folder)
        differing = [name for name in found if found[name] != self.alone[name]]
        return "; ".join(done), f"differs in {', '.join(differing)}" if differing else ""


def _wrong(ended: Ended, name: str) -> str:
    """What is wrong with how a process ended that was sent signals, unless it had ended before."""
    text = "\n".join(ended.lines)
    if "Traceback" in text or "internal error" in text:
        return f"traceback: {' | '.join(ended.lines[-3:])}"
    allowed = {0, 1, 3, -signal.SIGKILL} if name == "SIGKILL" else {0, 1, 3, 130, -signal.SIGTERM}
    return "" if ended.code in allowed else f"exit {ended.code}: {' | '.join(ended.lines[-3:])}"


def play_all(
    model: Path,
    data: Path,
    calibration: Path,
    folder: Path,
    *,
    target: str,
    cases: int,
    seed: int,
    options: Sequence[str],
) -> Counter[str]:
    """All cases of a target; counts those that came to the same, and others."""
    words = [
        "search",
        str(model),
        "--data",
        str(data),
        "--calibration",
        str(calibration),
        "--target",
        target,
        "--plain",
    ]
    words += options
    alone = run([*words, "--run", str(folder / "alone")], folder / "alone.txt")
    if alone.code not in (0, 1, 3):
        raise SystemExit("\n".join(alone.lines))
    wanted = outcome(folder / "alone")
    what = f"{len(wanted['trials'])} trials, best {wanted['best']}, {wanted['verdict']}"
    print(f"{target}: alone {what}, {len(alone.lines)} lines in {alone.seconds:.1f}s", flush=True)
    moments = sum(line.startswith("[") for line in alone.lines) - 1  # the last is of the end
    case, counts = Case(words, folder, wanted, moments), Counter[str]()
    for number in range(cases):
        done, wrong = case.play(random.Random(f"{seed} {target} {number}"))
        counts["differ" if wrong else "same"] += 1
        print(f"{target} {number}: {done}: {wrong or 'same'}", flush=True)
        if wrong:
            shutil.copytree(folder / "run", folder / f"differs-{number}", symlinks=True, dirs_exist_ok=True)
    return counts


def main() -> int:
    """Read the arguments and play."""
    parser = argparse.ArgumentParser()
    for name in ("model", "data", "calibration"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", default="litert,tensorflow")
    parser.add_argument("--folder", type=Path)
    words = [*sys.argv[1:], "--"]
    place = words.index("--")
    given, options = parser.parse_args(words[:place]), words[place + 1 : -1]
    targets = given.targets.split(",")
    load(tensorflow=given.model.suffix != ".tflite" or "tensorflow" in targets)
    total = Counter[str]()
    with tempfile.TemporaryDirectory() as temporary:
        for target in targets:
            folder = (given.folder or Path(temporary)) / target
            folder.mkdir(parents=True)
            total += play_all(
                given.model.resolve(),
                given.data.resolve(),
                given.calibration.resolve(),
                folder,
                target=target,
                cases=given.cases // len(targets),
                seed=given.seed,
                options=options,
            )
    print(f"{total['same']} the same, {total['differ']} differ")
    return 1 if total["differ"] else 0


if __name__ == "__main__":
    sys.exit(main())
