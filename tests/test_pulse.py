"""Lines that another process writes while this one cannot, by a clock of ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from autoquant import pulse
from autoquant.pulse import Pulse, Watch


def test_a_process_that_is_stuck_is_written_for() -> None:
    """It was heard of last at 5 s, and wrote last at 3 s; at 40 s it is there again."""
    written: list[str] = []
    now = [0.0]
    watch = Watch(written.append, lambda: now[0])
    for second in range(50):
        now[0] = float(second)
        if second <= 5 or second >= 40:
            watch.hear(Pulse(60.0 + second, second - 1.0, second - 3.0 if second < 40 else 0.0, "lowering the model"))
        watch.look()
    assert written == [
        "[ 1m13s] lowering the model: 12s so far",
        "[ 1m23s] lowering the model: 22s so far",
        "[ 1m33s] lowering the model: 32s so far",
    ]


def test_nothing_is_written_before_anything_is_heard() -> None:
    written: list[str] = []
    Watch(written.append, lambda: 99.0).look()
    assert written == []


def test_a_pulse_comes_back_as_it_was() -> None:
    one = Pulse(1.5, 0.25, 0.125, "sensitivity of layers")
    assert Pulse.parse(f"{one}\n") == one


def test_the_process_ends_with_what_it_reads() -> None:
    command = [sys.executable, "-I", "-S", str(Path(pulse.__file__))]
    done = subprocess.run(command, input="1 1 1 x\n", capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("", "")
