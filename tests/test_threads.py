"""One thread of BLAS, and as many as before afterwards."""

from __future__ import annotations

import threading

import scipy.linalg  # noqa: F401  # has a library of its own
from threadpoolctl import threadpool_info, threadpool_limits

from autoquant.threads import one_blas_thread


def threads() -> list[int]:
    """Of each library that computes with matrices."""
    return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]


def test_one_thread_within_and_as_many_as_before_afterwards() -> None:
    with threadpool_limits(2, user_api="blas"):
        before = threads()
        assert before
        with one_blas_thread():
            assert set(threads()) == {1}
            with one_blas_thread():
                pass
            assert set(threads()) == {1}
        assert threads() == before


def test_threads_of_python_do_not_undo_what_others_did() -> None:
    """One comes later and stays longer than the other."""
    before, entered, left = threads(), threading.Event(), threading.Event()

    def other() -> None:
        with one_blas_thread():
            entered.set()
            left.wait()

    thread = threading.Thread(target=other)
    with one_blas_thread():
        thread.start()
        entered.wait()
    left.set()
    thread.join()
    assert threads() == before
