"""What AMCT's functions report while they work: to standard error, and to a log file in the working directory."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from autoquant.errors import UsageError, did_you_mean
from autoquant.messages import printable

LOG = Path("amct_log") / "amct_tensorflow.log"
"""Made in the working directory when the first line is saved."""
LEVELS: Mapping[str, int] = MappingProxyType(
    {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
)
NEVER = logging.CRITICAL + 1
NAME = "autoquant.amct"


class Console(logging.Handler):
    """Writes to whatever standard error is at the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        sys.stderr.write(printable(self.format(record)) + "\n")


class LogFile(logging.Handler):
    """Appends to LOG, opened for each of its few lines, so that it is always that of the working directory."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line. Where that fails, say so once, and go on without the file."""
        try:
            LOG.parent.mkdir(exist_ok=True)
            with LOG.open("a", encoding="utf-8") as file:
                file.write(self.format(record) + "\n")
        except OSError as error:
            self.setLevel(NEVER)
            sys.stderr.write(f"{LOG} cannot be written ({error.strerror}): nothing more is saved there\n")


def set_logging_level(print_level: str = "info", save_level: str = "info") -> None:
    """Choose what is shown on standard error, and what goes to amct_log/amct_tensorflow.log.

    Levels are 'debug', 'info', 'warning' and 'error', in any case; each shows what is as severe or more. Raises
    UsageError for another.
    """
    printed, saved = _level("print_level", print_level), _level("save_level", save_level)
    logger = logging.getLogger(NAME)
    for old in [handler for handler in logger.handlers if isinstance(handler, (Console, LogFile))]:
        logger.removeHandler(old)
    for handler, level in ((Console(), printed), (LogFile(), saved)):
        handler.setLevel(level)
        handler.setFormatter(logging.Formatter("%(asctime)s - %(levelname)s - [autoquant]: %(message)s"))
        logger.addHandler(handler)
    logger.setLevel(min(printed, saved))
    logger.propagate = False


def log() -> logging.Logger:
    """The logger of AMCT's functions; at the levels that are the default where nobody has chosen any."""
    logger = logging.getLogger(NAME)
    if not any(isinstance(handler, (Console, LogFile)) for handler in logger.handlers):
        set_logging_level()
    return logger


def _level(argument: str, word: str) -> int:
    level = LEVELS.get(word.lower()) if isinstance(word, str) else None
    if level is None:
        hint = did_you_mean(str(word), LEVELS, otherwise="it can be " + ", ".join(LEVELS))
        raise UsageError(argument, f"unknown level {word!r}", hint=hint)
    return level


class ScriptLogger:
    """Writes the lines of a script between those of AMCT's functions, under the names that AMCT's logger has."""

    def push_debug_message(self, message: str, module_name: str = "") -> None:
        """Log details."""
        self._push(logging.DEBUG, message, module_name)

    def push_info_message(self, message: str, module_name: str = "") -> None:
        """Log what is done."""
        self._push(logging.INFO, message, module_name)

    def push_warning_message(self, message: str, module_name: str = "") -> None:
        """Log what may be wrong."""
        self._push(logging.WARNING, message, module_name)

    def push_error_message(self, message: str, module_name: str = "") -> None:
        """Log what is wrong."""
        self._push(logging.ERROR, message, module_name)

    def _push(self, level: int, message: str, module_name: str) -> None:
        log().log(level, "%s", f"[{module_name}]: {message}" if module_name else message)


LOGGER = ScriptLogger()
