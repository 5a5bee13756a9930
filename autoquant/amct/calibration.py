"""The calibration of a live graph: what its probes have seen so far, and the record at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from weakref import WeakValueDictionary

import numpy as np

from autoquant.amct.collecting import Collectors
from autoquant.amct.logs import log
from autoquant.amct.skeleton import skeleton_text
from autoquant.calibration.plan import Plan
from autoquant.calibration.record import Calibrator
from autoquant.errors import TrialError
from autoquant.files import write_text
from autoquant.formats.record_text import save_record
from autoquant.model.graph import Graph
from autoquant.model.layer import Layer
from autoquant.quantization.affine import Array

SHOWN = 5
"""Layers that are named where more of them wait."""


class Calibration:
    """Fills up while sessions run; its record file has an empty entry for each layer until all have seen all passes.

    `error` is what ended it, if anything did. The counters of passes set to zero start it anew; a finished record stays
    until the next one is finished.
    """

    def __init__(self, graph: Graph, layers: Mapping[str, Layer], plan: Plan, record_file: Path) -> None:
        """`layers` are those that the plan puts into INT8, in graph order."""
        self.error: Exception | None = None
        self._graph = graph
        self._layers = layers
        self._plan = plan
        self._path = record_file
        self._lock = Lock()
        self._finished = False
        self._begin()
        write_text(record_file, skeleton_text(key for layer in layers.values() for key in layer.records))
        _CALIBRATIONS[record_file.resolve()] = self

    def see(self, name: str, number: Array, *activations: Array) -> None:
        """Take in what a layer reads in one pass, of which no two have the same `number`.

        Raises TrialError where that holds NaN or infinity, or is too large for memory; of the last layer in the last
        pass, also where the values of any layer have no scale.
        """
        with self._lock:
            if int(number) in self._passes[name]:
                self._begin_anew()
            if self.error is not None or len(self._passes[name]) == self._plan.batch_num:
                return
            self._passes[name].add(int(number))
            try:
                _check_finite(name, len(self._passes[name]), activations)
                self._collectors.add(name, activations)
                if not self._waiting():
                    self._finish()
            except Exception as error:
                self.error = error
                raise

    def progress(self) -> str:
        """Which layers have not seen all passes, and how many they have.

        For example: conv, dense: 1 of 2 passes.
        """
        waiting: dict[int, list[str]] = {}
        for name in self._waiting():
            waiting.setdefault(len(self._passes[name]), []).append(name)
        return "; ".join(f"{shown(names)}: {n} of {self._plan.batch_num} passes" for n, names in waiting.items())

    def _begin(self) -> None:
        self.error = None
        self._passes: dict[str, set[int]] = {name: set() for name in self._layers}
        self._collectors = Collectors(self._plan, self._layers)

    def _begin_anew(self) -> None:
        if self._finished and not self._waiting():
            text = "variables were initialized again: the next batch_num=%d passes calibrate anew; until then %s stays"
            log().warning(text, self._plan.batch_num, self._path)
        self._begin()

    def _waiting(self) -> list[str]:
        return [name for name, passes in self._passes.items() if len(passes) < self._plan.batch_num]

    def _finish(self) -> None:
        log().info("all data is there: computing the scales of %d layers", len(self._layers))
        statistics = self._collectors.statistics()
        self._collectors = Collectors(self._plan, self._layers)  # lets go of what was collected
        save_record(Calibrator(self._graph, self._layers, statistics).record(self._plan), self._path)
        self._finished = True
        log().info("the calibration is finished: %s", self._path)


_CALIBRATIONS: WeakValueDictionary[Path, Calibration] = WeakValueDictionary()
"""By record file, as long as the graph is there that they belong to."""


def calibration_of(record_file: Path) -> Calibration | None:
    """The calibration of this process that writes a record file; None where its graph is gone, or never was."""
    return _CALIBRATIONS.get(record_file.resolve())


def shown(names: Sequence[str]) -> str:
    """Names for a sentence; of many, the first.

    >>> shown(["a", "b", "c", "d", "e", "f", "g"])
    'a, b, c, d, e and 2 more'
    """
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _check_finite(name: str, number: int, activations: Sequence[Array]) -> None:
    wrong = sum(values.size - int(np.count_nonzero(np.isfinite(values))) for values in activations)
    if wrong:
        what = f"its input holds {wrong} NaN or infinite values in pass {number}"
        raise TrialError(name, what, hint="leave the layer in float (quant_enable false), or repair the data or model")
