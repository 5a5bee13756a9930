"""What C++ writes to standard error past Python, held back."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stderr_held_back(*, shown_if_it_fails: bool = False) -> Iterator[None]:
    """Drop what is written to descriptor 2 within; `shown_if_it_fails` shows it after all when an exception passes."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except Exception:
            if shown_if_it_fails:
                said.seek(0)
                with open(kept, "wb", closefd=False) as stderr:
                    shutil.copyfileobj(said, stderr)
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
