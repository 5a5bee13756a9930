"""AMCT's automatic calibration: by bisection, the fewest layers that go back to float, in the order of a ranking."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from autoquant.tuning.sampling.coding import Coding
from autoquant.tuning.sampling.problem import Choices, start_of, switches_of, with_int8
from autoquant.tuning.study.space import Parameters, Suggestion
from autoquant.tuning.study.trial import State, Trial

Ranking = Callable[[], Mapping[str, float]]
"""Gives, when it is first needed, a number for each layer: the larger, the less INT8 changes the layer."""


@dataclass(frozen=True, slots=True)
class Bisection:
    """Of a bisection the number to try next, or, where it is `done`, the fewest that suffice."""

    number: int
    done: bool


def bisect(count: int, suffices: Callable[[int], bool | None]) -> Bisection:
    """Find the fewest of `count` that suffice; all of them do, and it is taken for granted that more do as well.

    `suffices` says whether a number does, None where that is not known yet.

    >>> bisect(8, {4: False, 6: True}.get), bisect(8, {4: False, 6: True, 5: False}.get)
    (Bisection(number=5, done=False), Bisection(number=6, done=True))
    """
    left, right, fewest = 1, count, count
    while left <= right:
        middle = (left + right) // 2
        known = suffices(middle)
        if known is None:
            return Bisection(middle, done=False)
        if known:
            fewest, right = middle, middle - 1
        else:
            left = middle + 1
    return Bisection(fewest, done=True)


def probes(count: int, suffices: Callable[[int], bool | None]) -> Iterator[int]:
    """The number that a bisection tries next, then those it would try if that did not suffice, or if it did, and so on.

    Those behind fewer answers that are not known come first.

    >>> list(probes(8, {4: False}.get))
    [6, 7, 5, 8]
    """
    answers: deque[Mapping[int, bool]] = deque([{}])
    while answers:
        assumed = answers.popleft()
        step = bisect(count, partial(_answer, assumed, suffices))
        if not step.done:
            yield step.number
            answers += [{**assumed, step.number: False}, {**assumed, step.number: True}]


def _answer(assumed: Mapping[int, bool], suffices: Callable[[int], bool | None], number: int) -> bool | None:
    return assumed[number] if number in assumed else suffices(number)


@dataclass(frozen=True)
class RankAndBisect:
    """All layers in INT8, then by bisection the fewest layers, from the worst on, in float.

    As `autoquant.amct.strategy.BinarySearchStrategy`, but from the trials and without a state of its own.
    """

    choices: Choices
    ranking: Ranking

    def __call__(self, trials: Sequence[Trial]) -> Suggestion | None:
        """The next probe of the bisection, as far as it was tried; None at its end, and while the start is running.

        While a probe is running, the probe that follows it, first if it is not within, then if it is, and so on.
        """
        start = start_of(self.choices)
        tried = self._trials_of(start, trials)
        if not tried:
            return Suggestion(start, "all INT8, with the preferred settings", "start")
        if _all_undecided(tried):
            return self._rescore(start)
        return self._bisect(trials) if _verdict(tried) is False else None

    def _bisect(self, trials: Sequence[Trial]) -> Suggestion | None:
        ranking = self.ranking()
        layers = sorted(self.choices.layers, key=lambda name: ranking[name])

        def point(in_float: int) -> Parameters:
            start = start_of(self.choices)
            return with_int8(start, self.choices, switches_of(self.choices).keys() - set(layers[:in_float]))

        def suffices(in_float: int) -> bool | None:  # all of them in float need no trial
            return in_float == len(layers) or _verdict(self._trials_of(point(in_float), trials))

        for number in probes(len(layers), suffices):
            tried = self._trials_of(point(number), trials)
            if not tried:
                return Suggestion(point(number), f"amct: the {number} worst layers in float", "amct")
            if _all_undecided(tried):
                return self._rescore(point(number))
        return None

    def _trials_of(self, point: Parameters, trials: Sequence[Trial]) -> list[Trial]:
        key = self._coding.key(point)
        return [trial for trial in trials if self._coding.key(trial.parameters) == key]

    @cached_property
    def _coding(self) -> Coding:
        return Coding(self.choices)

    def _rescore(self, point: Parameters) -> Suggestion:
        return Suggestion(point, "amct: what was undecided, on all samples", "amct", self.choices.total)


def _all_undecided(tried: Sequence[Trial]) -> bool:
    """Whether a plan was tried, and nothing is known of it."""
    return bool(tried) and all(trial.undecided for trial in tried)


def _verdict(tried: Sequence[Trial]) -> bool | None:
    """Whether a plan is within tolerance; None as long as nobody has tried it to the end. What failed is not."""
    ended = [trial for trial in tried if trial.state is not State.RUNNING and not trial.undecided]
    return any(trial.within for trial in ended) if ended else None
