from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoquant.cli.process import interruptible

NOISE = "import os; os.write(2, b'noise from C++\\n')\n"
IMPORT = "import sys\nfrom autoquant.cli.process import import_tensorflow\nimport_tensorflow(verbose={})\nprint('ok')"


def test_only_the_result_reaches_standard_output(python: Callable[..., Any]) -> None:
    code = """
import os, sys
from autoquant.cli.process import stdout_for_the_result
print("before")
with stdout_for_the_result():
    print("from Python")
    os.write(1, b"from C++\\n")
    os.system("echo from a child")
print("after")
"""
    done = python("-c", code)
    assert done.returncode == 0
    assert done.stdout == "before\nafter\n"
    assert sorted(done.stderr.splitlines()) == ["from C++", "from Python", "from a child"]


@pytest.mark.parametrize(("asked", "said"), [(None, "1"), ("0", "0")])
def test_tensorflow_is_told_to_give_memory_back(
    asked: str | None, said: str, python: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it is loaded, unless the environment says otherwise."""
    (tmp_path / "tensorflow.py").write_text("import os; said = os.environ['TF_ONEDNN_USE_SYSTEM_ALLOCATOR']")
    monkeypatch.delenv("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", raising=False)
    if asked is not None:
        monkeypatch.setenv("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", asked)
    code = IMPORT.format(False) + "; import tensorflow; print(tensorflow.said)"
    assert python("-c", code, first=str(tmp_path)).stdout == f"ok\n{said}\n"


def test_sigterm_is_ctrl_c_inside_only() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_interruption_while_an_object_is_deleted_takes_effect(python: Callable[..., Any]) -> None:
    """Python swallows what is raised there; and the next signal is the second one. What waits in C is interrupted."""
    text = """
import os, signal, time
from autoquant.cli.process import interruptible

class Late:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)

try:
    with interruptible():
        late = Late()
        del late
        signal.pause()
except KeyboardInterrupt:
    print("interrupted")
"""
    done = python("-c", text, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


def test_a_second_signal_ends_the_process_at_once(python: Callable[..., Any]) -> None:
    """Though what the first one interrupted goes on for ever."""
    code = """
import os, signal
from autoquant.cli.process import interruptible

with interruptible():
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            os.kill(os.getpid(), number)
            print("not interrupted")
        except KeyboardInterrupt:
            print("interrupted", flush=True)
"""
    done = python("-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (130, "interrupted\n", "")


def test_a_scheduler_may_send_sigterm_twice(python: Callable[..., Any]) -> None:
    """What the first one began to clean up is not cut off; later it is a second one."""
    code = """
import os, signal
from autoquant.cli import process

with process.interruptible():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except KeyboardInterrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        print("cleaned up", flush=True)
        process.TWICE = 0.0
        os.kill(os.getpid(), signal.SIGTERM)
        print("not ended")
"""
    done = python("-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (130, "cleaned up\n", "")


def test_an_interruption_while_modules_load_is_no_traceback(python: Callable[..., Any]) -> None:
    code = """
import os, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored where these tests run

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == "autoquant.cli.main":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
from autoquant.__main__ import run
sys.exit(run())
"""
    done = python("-c", code)
    assert (done.returncode, done.stderr) == (130, "")


def test_an_interruption_that_python_swallowed_takes_effect(python: Callable[..., Any]) -> None:
    """As in a __del__ during the import: "Exception ignored in", and on it goes."""
    code = """
import os, signal
from autoquant.cli.process import _interrupts_kept

class Swallowing:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)

try:
    with _interrupts_kept():
        Swallowing()
        print("went on")
except KeyboardInterrupt:
    print("interrupted")
"""
    done = python("-c", code)
    assert done.stdout == "went on\ninterrupted\n"


@pytest.fixture
def import_of(tmp_path: Path, python: Callable[..., Any]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Imports a module `tensorflow` with this source."""

    def run(source: str, *, verbose: bool = False) -> Any:
        (tmp_path / "tensorflow.py").write_text(source)
        return python("-c", IMPORT.format(verbose), first=str(tmp_path))

    return run


def test_chatter_of_the_import_is_not_shown(import_of: Callable[..., Any]) -> None:
    done = import_of(NOISE)
    assert (done.stdout, done.stderr) == ("ok\n", "")


def test_verbose_shows_it(import_of: Callable[..., Any]) -> None:
    done = import_of(NOISE, verbose=True)
    assert (done.stdout, done.stderr) == ("ok\n", "noise from C++\n")


def test_chatter_is_shown_when_the_import_fails(import_of: Callable[..., Any]) -> None:
    done = import_of(NOISE + "raise ImportError('libfoo.so is missing')")
    assert done.stderr.startswith("noise from C++\n")
    assert "tensorflow: cannot be imported (libfoo.so is missing)" in done.stderr


def test_chatter_is_not_shown_when_the_import_is_interrupted(import_of: Callable[..., Any]) -> None:
    done = import_of(NOISE + "raise KeyboardInterrupt")
    assert "noise" not in done.stderr
