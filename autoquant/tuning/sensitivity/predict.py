"""Predict how much each layer changes the outputs in INT8, with the settings that a search space offers it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from autoquant import __version__
from autoquant.cache import CacheEntry, cached, digest_of, read_cache
from autoquant.calibration.plan import LayerPlan, Plan
from autoquant.errors import ModelError, OutOfTime, TrialError
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.metrics.metric import OnProgress
from autoquant.formats.config_json import config_text
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.model import Model
from autoquant.model.operators import is_tensor
from autoquant.tuning.sensitivity.divergence import divergence
from autoquant.tuning.sensitivity.likelihoods import OutputReading
from autoquant.tuning.sensitivity.measure import calibrated_request, cosines, measure_sensitivity
from autoquant.tuning.sensitivity.request import Between, Prediction, Predictions, Sensitivities, SensitivityRequest
from autoquant.tuning.study.space import Choice, Parameters, SearchSpace, bits_of, switch_of

VERSION = 3
MOST = 24
"""So many settings of a layer are all compared; of more only those that differ from the first in one thing."""
TOO_LARGE = 1.0
"""Nats in all beyond which gradients only say that layers are broken, not by how much."""


class Option(NamedTuple):
    """Parameters of a layer's own, and the settings that they mean; None in float.

    `wide` are the same settings with activations of 16 bits, where the layer has that choice.
    """

    parameters: Parameters
    settings: LayerPlan | None
    wide: LayerPlan | None = None

    @property
    def measured(self) -> Sequence[LayerPlan]:
        """The settings whose divergences are asked for."""
        return [own for own in (self.settings, self.wide) if own is not None]


class _Asked(NamedTuple):
    """The options of each tunable, and the key of what is predicted of them."""

    options: Mapping[str, Sequence[Option]]
    key: str


def options(space: SearchSpace, tunable: str, parameters: Parameters) -> Iterator[Option]:
    """What a space offers a layer, or an operator's input, under settings of the whole model, preferred first."""
    own = dict(space.dimensions_of(tunable))
    switch = switch_of(tunable)
    given = {name: parameters[name] for name in space.dimensions_of("") if name in parameters}
    if not is_tensor(tunable):  # whether it is in INT8 is the planner's to choose
        own.pop(switch, None)
        given[switch] = True
    bits = own.pop(bits_of(tunable), None)
    first = {name: choices[0] for name, choices in own.items()}
    if math.prod(map(len, own.values())) <= MOST:
        chosen = [dict(zip(own, values, strict=True)) for values in itertools.product(*own.values())]
    else:
        chosen = [first, *({**first, name: value} for name, choices in own.items() for value in choices[1:])]
    for one in chosen:
        settings = space.layer_plan(tunable, {**given, **one})
        if bits is None or settings is None:
            yield Option(one, settings)
        else:
            yield Option(one, replace(settings, activation_bits=8), replace(settings, activation_bits=16))


