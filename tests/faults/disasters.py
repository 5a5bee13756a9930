"""Searches that run out of disk or memory, lose files, or whose clock jumps; resumed, they come to the same.

    python tests/faults/disasters.py MODEL DATA CALIBRATION [--targets T,T] [--folder DIR] [-- WORDS]

A line for each, by target: what happened, what the search said, and whether it came to what one comes to that was left
alone. To fill a disk or make it read-only it mounts one in memory, and it limits memory with a cgroup: both as root
alone, else it says that they were left out. The exit code is 1 where one differs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from kills import load, outcome, run

SMALL, LARGE = "600k", "64m"
"""Sizes of a disk that is full in the middle of a search, and of one that is not."""
ENDS = (0, 1, 3)
"""Exit codes of a search that came to its end."""
MEMORY = 60 << 20
"""Bytes that the process of trials may take more than it has when it is limited."""
JUMPS = (86_400.0, -86_400.0)
"""Seconds by which the clock on the wall jumps, again and again."""
HOG = """
import numpy as np
from pathlib import Path

def metric(outputs, labels):
    wanted = Path(__file__).with_name("hog")
    if wanted.exists():
        wanted.unlink()
        kept = []
        while True:
            kept.append(np.ones(1 << 20))
    return (outputs.argmax(axis=-1) == labels.reshape(-1)).astype(float)

metric.bounds = (0, 1)
"""


@dataclass(frozen=True)
class Scene:
    """A search in a folder of its own, and the words that begin it, without the run."""

    search: Sequence[str]
    folder: Path

    @property
    def run(self) -> Path:
        """The folder of the run."""
        return self.folder / "run"

    def begin(self) -> list[str]:
        """The words of the search."""
        return [*self.search, "--run", str(self.run)]

    def go(
        self, words: Sequence[str], act: Callable[[int], object] = lambda pid: None, **options: Any
    ) -> tuple[int, str]:
        """Run, and do something once the third trial has ended; gives the exit code and what it said at last."""
        done: list[int] = []

        def look(pid: int, log: Path) -> bool:
            if not done and "trial 2:" in log.read_text(errors="replace"):
                done.append(pid)
                act(pid)
            return False  # it ends by itself

        ended = run(words, self.folder / "log.txt", kill=look, **options)
        text = "\n".join(ended.lines)
        if "Traceback" in text or "internal error" in text:
            return 70, text
        told = [line for line in ended.lines if line.startswith("autoquant:") or "warning" in line]
        return ended.code, told[-1] if told else ""

    def same(self, alone: dict[str, Any]) -> str:
        """What differs from a search that was left alone, once this one is resumed, or begun again."""
        if (self.run / "run.toml").exists():
            code, told = self.go(["resume", str(self.run), "--plain"])
        else:
            shutil.rmtree(self.run, ignore_errors=True)
            code, told = self.go(self.begin())
        if code not in ENDS:
            return f"resumed, exit {code}: {told}"
        found = outcome(self.run)
        return ", ".join(name for name in found if found[name] != alone[name])


@contextmanager
def disk(folder: Path, size: str) -> Iterator[None]:
    """Inside, a folder is a disk of this size, in memory."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    """Change a disk."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def jumping() -> None:
    """Let the clock on the wall jump with each look at it."""
    own, looks = time.time, [0]

    def jumped() -> float:
        looks[0] += 1
        return own() + JUMPS[looks[0] % 2]

    time.time = jumped


@contextmanager
def little_memory(name: str) -> Iterator[Path]:
    """Inside, a cgroup (1 or 2) whose processes may take little more than they have; put them in its `cgroup.procs`."""
    root = Path("/sys/fs/cgroup/memory")
    group = (root if root.is_dir() else root.parent) / name
    group.mkdir()
    yield group
    for _ in range(50):  # until the last process is gone
        with suppress(OSError):
            group.rmdir()
            break
        time.sleep(0.1)


def limit_memory(group: Path, pid: int) -> None:
    """Put a process in a cgroup, and let it take little more than it has."""
    resident = next(
        int(line.split()[1]) << 10
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmRSS")
    )
    (group / "cgroup.procs").write_text(str(pid))
    limits = [file for file in ("memory.limit_in_bytes", "memory.max") if (group / file).exists()]
    (group / limits[0]).write_text(str(resident + MEMORY))


