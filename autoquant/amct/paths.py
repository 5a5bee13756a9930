"""Where the functions write: the folder of a file is made, as AMCT does."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryFile

from autoquant.files import unwritable


def output_path(path: str | Path) -> Path:
    """The path in full, its folder made; whatever is there is overwritten later. Raises RunError."""
    full = Path(path).absolute()
    try:
        full.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(full.parent, error) from error
    return full


def check_writable(path: Path) -> None:
    """Raise RunError where no file can be written beside this one: before the work, not after it."""
    try:
        with TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise unwritable(path.parent, error) from error
