"""One FP32 pass over the calibration data: a sketch of every layer's input, after each number of batches asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoquant.calibration.sketch import Sketch, Sketcher
from autoquant.errors import PlanError
from autoquant.kept import Kept, keep, read_kept
from autoquant.quantization.affine import Array

VERSION = 1
"""Version of the sketch; part of the key, so that a file of another version is never used."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """Sketches by number of batches and tensor. `key` says of which model, data and preprocessing."""

    key: str
    sketches: Mapping[int, Mapping[str, Sketch]]

    @property
    def batch_nums(self) -> tuple[int, ...]:
        """The numbers of batches after which sketches were kept."""
        return tuple(sorted(self.sketches))

    def sketch(self, tensor: str, batch_num: int) -> Sketch:
        """The sketch of a tensor after `batch_num` batches. Raises PlanError when none was kept."""
        if batch_num not in self.sketches:
            kept = ", ".join(map(str, self.batch_nums))
            raise PlanError("batch_num", f"{batch_num} batches were not calibrated", hint=f"there are {kept}")
        return self.sketches[batch_num][tensor]


def collect(stages: Iterable[tuple[int, Iterable[Mapping[str, Array]]]], *, key: str) -> Statistics:
    """Sketch the tensors to watch.

    `stages` gives, in ascending order, a number of batches and what is new until then, in parts of any size.
    """
    sketchers: dict[str, Sketcher] = {}
    kept: dict[int, Mapping[str, Sketch]] = {}
    for batch_num, parts in stages:
        for part in parts:
            for tensor, values in part.items():
                sketchers.setdefault(tensor, Sketcher()).add(values)
        kept[batch_num] = {tensor: sketcher.sketch() for tensor, sketcher in sketchers.items()}
    return Statistics(key, kept)


def save_statistics(statistics: Statistics, path: Path) -> None:
    """Write an .npz, whole or not at all."""
    arrays: dict[str, Array] = {}
    index: list[dict[str, Any]] = []
    for batch_num, sketches in sorted(statistics.sketches.items()):
        for tensor, sketch in sorted(sketches.items()):
            arrays[f"counts{len(index)}"] = sketch.counts
            facts = {name: getattr(sketch, name) for name in ("low", "high", "width", "first", "nonfinite")}
            index.append({"batch_num": batch_num, "tensor": tensor, **facts})
    keep(path, Kept({"sketches": index}, arrays), key=statistics.key, version=VERSION)


def load_statistics(path: Path, *, key: str) -> Statistics | None:
    """What `save_statistics` wrote, or None when that is not there, damaged, or of another key or version."""
    kept = read_kept(path, key=key, version=VERSION)
    if kept is None:
        return None
    sketches: dict[int, dict[str, Sketch]] = {}
    for number, entry in enumerate(kept.header["sketches"]):
        facts = dict(entry)
        batch_num, tensor = facts.pop("batch_num"), facts.pop("tensor")
        sketches.setdefault(batch_num, {})[tensor] = Sketch(counts=kept.arrays[f"counts{number}"], **facts)
    return Statistics(key, sketches)
