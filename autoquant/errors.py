"""What can go wrong, as a tree; each branch has its exit code.

    AutoquantError
    |-- InputError                  2   something given cannot be used: fix it and start again
    |   |-- UsageError                  arguments that contradict each other
    |   |-- ModelError                  the model file, its inputs, outputs or operators
    |   |-- DataError                   evaluation or calibration data, preprocessing, metric
    |   |   `-- UserFunctionError           a function of the user's raised
    |   |-- SpaceError                  a search space file
    |   |-- PlanError                   a config or record file, or a plan that this model cannot follow
    |   `-- RunError                    the run's folder: exists, other model, read-only, full
    |-- TrialError                  2   one plan did not work out; a search records it and goes on without it
    |-- BudgetError                 1   the time of a search was over, or it was stopped, before its first trial ended
    |-- StorageError               75   the storage of a study was away for too long; nothing that had ended is lost
    `-- BaselineError               4   the FP32 model is worse than --min-baseline allows

A search ends with 0 when the tolerance is certified (or met, where nothing was to be certified), with 3 when it is met
but not certified, with 1 when the budget is spent without meeting it (the best that was found is kept), and with 130
when it is interrupted. Anything that is not an AutoquantError is a bug of ours: 70.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import ClassVar

MET = 0
MISSED = 1
BAD_INPUT = 2
UNCERTIFIED = 3
BELOW_MINIMUM = 4
INTERNAL = 70
AWAY = 75
INTERRUPTED = 130


IN_FLOAT = (
    "leave the layer in float: quant_enable false in its config.json or search space, skip_layers in AMCT's functions"
)
"""The way out where a layer cannot be quantized."""


def did_you_mean(name: str, known: Iterable[str], *, otherwise: str) -> str:
    """A hint for a name that is none: the closest of those that are, or what to say where none is close."""
    close = get_close_matches(name, list(known), n=1)
    return f"did you mean '{close[0]}'?" if close else otherwise


def listed(names: Sequence[str], *, most: int = 5) -> str:
    """Names for a sentence; of many, the first.

    >>> listed(["a", "b", "c", "d", "e", "f", "g"])
    'a, b, c, d, e and 2 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class OutOfTime(BaseException):  # no error, and no function of the user's must take it for one
    """The time of a search, or of a trial, is over; whoever can go on without what it ends catches it."""


class StopSearch(KeyboardInterrupt):
    """Raised by a listener to end a search in good order, with a result, as Ctrl-C does; `autoquant.resume` goes on."""


class TrialTimeout(OutOfTime):
    """The time of one trial is over."""


class AutoquantError(Exception):
    """A sentence for the person who must act: where, what, the way out."""

    exit_code: ClassVar[int] = BAD_INPUT

    def __init__(self, where: str, what: str, *, hint: str = "") -> None:
        super().__init__(where, what, hint)
        self.where = where
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f"; {self.hint}" if self.hint else "")


class InputError(AutoquantError):
    """Something given cannot be used."""


class UsageError(InputError):
    """Arguments that contradict each other or are out of range."""


class ModelError(InputError):
    """The model file, its inputs, outputs or operators."""


class DataError(InputError):
    """Evaluation or calibration data, its preprocessing, or the metric."""


class UserFunctionError(DataError):
    """A function of the user's raised, or gave what it must not: no plan is to blame."""


class SpaceError(InputError):
    """A search space file."""


class PlanError(InputError):
    """A config or record file, or a plan that this model cannot follow."""


class RunError(InputError):
    """The folder of a run."""


class TrialError(AutoquantError):
    """One plan did not work out: an overflow, a NaN, a graph that does not run. A search goes on without it."""


class BudgetError(AutoquantError):
    """The time of a search was over, or its listener stopped it, before its first trial, so that nothing is known."""

    exit_code = MISSED


class BaselineError(AutoquantError):
    """The FP32 model is worse than was asked of it at least, so that nothing is searched."""

    exit_code = BELOW_MINIMUM


class StorageError(AutoquantError):
    """The storage of a study was away for too long; what has ended is kept, and the search, or the worker, goes on."""

    exit_code = AWAY
