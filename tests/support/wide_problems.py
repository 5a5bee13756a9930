"""Searches without a model in which layers, one behind the other, have a choice of 16 bits for their activations."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from guided_problems import Synthetic

from autoquant.tuning.sampling.problem import gain_of, int8_of
from autoquant.tuning.sensitivity.request import Prediction
from autoquant.tuning.study.space import Choice, Parameters, bits_of, switch_of


@dataclass
class WideChain(Synthetic):
    """`true` and `predicted` are of weights; `inputs` and `predicted_inputs` of 8 bits of what each layer reads.

    These are paid where the layer or the one before it has activations of 8 bits. `gains` are of all switches.
    """

    inputs: Mapping[str, float] = field(default_factory=dict)
    predicted_inputs: Mapping[str, float] = field(default_factory=dict)
    may_be_float: bool = True

    @property
    def chain(self) -> tuple[str, ...]:
        return tuple(self.inputs)

    @property
    def layers(self) -> tuple[str, ...]:
        return self.chain if self.may_be_float else ()

    @property
    def dimensions(self) -> Mapping[str, tuple[Choice, ...]]:
        found: dict[str, tuple[Choice, ...]] = {switch_of(layer): (True, False) for layer in self.layers}
        found |= {bits_of(layer): (8, 16) for layer in self.chain}
        return found | {f"{layer}:act_algo": tuple(own) for layer, own in self.true.items() if len(own) > 1}

    @property
    def lowest(self) -> float:
        """In float all is 1; 16 bits of all layers gain half."""
        gained = sum(self.gains.values())
        return 1.0 - (gained if self.may_be_float else 2.0 * gained)

    def objective(self, parameters: Parameters) -> float:
        return self.lowest + sum(self.gains.values()) - gain_of(int8_of(parameters, self), self)

    @property
    def makers(self) -> Mapping[str, tuple[str, ...]]:
        return {layer: self.chain[max(place - 1, 0) : place] for place, layer in enumerate(self.chain)}

    def sensitivities(self, parameters: Parameters) -> Mapping[str, tuple[Prediction, ...]]:
        return {
            layer: tuple(
                Prediction(
                    {f"{layer}:act_algo": name} if len(own) > 1 else {},
                    divergence + self.predicted_inputs[layer],
                    divergence,
                )
                for name, divergence in own.items()
            )
            for layer, own in self.predicted.items()
        }

    def divergence(self, parameters: Parameters) -> float:
        """Nats, as they are."""
        narrow = self.narrow(parameters)
        weights = [min(own.values()) for layer, own in self.true.items() if self.is_integer(layer, parameters)]
        rounded = [own for layer, own in self.inputs.items() if not narrow.isdisjoint((layer, *self.makers[layer]))]
        return sum(weights) + sum(rounded)

    def is_integer(self, layer: str, parameters: Parameters) -> bool:
        """Whether a layer is not in float."""
        return not self.may_be_float or bool(parameters[switch_of(layer)])

    def is_all_integer(self, parameters: Parameters) -> bool:
        """Whether no layer is in float."""
        return all(self.is_integer(layer, parameters) for layer in self.chain)

    def narrow(self, parameters: Parameters) -> frozenset[str]:
        """The layers with activations of 8 bits."""
        on = int8_of(parameters, self)
        return frozenset(layer for layer in self.chain if bits_of(layer) in on)

    def wide(self, parameters: Parameters) -> frozenset[str]:
        """Those with 16 bits."""
        return frozenset(layer for layer in self.chain if self.is_integer(layer, parameters)) - self.narrow(parameters)


def wide_chain(
    inputs: Mapping[str, float],
    *,
    weight: float = 1e-4,
    kinds: Collection[str] = ("r0",),
    misjudged: float = 1.0,
    may_be_float: bool = True,
) -> WideChain:
    """Layers of as many multiply-adds and as good weights each; inputs are so many times as bad as predicted."""
    weights = {layer: dict.fromkeys(kinds, weight) for layer in inputs}
    half = 0.5 / len(inputs)
    gains = {bits_of(layer): half for layer in inputs}
    if may_be_float:
        gains |= dict.fromkeys(inputs, half)
    predicted = {layer: own / misjudged for layer, own in inputs.items()}
    return WideChain(gains, weights, weights, inputs=inputs, predicted_inputs=predicted, may_be_float=may_be_float)
