"""What the trials of a history show to be infeasible."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from autoquant.tuning.sampling.coding import Codes, Layers
from autoquant.tuning.sampling.history import Flags, History, drop_of
from autoquant.tuning.study.trial import Trial

RECHECKED = 1.5
"""What lost up to so many times the largest drop within tolerance may be within on all samples.

Of 16 that lost more on the samples that screened them none was.
"""
Cuts = Layers
"""Sets of layers, shape (cuts, layers); no plan may have all layers of any of them in INT8."""


@dataclass(frozen=True)
class Infeasible:
    """The plans that the trials of a history exclude.

    A trial that was not within tolerance excludes every plan with the same settings that has at least its layers in
    INT8. It is assumed that a layer in float instead never makes things worse, nor a layer in INT8 better.
    """

    history: History

    def proven_infeasible(self, codes: Codes) -> Cuts:
        """The smallest sets of layers that were proven to miss together, or failed, with the settings of a point."""
        return _smallest(self._proven(codes, self._same(codes)))

    def assumed_infeasible(self, codes: Codes) -> Cuts:
        """The same with running trials and undecided ones, but for those that are part of a plan proven within."""
        same, int8 = self._same(codes), self.history.int8
        unclear = same & self._unclear
        unclear[self._part_of_within(unclear & self.history.facts["undecided"], same)] = False
        return _smallest(np.concatenate([_smallest(self._proven(codes, same)), int8[unclear]]))

    def excludes(self, codes: Codes) -> bool:
        """Whether a plan contains one that is assumed to be infeasible."""
        same, int8 = self._same(codes), self.history.coding.int8(codes)
        if _any_inside(self._proven(codes, same), int8):
            return True
        unclear = same & self._unclear & ~(self.history.int8 & ~int8).any(axis=1)
        undecided = unclear & self.history.facts["undecided"]
        return len(self._part_of_within(undecided, same)) < int(np.count_nonzero(unclear))

    def is_open(self, codes: Codes) -> bool:
        """Whether a plan gains more than the incumbent, and no trial says how it would end."""
        improves = self.history.improves(self.history.coding.int8(codes))
        return improves and not self._already_known(codes) and not self.excludes(codes)

    def next_recheck(self) -> Trial | None:
        """Of the undecided trials that gain more than the incumbent and may well be within, the one of least drop."""
        history = self.history
        undecided = np.flatnonzero(history.facts["undecided"])
        doubts = [
            trial
            for place, codes, int8 in zip(undecided, history.codes[undecided], history.int8[undecided], strict=True)
            for trial in [history.trials[place]]
            if history.improves(int8)
            and drop_of(trial) <= RECHECKED * history.max_drop
            and not any(other.max_samples == history.problem.total for other in history.trials_of(trial.parameters))
            and not _any_inside(self._proven(codes, self._same(codes)), int8)
        ]
        return min(doubts, key=lambda trial: (drop_of(trial), trial.number), default=None)

    def _already_known(self, codes: Codes) -> bool:
        """As `History.already_known`, without a limit on samples."""
        same_plan = self._same(codes) & (self.history.int8 == self.history.coding.int8(codes)).all(axis=1)
        facts = self.history.facts
        return bool((same_plan & (facts["final"] | facts["unlimited"])).any())

    def _proven(self, codes: Codes, same: Flags) -> Cuts:
        """The layers of each trial that were proven to miss, or failed, in the order of the trials."""
        cuts, rows = self.history.int8, np.flatnonzero(same & self._missed)
        if not self._faults:
            return cuts[rows]
        history, found = self.history, {row: cuts[row] for row in rows.tolist()}
        for row, layer in self._faults.items():
            own = history.coding.own(layer)
            if (history.codes[row, own] == codes[own]).all():
                found[row] = cuts[row] & (history.coding.layers == layer)
        return np.array([found[row] for row in sorted(found)], dtype=np.bool_).reshape(len(found), cuts.shape[1])

    def _same(self, codes: Codes) -> Flags:
        """The trials of which all that was in INT8 has the settings of a point."""
        settings = self.history.coding.settings
        return np.asarray(~((self._settings != codes[settings]) & self._relevant).any(axis=1))

    def _part_of_within(self, rows: Flags, same: Flags) -> NDArray[np.intp]:
        """Of these trials the numbers of those whose layers are part of what was proven within."""
        int8 = self.history.int8
        places = np.flatnonzero(rows)
        return places[_inside(int8[places], int8[same & self.history.facts["within"]]).any(axis=1)]

    @cached_property
    def _settings(self) -> Codes:
        return self.history.codes[:, self.history.coding.settings]

    @cached_property
    def _relevant(self) -> Layers:
        return self.history.coding.relevant(self.history.int8)

    @cached_property
    def _faults(self) -> dict[int, int]:
        """Place of a trial that failed -> the layer in INT8 that did it."""
        number = {name: place for place, name in enumerate(self.history.coding.switches)}
        failed = [(row, self.history.trials[row]) for row in np.flatnonzero(self.history.facts["failed"]).tolist()]
        named = ((row, number[one.at_fault]) for row, one in failed if one.at_fault in number)
        return {row: layer for row, layer in named if self.history.int8[row, layer]}

    @cached_property
    def _missed(self) -> Flags:
        """Trials that were not within, or failed for no layer's sake."""
        facts = self.history.facts
        missed = facts["failed"] | facts["missed"]
        missed[list(self._faults)] = False
        return np.asarray(missed)

    @cached_property
    def _unclear(self) -> Flags:
        facts = self.history.facts
        return np.asarray(facts["unlimited"] & ~facts["within"])


def _any_inside(cuts: Cuts, int8: Layers) -> bool:
    """Whether all layers of any cut are in INT8."""
    return bool((~(cuts & ~int8).any(axis=1)).any())


def _smallest(cuts: Cuts) -> Cuts:
    """Those that contain no other, each once, in their order of size."""
    ordered = cuts[np.argsort(np.count_nonzero(cuts, axis=1), kind="stable")]
    return ordered[~np.triu(_inside(ordered, ordered), 1).any(axis=0)]


def _inside(some: Cuts, others: Cuts) -> Cuts:
    """Whether all layers of one set are in another, shape (some, others)."""
    return np.asarray(some.astype(np.float32) @ (~others).astype(np.float32).T == 0.0)
