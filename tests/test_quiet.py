"""The standard error of C++ is suppressed, and nothing else."""

from __future__ import annotations

import os
import sys

import pytest

from autoquant.quiet import show, stderr_held_back, stdout_without


def test_words_are_left_out_and_all_else_follows(capfd: pytest.CaptureFixture[str]) -> None:
    print("before")
    with stdout_without(b"nonsense\n"):
        os.write(1, b"nonsense\n")
        print("meanwhile")
        os.write(1, b"nonsense\n")
    print("after")
    assert capfd.readouterr().out == "before\nmeanwhile\nafter\n"


def test_standard_output_is_back_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="bad"), stdout_without(b"nonsense\n"):
        print("said")
        raise ValueError("bad")
    print("after")
    assert capfd.readouterr().out == "said\nafter\n"


def test_what_is_to_be_shown_comes_through_while_all_else_is_held_back(capfd: pytest.CaptureFixture[str]) -> None:
    with stderr_held_back(), stderr_held_back():
        os.write(2, b"noise of C++\n")
        show("loading: 11s\n", sys.stderr)
    show("loaded\n", sys.stderr)
    assert capfd.readouterr().err == "loading: 11s\nloaded\n"
