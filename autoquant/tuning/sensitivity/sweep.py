"""Runs variants of a .tflite side by side, part by part: what is in front of a variant, the float model has computed.

The model is cut into parts. Each hands on a row for each sample and variant, those of the float model first, and a
variant begins with the float rows of the part that its operator is in. So no operator runs for a variant in front of
that, each operator is in one file, and in few others as a copy, however many layers there are.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

import numpy as np

from autoquant.array import Array
from autoquant.evaluation.data.batch import Batch
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.decoding import cores
from autoquant.evaluation.engines.litert import LiteRTRunner
from autoquant.memory import trim_memory
from autoquant.model.litert.builder import LiteBuilder
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.parts import Cutter, Part
from autoquant.tuning.sensitivity.likelihoods import Likelihood
from autoquant.tuning.sensitivity.variants import RoundedTensor, Suffix, Variant, add_variant

ROOM = 1 << 24
"""Bytes of what is handed on from a part to the next one; what each part takes for itself grows with it."""
BATCH = 64
"""Samples that run together, or as few as it takes to have room for all variants of a part."""
FLOAT = "float"
State = dict[int, Array]
"""What is handed on, by tensor: rows of samples, those of the float model first, then those of each variant."""


@dataclass(frozen=True)
class Sweep:
    """The parts of a model, an interpreter for each; `likelihoods` are those of its outputs that count.

    `wanted` are these by tensor; a row takes so many bytes at most, `row_bytes`, in any part.
    """

    lite: LiteGraph
    likelihoods: Mapping[str, Likelihood]
    wanted: Mapping[int, str]
    parts: Sequence[Part]
    runners: Sequence[LiteRTRunner]
    row_bytes: int

    @classmethod
    def of(cls, lite: LiteGraph, data: Dataset, likelihoods: Mapping[str, Likelihood]) -> Sweep:
        """Cut the model, but not where rows turn out to be no samples. Raises TrialError where it does not run."""
        outputs = zip(map(int, lite.subgraph.outputs), lite.outputs, strict=True)
        wanted = {tensor: name for tensor, name in outputs if name in likelihoods}
        cutter, batch = Cutter(lite, wanted.keys()), next(data.batches(2))
        for cut in (cutter.parts, cutter.whole):
            parts = cut()
            sweep = cls(lite, likelihoods, wanted, parts, [_opened(part.lite) for part in parts], 1)
            held = [list(state.values()) for state in sweep._float_rows(batch)]
            if len(parts) == 1 or all(len(rows) == len(batch) for arrays in held for rows in arrays):
                break
            sweep.close()
        largest = max(sum(rows.nbytes for rows in arrays) for arrays in held)
        return replace(sweep, row_bytes=max(largest // len(batch), 1))

    def close(self) -> None:
        """Free the interpreters, each of which had room for what is handed on."""
        for runner in self.runners:
            runner.close()
        trim_memory(len(self.lite.content) + ROOM * len(self.parts))

    def suffix(self, variant: Variant) -> Suffix:
        """What runs once more for a variant in its own part."""
        part = self.parts[self._part_of(variant)]
        return Suffix.of(part.lite, _within(part, variant))

    def measured(self, variants: Sequence[Variant], data: Dataset, on_samples: Callable[[int], None]) -> list[float]:
        """The mean divergence, in nats, of each variant's outputs; infinite where it is no number.

        `on_samples` is told how many samples are done. Raises ModelError where what is behind a variant cannot be
        doubled.
        """
        by_part: dict[int, list[int]] = {}
        for number, variant in enumerate(variants):
            by_part.setdefault(self._part_of(variant), []).append(number)
        rows = max(ROOM // self.row_bytes, 1)
        size = min(BATCH, max(rows // (1 + max(map(len, by_part.values()))), 1))
        groups = list(_grouped(sorted(by_part.items()), most=max(rows // size - 1, 1)))
        total, done = np.zeros(len(variants)), 0
        on_samples(done)
        with ExitStack() as stack:
            heads = {
                part: stack.enter_context(closing(self._head(self.parts[part], {one: variants[one] for one in own})))
                for part, own in by_part.items()
            }
            for batch in data.batches(size):
                state, begin = self._inputs(batch), 0
                for number, group in enumerate(groups):
                    for part in range(begin, min(group)):
                        state = self._step(part, state, len(batch), (), None)
                    begin = min(group)
                    self._run(begin, state, len(batch), group, heads, total)
                    on_samples(done + len(batch) * (number + 1) // len(groups))
                done += len(batch)
        return [float(value) / len(data) if np.isfinite(value) else np.inf for value in total]

    def _run(
        self,
        begin: int,
        state: State,
        size: int,
        group: Mapping[int, Sequence[int]],
        heads: Mapping[int, LiteRTRunner],
        total: Array,
    ) -> None:
        """Run variants to the end, from float rows of so many samples at a part on; add their divergences up."""
        numbers: list[int] = []
        for part in range(begin, len(self.parts)):
            own = group.get(part, ())
            state = self._step(part, state, size, own, heads[part] if own else None)
            numbers += own
            for tensor in self.wanted.keys() & set(self.parts[part].makes):
                before, *after = np.split(state[tensor], range(size, len(state[tensor]), size))
                divergence = self.likelihoods[self.wanted[tensor]].divergence
                for number, rows in zip(numbers, after, strict=True):
                    total[number] += np.maximum(divergence(before, rows), 0.0).sum()  # rounding can make them negative

    def _step(self, number: int, state: State, size: int, own: Sequence[int], head: LiteRTRunner | None) -> State:
        """Run a part on what is handed on to it, and its own variants on the float rows: their rows come last.

        What the part makes and what is handed on behind it.
        """
        part = self.parts[number]
        feeds = {str(tensor): state[tensor] for tensor in part.reads}
        handed = {tensor: [state[tensor]] for tensor in part.live if tensor not in part.makes}
        if head is None:
            found = self.runners[number](feeds)
            return {tensor: rows for tensor, (rows,) in handed.items()} | {t: found[str(t)] for t in part.makes}
        alone = head({name: rows[:size] for name, rows in feeds.items()})
        handed |= {tensor: [alone[f"{FLOAT}/{tensor}"]] for tensor in part.makes}
        if any(len(rows) > size for rows in feeds.values()):
            others = self.runners[number]({name: rows[size:] for name, rows in feeds.items()})
            handed |= {tensor: [*handed[tensor], others[str(tensor)]] for tensor in part.makes}
        for tensor, blocks in handed.items():
            blocks += [alone.get(f"{one}/{tensor}", blocks[0][:size]) for one in own]
        return {tensor: np.concatenate(blocks) for tensor, blocks in handed.items()}

    def _head(self, part: Part, variants: Mapping[int, Variant]) -> LiteRTRunner:
        """The part with what variants compute otherwise in it, called `<number>/<tensor>` of what it hands on."""
        builder = LiteBuilder(part.lite)
        tensors = {f"{FLOAT}/{tensor}": part.places[tensor] for tensor in part.makes}
        for number, variant in variants.items():
            own = add_variant(builder, _within(part, variant))
            known = {tensor: part.places[tensor] for tensor in (*part.makes, *part.live) if tensor in part.places}
            tensors |= {f"{number}/{tensor}": own[place] for tensor, place in known.items() if place in own}
        return LiteRTRunner(builder.write(tensors), part.lite.inputs, list(tensors), cores())

    def _inputs(self, batch: Batch) -> State:
        names = zip(map(int, self.lite.subgraph.inputs), self.lite.inputs, strict=True)
        return {tensor: batch.inputs[name] for tensor, name in names}

    def _float_rows(self, batch: Batch) -> Iterator[State]:
        """What is handed on behind each part for some samples."""
        state = self._inputs(batch)
        for number in range(len(self.parts)):
            state = self._step(number, state, len(batch), (), None)
            yield state

    def _part_of(self, variant: Variant) -> int:
        """The part of a variant's operator, or where its tensor is made, or first read."""
        operator = self.lite.makers.get(variant.tensor) if isinstance(variant, RoundedTensor) else variant.operator
        if operator is not None:
            return bisect_right([part.start for part in self.parts], operator) - 1
        assert isinstance(variant, RoundedTensor)
        return next(number for number, part in enumerate(self.parts) if variant.tensor in part.places)


def _within(part: Part, variant: Variant) -> Variant:
    """The same variant of a part that it is in."""
    if isinstance(variant, RoundedTensor):
        return replace(variant, tensor=part.places[variant.tensor])
    return replace(variant, operator=variant.operator - part.start)


def _grouped(by_part: Sequence[tuple[int, Sequence[int]]], *, most: int) -> Iterator[Mapping[int, Sequence[int]]]:
    """Variants by part, so many at once, or those of one part where these are more."""
    group: dict[int, Sequence[int]] = {}
    for part, own in by_part:
        if group and sum(map(len, group.values())) + len(own) > most:
            yield group
            group = {}
        group[part] = own
    yield group


def _opened(lite: LiteGraph) -> LiteRTRunner:
    return LiteRTRunner(lite.content, lite.inputs, lite.outputs, cores())
