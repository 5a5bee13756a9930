"""What layers are predicted to lose with the settings that a search space offers them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from autoquant import __version__
from autoquant.cache import CacheEntry, digest_of, read_cache, write_cache
from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.errors import ModelError, TrialError
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.engines.table import open_engine
from autoquant.evaluation.passes import CalibrationRunner
from autoquant.formats.config_json import config_text
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.model import Model
from autoquant.model.names import is_tensor
from autoquant.targets.table import TARGETS, open_target
from autoquant.tuning.engine_choice import LITERT
from autoquant.tuning.events import Listener, Progress, Warned
from autoquant.tuning.repairs.equalization import equalized
from autoquant.tuning.sensitivity.divergence import divergence
from autoquant.tuning.sensitivity.measure import measure_sensitivity
from autoquant.tuning.sensitivity.request import Prediction, Predictions, Sensitivities, SensitivityRequest
from autoquant.tuning.study.choices import TENSORFLOW
from autoquant.tuning.study.space import Parameters, SearchSpace, switch_of
from autoquant.tuning.study.workload import Workload

VERSION = 1
MOST = 24
"""So many settings of a layer are all compared; of more only those that differ from the first in one thing."""
TOO_LARGE = 1.0
"""Nats in all beyond which gradients only say that layers are broken, not by how much."""


class Offer(NamedTuple):
    """Parameters of a layer's own, and the settings that they mean; None in float."""

    parameters: Parameters
    settings: LayerPlan | None


def offers(space: SearchSpace, unit: str, parameters: Parameters) -> Iterator[Offer]:
    """What a space offers a layer, or an operator's input, under settings of the whole model, preferred first."""
    own = {name: choices for name, choices in space.dimensions.items() if name.rpartition(":")[0] == unit}
    switch = switch_of(unit)
    given = {name: value for name, value in parameters.items() if ":" not in name}
    if not is_tensor(unit):  # whether it is in INT8 is the planner's to choose
        own.pop(switch, None)
        given[switch] = True
    first = {name: choices[0] for name, choices in own.items()}
    if math.prod(map(len, own.values())) <= MOST:
        chosen = [dict(zip(own, values, strict=True)) for values in itertools.product(*own.values())]
    else:
        chosen = [first, *({**first, name: value} for name, choices in own.items() for value in choices[1:])]
    for one in chosen:
        yield Offer(one, space.layer_plan(unit, {**given, **one}))


@dataclass(frozen=True)
class Predictor:
    """Predicts on the model as it was given, whose layers are called as those of the target.

    `samples` are calibration data; `folder` is where predictions are kept.
    """

    source: Model
    space: SearchSpace
    samples: Dataset
    batch_size: int
    of_classes: bool
    folder: Path
    listener: Listener

    def candidates(self, parameters: Parameters) -> Predictions:
        """What each layer can have under these settings of the whole model, and the loss that is predicted of it.

        Layers that cannot be looked at are predicted to lose nothing: the trials will tell.
        """
        offered = self._offered(parameters)
        key = self._key(offered, parameters)
        path = self.folder / f"sensitivity-{key[:16]}.npz"
        entry = read_cache(path, key=key, version=VERSION)
        if entry is None:
            found = self._answered(self._request(offered, parameters))
            entry = CacheEntry({unit: list(losses) for unit, losses in found.values.items()}, {})
            write_cache(path, entry, key=key, version=VERSION)
        return {unit: tuple(_candidates(each, entry.header.get(unit))) for unit, each in offered.items()}

    def ranking(self) -> Mapping[str, float]:
        """How little INT8 changes each layer with the preferred settings: by AMCT's cosine, where there is a graph."""
        parameters = next(self.space.starts()).parameters
        request = self._request(self._offered(parameters), parameters)
        if isinstance(self.source.program, LiteGraph):
            found = {name: -losses[0] for name, losses in self._answered(request).values.items()}
        else:
            from autoquant.tuning.sensitivity.cosine import cosines

            found = dict(cosines(request))
        return {name: found.get(name, 0.0) for name in self.space.layers}

    def _offered(self, parameters: Parameters) -> Mapping[str, Sequence[Offer]]:
        units = [unit for unit in self.space.layers if unit not in self.space.always_float]
        return {unit: tuple(offers(self.space, unit, parameters)) for unit in units}

    def _request(self, offered: Mapping[str, Sequence[Offer]], parameters: Parameters) -> SensitivityRequest:
        """What is to be found out; it takes a calibration of the model as it was given."""
        target = open_target(LITERT if isinstance(self.source.program, LiteGraph) else TENSORFLOW)
        engine = open_engine(TARGETS[target.name].runtime)
        plan, model = self.space.plan(parameters), self.source
        workload = Workload.of(target, model, self.samples)
        if plan.equalize:
            calibration = CalibrationRunner(engine, self.samples, self.batch_size)
            model = equalized(model, workload.layers, calibration, plan.batch_num)
        asked = {
            unit: [offer.settings for offer in each if offer.settings is not None]
            for unit, each in offered.items()
            if unit in workload.layers
        }
        statistics = CalibrationRunner(engine, self.samples, self.batch_size, self._on_progress).statistics(
            model,
            {unit: workload.layers[unit] for unit in asked},
            [plan.batch_num],
            tensors=target.tensors(model, workload.layers),
            balanced=[unit for unit, each in asked.items() if any(one.dmq is not None for one in each)],
        )
        return SensitivityRequest(
            model=model,
            layers=workload.layers,
            candidates=asked,
            statistics=statistics,
            data=self.samples,
            of_classes=self.of_classes,
        )

    def _on_progress(self, done: int, total: int) -> None:
        self.listener(Progress("sensitivity of layers", done, total))

    def _answered(self, request: SensitivityRequest) -> Sensitivities:
        try:
            found = measure_sensitivity(request)
        except ModelError as error:
            self.listener(Warned(f"{error}; each layer is assumed to lose nothing until trials show otherwise"))
            return Sensitivities({}, "none", 0, str(error))
        if found.method != "fisher" or _total(found) <= TOO_LARGE:
            return found
        try:
            return divergence(request, reason="the errors of layers are too large for gradients")
        except (ModelError, TrialError) as error:
            self.listener(
                Warned(f"{error}; layers are ranked by gradients, though their errors are too large for that")
            )
            return found

    def _key(self, offered: Mapping[str, Sequence[Offer]], parameters: Parameters) -> str:
        plan = self.space.plan(parameters)
        settings = [
            f"{unit} {sorted(own.items())} {config_text(Plan({unit: one}))}"
            for unit, each in offered.items()
            for own, one in each
        ]
        facts = (__version__, self.source.digest, self.samples.digest, self.batch_size, self.of_classes)
        return digest_of(*facts, plan.batch_num, plan.equalize, *settings)


def _candidates(each: Sequence[Offer], losses: Sequence[float] | None) -> Iterator[Prediction]:
    """Each offer with its loss; one in float loses nothing, and so does what was not looked at."""
    found = itertools.repeat(0.0) if losses is None else iter(losses)
    for offer in each:
        yield Prediction(offer.parameters, 0.0 if offer.settings is None else next(found))


def _total(found: Sensitivities) -> float:
    """What all layers lose together, each with its best settings."""
    best = (min(losses, default=0.0) for losses in found.values.values())
    return sum(loss for loss in best if math.isfinite(loss))