@dataclass(frozen=True)
class Predictor:
    """Predicts divergences on the model as it was given, whose layers are called as those of the target.

    Layers that only the model has which the target `lowered` are measured there. `samples` are calibration data;
    `folder` is that of the cache. `warn` is told where the predictions are worse, as they are where `on_progress` or
    `on_calibration` raises OutOfTime. `between` gives what a plan of the
    whole model loses besides, where the target has more in INT8 than layers read. `narrow_inputs` are the layers whose
    input has 8 bits whatever they have.
    """

    source: Model
    lowered: Model
    space: SearchSpace
    samples: Dataset
    batch_size: int
    reading: OutputReading
    folder: Path
    on_calibration: OnProgress
    on_progress: OnProgress
    warn: Callable[[str], None]
    between: Callable[[Plan], Between | None]
    narrow_inputs: Collection[str] = frozenset()
    _known: dict[frozenset[tuple[str, Choice]], _Asked] = field(default_factory=dict)

    def predict(self, parameters: Parameters) -> Predictions:
        """What each tunable can have under these settings of the whole model, and the divergence of that.

        Tunables that cannot be measured are predicted to change nothing: the trials will tell.
        """
        options_of, key = self._asked(parameters)

        def compute() -> CacheEntry:
            request = self._request(self.source, options_of, parameters)
            others = {tunable: each for tunable, each in options_of.items() if tunable not in request.candidates}
            found = dict(self._sensitivities(request).values)
            if others and self.lowered.program is not self.source.program:
                found |= self._sensitivities(self._request(self.lowered, others, parameters)).values
            return CacheEntry({tunable: list(values) for tunable, values in found.items()}, {})

        try:
            entry = cached(self._path(key), compute, key=key, version=VERSION)
        except OutOfTime:
            self.warn("--timeout leaves no time to measure the sensitivity of layers")
            entry = CacheEntry({}, {})
        results = self._results(parameters)
        return {
            tunable: tuple(self._predictions(tunable, each, entry.header.get(tunable), results))
            for tunable, each in options_of.items()
        }

    def known(self, parameters: Parameters) -> Mapping[str, float] | None:
        """The divergence of each measured tunable in INT8 with these parameters; None where nobody predicted them."""
        options_of, key = self._asked(parameters)
        entry = read_cache(self._path(key), key=key, version=VERSION)
        if entry is None:
            return None
        found, results = dict[str, float](), self._results(parameters)
        for tunable in options_of.keys() & entry.header.keys():
            each = options_of[tunable]
            predictions = self._predictions(tunable, each, entry.header[tunable], results)
            for option, prediction in zip(each, predictions, strict=True):
                if option.settings is not None and option.parameters.items() <= parameters.items():
                    wide = prediction.wide if parameters.get(bits_of(tunable)) == 16 else None
                    found[tunable] = prediction.divergence if wide is None else wide
        return found

    def ranking(self) -> Mapping[str, float]:
        """How little INT8 changes each layer with the preferred settings: by AMCT's cosine, where there is a graph."""
        parameters = next(self.space.starts()).parameters
        found: dict[str, float] = {}
        try:
            request = self._request(self.source, self._asked(parameters).options, parameters)
            if isinstance(self.source.program, LiteGraph):
                found = {name: -values[0] for name, values in self._sensitivities(request).values.items()}
            else:
                found = dict(cosines(request))
        except OutOfTime:
            self.warn("--timeout leaves no time to rank layers by their sensitivity")
        return {name: found.get(name, 0.0) for name in self.space.layers}

    def _asked(self, parameters: Parameters) -> _Asked:
        """What is asked under these settings of the whole model, found out once: it is each layer's options as text."""
        settings = frozenset((name, parameters[name]) for name in self.space.dimensions_of("") if name in parameters)
        if settings not in self._known:
            tunables = [tunable for tunable in self.space.layers if tunable not in self.space.always_float]
            found = {tunable: tuple(options(self.space, tunable, parameters)) for tunable in tunables}
            self._known[settings] = _Asked(found, self._key(found, parameters))
        return self._known[settings]

    def _request(
        self, model: Model, options_of: Mapping[str, Sequence[Option]], parameters: Parameters
    ) -> SensitivityRequest:
        """Ask for all options in INT8 of the layers that a model has; it takes a calibration of that."""
        plan = self.space.plan(parameters)
        return calibrated_request(
            model,
            self.samples,
            {tunable: [settings for one in each for settings in one.measured] for tunable, each in options_of.items()},
            batch_size=self.batch_size,
            batch_num=plan.batch_num,
            reading=self.reading,
            equalize=plan.equalize,
            on_calibration=self.on_calibration,
            on_progress=self.on_progress,
        )

    def _sensitivities(self, request: SensitivityRequest) -> Sensitivities:
        try:
            found = measure_sensitivity(request)
        except ModelError as error:
            self.warn(f"{error}; each layer is assumed to lose nothing until trials show otherwise")
            return Sensitivities({}, "none", 0, str(error))
        if found.method != "fisher" or _total(found) <= TOO_LARGE:
            return found
        try:
            return divergence(request, reason="the errors of layers are too large for gradients")
        except (ModelError, TrialError) as error:
            self.warn(f"{error}; layers are ranked by gradients, though their errors are too large for that")
            return found

    def _results(self, parameters: Parameters) -> Mapping[str, float]:
        """What the result of a layer loses in INT8 that no other layer reads."""
        between = self.between(self.space.plan(parameters))
        return {} if between is None else between.layers

    def _predictions(
        self,
        tunable: str,
        each: Sequence[Option],
        divergences: Sequence[float] | None,
        results: Mapping[str, float],
    ) -> Iterator[Prediction]:
        """Each option with its divergence and that of its result; 0 for one in float, and for what was not measured."""
        found = itertools.repeat(0.0) if divergences is None else iter(divergences)
        for option in each:
            own = 0.0 if option.settings is None else next(found)
            wide = None if option.wide is None else next(found)
            if wide is not None and tunable in self.narrow_inputs:
                wide = own
            result = 0.0 if option.settings is None else results.get(tunable, 0.0)
            yield Prediction(option.parameters, own + result, wide)

    def _path(self, key: str) -> Path:
        return self.folder / f"sensitivity-{key[:16]}.npz"

    def _key(self, options_of: Mapping[str, Sequence[Option]], parameters: Parameters) -> str:
        plan = self.space.plan(parameters)
        settings = [
            f"{tunable} {sorted(one.parameters.items())} {config_text(Plan({tunable: settings}))}"
            for tunable, each in options_of.items()
            for one in each
            for settings in (one.settings, *one.measured[1:])
        ]
        facts = (__version__, self.source.digest, self.samples.digest, self.batch_size, self.reading)
        return digest_of(*facts, plan.batch_num, plan.equalize, *settings)


def _total(found: Sensitivities) -> float:
    """The divergences of all layers together, each with its best settings."""
    best = (min(values, default=0.0) for values in found.values.values())
    return sum(value for value in best if math.isfinite(value))
