"""A request for the sensitivity of layers, and the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from autoquant.calibration.plan import LayerPlan
from autoquant.calibration.statistics import Statistics
from autoquant.errors import PlanError, did_you_mean
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.metrics.metric import OnProgress
from autoquant.model.layer import Layer
from autoquant.model.model import Model
from autoquant.quiet import no_progress
from autoquant.tuning.sensitivity.likelihoods import PLAIN, OutputReading
from autoquant.tuning.study.space import Parameters

SAMPLES = 256
"""So many calibration samples are used, where there are as many."""

Candidates = Mapping[str, Sequence[LayerPlan]]
"""For each layer the settings that it could have."""
CandidateKey = tuple[str, int]
"""A layer, and the number of one of its candidates."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Settings that a tunable can have, and the divergence that is predicted when it alone is in INT8 with them.

    `parameters` are all of the tunable's own dimensions but its layer's switches; `divergence` is in nats, or in
    whatever the trials measure theirs; NaN and infinity say that it cannot be in INT8 with these settings. `wide` is
    the divergence with activations of 16 bits, where the tunable has that choice: that of its weight, nearly.
    """

    parameters: Parameters
    divergence: float
    wide: float | None = None


Predictions = Mapping[str, tuple[Prediction, ...]]
"""Tunable -> what it can have, the preferred first, which wins where divergences are equal.

Tunables are the layers with a switch, layers that are always in INT8, and inputs of operators with dimensions of their
own (whose switch is one of these). A layer with a switch and no other dimension has one prediction without parameters.
"""


@dataclass(frozen=True)
class Between:
    """What INT8 costs between layers, in nats: by operator that is no layer, by layer whose result no other reads.

    An operator has what the tensor that it holds costs most. `float_operators` are those to leave in float.
    """

    operators: Mapping[str, float]
    layers: Mapping[str, float]
    float_operators: frozenset[str]


@dataclass(frozen=True, kw_only=True, eq=False)
class SensitivityRequest:
    """Asks for the sensitivity of every candidate of every layer in `candidates`.

    `layers` and `statistics` are those of the model as it is given: a graph of TensorFlow, also where the target is
    LiteRT, or a .tflite. Of the statistics, those of the most batches are used.
    At most so many `samples` of the data are used, from all over it. `reading` says which outputs count, and as what.
    `seed` is for what is drawn. `on_progress` is told how far it is. Raises PlanError for a candidate of no layer.
    """

    model: Model
    layers: Mapping[str, Layer]
    candidates: Candidates
    statistics: Statistics
    data: Dataset
    reading: OutputReading = PLAIN
    samples: int = SAMPLES
    seed: int = 0
    on_progress: OnProgress = no_progress

    def __post_init__(self) -> None:
        for name in self.candidates:
            if name not in self.layers:
                hint = did_you_mean(name, self.layers, otherwise="`autoquant inspect` lists the layers")
                raise PlanError(name, "is not a quantizable layer of this model", hint=hint)
        if self.samples < 1:
            raise ValueError(f"samples must be at least 1, got {self.samples}")

    @property
    def batches(self) -> int:
        """The number of batches whose statistics are used."""
        return max(self.statistics.batch_nums)

    @property
    def sample_subset(self) -> Dataset:
        """The samples that are used, the same ones every time."""
        return self.data.spread(self.samples)

    def result_from(self, values: Mapping[CandidateKey, float], method: str, reason: str = "") -> Sensitivities:
        """The result from numbers of candidates; those that are not there cannot be quantized so."""
        found = {
            name: tuple(values.get((name, number), np.inf) for number in range(len(each)))
            for name, each in self.candidates.items()
        }
        return Sensitivities(found, method, min(self.samples, len(self.data)), reason)


@dataclass(frozen=True)
class Sensitivities:
    """For each layer one number per candidate, in nats: the divergence of the output when it alone is quantized so.

    Zero means that nothing changes; infinity that the layer cannot be quantized so. `method` says how they were found,
    'fisher' or 'divergence', and `reason` why by the second, which takes longer; over so many `samples`.
    """

    values: Mapping[str, tuple[float, ...]]
    method: str
    samples: int
    reason: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))
        for name, values in self.values.items():
            if not all(value >= 0.0 for value in values):  # NaN fails too
                raise ValueError(f"sensitivities are 0 or more, got {values} of '{name}'")
