"""The file of a journal of Optuna, whatever is left in it of processes that died, or were stopped, while they wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

BEGIN = b'{"op_code":'
"""How each record begins, and nothing within one: quotes in values are escaped."""


class JournalFile(JournalFileBackend):
    """Optuna's file of lines, each a record; what is half a line is no record, and costs none that is whole.

    Optuna itself would read nothing any more, in any process, once a line follows half of one.
    """

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """The records of whole lines from one on, by number."""
        number, end = log_number_from, self._log_number_offset[log_number_from]
        with Path(self._file_path).open("rb") as file:
            file.seek(end)
            for line in file:
                if not line.endswith(b"\n"):  # somebody is writing it
                    return
                end += len(line)
                record = _record(line)
                if record is not None:
                    number += 1
                    self._log_number_offset[number] = end
                    yield record

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Write lines, in a line of their own whatever is before them."""
        lines = b"".join(json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs)
        with self._locked(), Path(self._file_path).open("a+b") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                lines = lines if file.read(1) == b"\n" else b"\n" + lines
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock; whoever was stopped for so long that another took it has written all the same."""
        self._lock.acquire()
        try:
            yield
        finally:
            with suppress(RuntimeError):
                self._lock.release()


def _record(line: bytes) -> dict[str, Any] | None:
    """The record of a line, also where it follows half of another in it; None where there is none."""
    start = 0
    while start >= 0:
        try:
            found = json.loads(line[start:])
        except (ValueError, RecursionError):
            start = line.find(BEGIN, start + 1)
        else:
            return found if isinstance(found, dict) and "op_code" in found else None
    return None
