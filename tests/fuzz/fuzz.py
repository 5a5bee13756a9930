"""Damaged files for every parser: none may end in a traceback, a crash, a hang, much memory, or be taken for whole.

    python tests/fuzz/fuzz.py [--cases 1000] [--seed 0] [--parsers pb,npz] [--keep FOLDER]

Cases run in processes that are forked from one that has everything imported, and has run nothing of TensorFlow. A case
is named by parser, seed and number, and repeats itself by these.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from mutations import mutate  # noqa: E402  # beside this script
from parsers import PARSERS, Parser, expected, placed  # noqa: E402

SECONDS = 20
"""That a case may take; what does not end by itself then is killed."""
MEMORY = 1 << 30
"""Bytes by which the largest resident size may grow in a case; twice as many of addresses can be had at all."""
BATCH = 100
"""Cases of a process."""
IMPORTED = (
    "tensorflow",
    "keras",
    "optuna",
    "ai_edge_litert.interpreter",
    "autoquant.api",
    "autoquant.model.load",
    "autoquant.model.litert.load",
    "autoquant.model.interface",
    "autoquant.model.normalize",
    "tensorflow.python.framework.convert_to_constants",
    "tensorflow.python.lib.io.tf_record",
)


@dataclass
class Report:
    """What came of the cases of a parser: how many by outcome, and those that should not be."""

    counts: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)


def imported() -> None:
    """Import all that parsers need, and run nothing: threads of TensorFlow do not survive a fork."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in IMPORTED:
        importlib.import_module(name)


def damaged(parser: Parser, corpora: Path, name: str, seed: int, number: int) -> tuple[str, bytes]:
    """The file of a case, and its content."""
    chance = random.Random(zlib.crc32(f"{name} {seed} {number}".encode()))
    file = chance.choice(parser.files)
    return file, mutate(chance, (corpora / file).read_bytes(), text=parser.text)


def fuzzed(name: str, corpora: Path, numbers: range, seed: int, keep: Path | None = None) -> Report:
    """Run the cases of a parser; what fails is kept in a folder, if there is one."""
    report, parser = Report(), PARSERS[name]
    start = numbers.start
    while start < numbers.stop:
        stop = min(start + BATCH, numbers.stop)
        last = start
        for number, outcome in _in_child(name, corpora, range(start, stop), seed):
            last = number + 1
            kind, _, told = outcome.partition(": ")
            report.counts[kind] += 1
            if kind not in ("accepted", "refused"):
                report.findings.append(f"{name} {seed} {number}: {outcome}")
                if keep is not None:
                    file, content = damaged(parser, corpora, name, seed, number)
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{name}-{seed}-{number}-{Path(file).name}").write_bytes(content)
                    (keep / f"{name}-{seed}-{number}.txt").write_text(told)
        start = last
    return report


def _in_child(name: str, corpora: Path, numbers: range, seed: int) -> Iterator[tuple[int, str]]:
    """Cases and outcomes, up to the first that takes its process down."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _silence()
        try:
            _run_cases(name, corpora, numbers, seed, lambda line: os.write(writer, line.encode() + b"\n"))
        finally:
            os._exit(0)
    os.close(writer)
    current, left = numbers.start, b""
    try:
        while current < numbers.stop:
            ready, _, _ = select.select([reader], [], [], 2 * SECONDS)
            part = os.read(reader, 1 << 20) if ready else b""
            if not part:
                yield current, "hang: it had to be killed" if not ready else "crash: its process died"
                return
            *lines, left = (left + part).split(b"\n")
            for line in lines:
                current, outcome = json.loads(line)
                yield current, outcome
                current += 1
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _silence() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)


def _run_cases(name: str, corpora: Path, numbers: range, seed: int, tell: Callable[[str], Any]) -> None:
    parser, originals = PARSERS[name], dict[str, Any]()
    signal.signal(signal.SIGALRM, _too_long)
    _limit_addresses()
    for number in numbers:
        file, content = damaged(parser, corpora, name, seed, number)
        if file not in originals:
            with tempfile.TemporaryDirectory() as folder:
                originals[file] = expected(parser, corpora, Path(folder), file)
        with tempfile.TemporaryDirectory() as folder:
            path = placed(parser, corpora, file, content, Path(folder))
            outcome = _outcome(parser, path, originals[file])
        tell(json.dumps([number, outcome]))


def _outcome(parser: Parser, path: Path, original: Any) -> str:
    from autoquant.errors import AutoquantError

    before = _largest()
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        found = parser.open(path)
        outcome = "accepted"
        if parser.unchanged is not None and parser.unchanged(found) != original:
            outcome = "damage accepted: it is another"
    except AutoquantError as error:
        outcome = "refused" if str(error).isprintable() or "\n" not in str(error) else f"lines: {error}"
    except MemoryError:
        outcome = f"memory: {traceback.format_exc()}"
    except TimeoutError:
        outcome = f"hang: {traceback.format_exc()}"
    except BaseException:  # whatever it is, it is a finding
        outcome = f"traceback: {traceback.format_exc()}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    grown = _largest() - before
    return f"memory: {grown / 1e9:.2f} GB more" if grown > MEMORY else outcome


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TimeoutError


def _limit_addresses() -> None:
    """Of this process, so that what would take very much memory fails instead of the machine."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + 2 * MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _largest() -> int:
    """The largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(words: Sequence[str] | None = None) -> int:
    """Run cases of each parser, slow ones a tenth as many, and write a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parsers", default=",".join(PARSERS))
    parser.add_argument("--corpora", type=Path, default=HERE / "corpora")
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args(words)
    found = 0
    imported()
    for name in args.parsers.split(","):
        begin, cases = time.monotonic(), args.cases // 10 if PARSERS[name].slow else args.cases
        report = fuzzed(name, args.corpora, range(cases), args.seed, args.keep)
        counts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(report.counts.items()))
        print(f"{name:17}{cases:7,} cases in {time.monotonic() - begin:6.1f} s: {counts}", flush=True)
        for finding in report.findings[:20]:
            first, *_, last = finding.strip().splitlines() * 2
            print(f"    {first[:60]} ... {last[:150]}")
        found += len(report.findings)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