def worker_of(pid: int) -> int | None:
    """The process that carries out the trials of a search."""
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = path.joinpath("stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == pid and b"autoquant.tuning.isolation" in path.joinpath("cmdline").read_bytes():
                return int(path.name)
    return None


def losing(scene: Scene, alone: dict[str, Any], names: Sequence[str]) -> str:
    """Files or folders of the run are deleted while it runs."""

    def remove(pid: int) -> None:
        for name in names:
            path = scene.run / name
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    code, told = scene.go(scene.begin(), remove)
    return _verdict(code, told, (*ENDS, 2), scene.same(alone))


def full_disk(scene: Scene, alone: dict[str, Any]) -> str:
    """The disk is full in the middle; then there is a larger one."""
    with disk(scene.folder, SMALL):
        code, told = scene.go(scene.begin())
        remount(scene.folder, f"size={LARGE}")
        wrong = scene.same(alone) or ("" if "are free" in told else "does not say how much is missing")
        return _verdict(code, told, (2,), wrong)


def read_only(scene: Scene, alone: dict[str, Any]) -> str:
    """The disk of the run becomes one that cannot be written, and can be again."""
    scene.folder.mkdir()
    run_folder = str(scene.run)

    def protect(pid: int) -> None:
        subprocess.run(["mount", "--bind", run_folder, run_folder], check=True)
        remount(scene.run, "bind,ro")

    code, told = scene.go(scene.begin(), protect)
    subprocess.run(["umount", "-l", run_folder], check=True)
    return _verdict(code, told, (2,), scene.same(alone))


def clock_jumps(scene: Scene, alone: dict[str, Any]) -> str:
    """The clock on the wall jumps by a day with each look at it; budgets are of the other clock."""
    code, told = scene.go([*scene.begin(), "--timeout", "10m"], before=jumping)
    return _verdict(code, told, ENDS, scene.same(alone))


def out_of_memory(scene: Scene, alone: dict[str, Any]) -> str:
    """The process of trials allocates all that a cgroup allows: that trial is lost, and no other."""
    scene.folder.mkdir(exist_ok=True)
    metric = scene.folder / "hog.py"
    metric.write_text(HOG)

    def hog(pid: int) -> None:
        worker = worker_of(pid)
        assert worker is not None
        limit_memory(group, worker)
        metric.with_name("hog").touch()

    with little_memory(f"autoquant-{os.getpid()}") as group:
        code, told = scene.go([*scene.begin(), "--isolate", "--metric", f"{metric}:metric"], hog)
    failed = [one for one in outcome(scene.run)["trials"] if one["state"] == "failed"]
    wrong = "" if len(failed) == 1 and "SIGKILL" in failed[0]["failure"] else f"failed: {failed}"
    return _verdict(code, failed[0]["failure"] if failed else told, ENDS, wrong)


def _verdict(code: int, told: str, wanted: Sequence[int], wrong: str) -> str:
    bad = [] if code in wanted else [f"exit {code}"]
    return f"exit {code} ({told}): {'; '.join([*bad, wrong]).strip('; ') or 'same'}"


SCENES: Mapping[str, Callable[[Scene, dict[str, Any]], str]] = MappingProxyType(
    {
        "journal deleted": partial(losing, names=("study.journal",)),
        "trials deleted": partial(losing, names=("trials",)),
        "run deleted": partial(losing, names=("",)),
        "disk full": full_disk,
        "disk read-only": read_only,
        "clock jumps": clock_jumps,
        "out of memory": out_of_memory,
    }
)
ROOT = ("disk full", "disk read-only", "out of memory")
"""What only root can do."""


def main() -> int:
    """Read the arguments and play all of it."""
    parser = argparse.ArgumentParser()
    for name in ("model", "data", "calibration"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--targets", default="litert,tensorflow")
    parser.add_argument("--only", default=",".join(SCENES))
    parser.add_argument("--folder", type=Path)
    words = [*sys.argv[1:], "--"]
    place = words.index("--")
    given, options = parser.parse_args(words[:place]), words[place + 1 : -1]
    targets = given.targets.split(",")
    load(tensorflow=given.model.suffix != ".tflite" or "tensorflow" in targets)
    differ = 0
    with tempfile.TemporaryDirectory() as temporary:
        for target in targets:
            search = ["search", str(given.model.resolve()), "--plain", "--target", target, *options]
            search += ["--data", str(given.data.resolve()), "--calibration", str(given.calibration.resolve())]
            folder = (given.folder or Path(temporary)).resolve() / target
            folder.mkdir(parents=True)
            differ += play_all(search, folder, given.only.split(","), target)
    return 1 if differ else 0


def play_all(search: Sequence[str], folder: Path, names: Sequence[str], target: str) -> int:
    """These scenes of a search, in a folder; returns how many came to something else than a search left alone."""
    first = Scene(search, folder / "alone")
    first.folder.mkdir()
    code, told = first.go(first.begin())
    if code not in ENDS:
        raise SystemExit(told)
    alone, differ = outcome(first.run), 0
    print(f"{target}: alone {len(alone['trials'])} trials, best {alone['best']}, {alone['verdict']}", flush=True)
    for name in names:
        if name in ROOT and os.geteuid() != 0:
            print(f"{target}, {name}: left out, as only root can do that", flush=True)
            continue
        scene = Scene(search, folder / name.replace(" ", "-"))
        if name not in ROOT:
            scene.folder.mkdir()
        found = SCENES[name](scene, alone)
        differ += not found.endswith(": same")
        print(f"{target}, {name}: {found}", flush=True)
    return differ


if __name__ == "__main__":
    sys.exit(main())
