"""Scale and offset of a tensor from its distribution: first its range, then the affine map of that range."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from autoquant.array import Array
from autoquant.calibration.distribution import Distribution
from autoquant.calibration.plan import LayerPlan
from autoquant.calibration.ranges import RANGES, MinMax, RangeAlgorithm, range_name
from autoquant.calibration.statistics import Statistics
from autoquant.errors import IN_FLOAT, PlanError, TrialError, UserFunctionError
from autoquant.model.layer import Layer
from autoquant.quantization.affine import Affine, Range, asymmetric, balance_factors, symmetric, wide

MASKED, MARGIN = -1e3, 10.0
"""Scores of attention below this are masked, as a rule by -3.4e38. So far below others, each weighs 5e-5 at most."""
Factors = tuple[float, ...]
"""By what the channels of a tensor are divided when it is balanced, one each; empty where it is not."""


class Scales:
    """Chooses scales of tensors and balance factors of layers; whatever plans share is computed once."""

    def __init__(self, statistics: Statistics) -> None:
        self._statistics = statistics
        self._balanced: dict[tuple[str, int, Factors], Distribution] = {}
        self._ranges: dict[tuple[str, int, RangeAlgorithm, bool, Factors], Range] = {}
        self._factors: dict[tuple[str, int, float], Factors] = {}

    def affine(
        self,
        name: str,
        tensor: str,
        settings: LayerPlan,
        batch_num: int,
        *,
        axis: int = -1,
        factors: Factors = (),
        masked: bool = False,
        what: str = "its input",
    ) -> Affine:
        """Scale and offset of a tensor by a layer's settings, its channels, on `axis`, divided by `factors`.

        Of scores of attention that are `masked`, those below MASKED become what is MARGIN below all others. Errors say
        that it is `what` of `name`. Raises PlanError where the statistics lack it, TrialError where it has
        no scale.
        """
        if settings.activation_bits == 16:
            settings = replace(settings, activation=MinMax())
        if masked:
            return _affine(name, _unmasked(self._distribution(tensor, batch_num, axis, factors)), settings)
        key = tensor, batch_num, settings.activation, settings.asymmetric, factors
        if key not in self._ranges:
            self._ranges[key] = _range(name, what, self._distribution(tensor, batch_num, axis, factors), settings)
        return _affine(name, self._ranges[key], settings)

    def factors(self, layer: Layer, settings: LayerPlan, batch_num: int, maxima: Callable[[int], Array]) -> Factors:
        """By what to divide each channel of a layer's input; empty where its settings do not balance it.

        `maxima` gives the largest absolute weight of each of so many input channels, (channels,). Raises PlanError
        where the channels were not calibrated, or the weight has not as many.
        """
        if settings.dmq is None:
            return ()
        key = layer.name, batch_num, settings.dmq
        if key not in self._factors:
            inputs = self._statistics.channels(layer.activations[0], layer.data_axis, batch_num).largest
            weights = maxima(len(inputs))
            if len(inputs) != len(weights):  # groups, where the file leaves the channels of the input open
                what = f"its input has {len(inputs)} channels, its weight {len(weights)}: they cannot be balanced"
                raise PlanError(layer.name, what, hint="remove dmq_balancer_param")
            self._factors[key] = tuple(map(float, balance_factors(inputs, weights, settings.dmq)))
        return self._factors[key]

    def _distribution(self, tensor: str, batch_num: int, axis: int, factors: Factors) -> Distribution:
        if not factors:
            return self._statistics.distribution(tensor, batch_num)
        key = tensor, batch_num, factors
        if key not in self._balanced:
            channels = self._statistics.channels(tensor, axis, batch_num)
            self._balanced[key] = channels.divided(np.array(factors))
        return self._balanced[key]


def _range(name: str, what: str, distribution: Distribution, settings: LayerPlan) -> Range:
    """The range of a distribution. Raises TrialError where there is nothing to choose a range from."""
    if distribution.nonfinite:
        held = f"{what} held {distribution.nonfinite} NaN or infinite values"
        raise TrialError(name, held, hint=f"repair the calibration data, or {IN_FLOAT}")
    if not distribution.count:
        empty = f"{what} was empty in every calibration batch"
        raise TrialError(name, empty, hint=f"calibrate with representative data, or {IN_FLOAT}")
    found: object = settings.activation(distribution, symmetric=not settings.asymmetric)
    if not isinstance(found, Range):  # of a package: ours do
        algorithm = range_name(settings.activation)
        who = f"range algorithm '{algorithm}' of {RANGES.origin(algorithm)}"
        what = f"must give a Range, got {type(found).__name__}"
        raise UserFunctionError(who, what, hint="see `autoquant guide extending`")
    return found


def _unmasked(distribution: Distribution) -> Range:
    """The range of scores that are not masked, and MARGIN below them."""
    values, _ = distribution.values()
    real = values[values > MASKED]
    low, high = (float(real[0]), float(real[-1])) if real.size else (0.0, 0.0)
    return Range.covering(low - MARGIN, high)


def _affine(name: str, interval: Range, settings: LayerPlan) -> Affine:
    """Scale and offset of a range. Raises TrialError where it is too large to have a scale."""
    rule = wide if settings.activation_bits == 16 else asymmetric if settings.asymmetric else symmetric
    try:
        return rule(interval, power_of_two=settings.power_of_two)
    except ValueError as error:
        raise TrialError(name, f"calculate scale failed: {error}", hint=IN_FLOAT) from error
