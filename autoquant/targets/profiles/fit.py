"""What of a float .tflite a device could take, operator by operator, and what is narrowed for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from autoquant.errors import ModelError
from autoquant.model.layer import Layer
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.litert.kinds import KINDS
from autoquant.targets.litert_operators import FIXED_SCALES, SHAPE_READERS, all_data, quantizable
from autoquant.targets.profiles.profile import Float, Profile

NOT_INT8 = "there is no integer kernel for it"


@dataclass(frozen=True, slots=True)
class Unfit:
    """An operator that does not run on a device, by index, name of its first result, and kind; and why."""

    index: int
    name: str
    kind: str
    reason: str


def unfit(lite: LiteGraph, profile: Profile) -> tuple[Unfit, ...]:
    """The operators with float data of a model that the device cannot take, in the order of the file."""
    return tuple(
        _unfit(lite, index, reason) for index in _computing(lite) if (reason := _objection(lite, index, profile))
    )


def left_in_float(lite: LiteGraph) -> tuple[Unfit, ...]:
    """The operators with float data that are in float whatever a plan says, though the device may take them in INT8."""
    possible = quantizable(lite)
    others = [index for index in _computing(lite) if index not in possible]
    return tuple(_unfit(lite, index, lite.float_only.get(index, NOT_INT8)) for index in others)


def cannot_run(lite: LiteGraph, profile: Profile) -> tuple[Unfit, ...]:
    """The operators with float data that the device will not run, whatever a plan says, in the order of the file."""
    found = {one.index: one for one in unfit(lite, profile)}
    if profile.in_float is Float.CPU or (profile.all_int8 and profile.takes_tflite):
        found = {one.index: one for one in left_in_float(lite)} | found
    return tuple(found[index] for index in sorted(found))


def for_profile(lite: LiteGraph, profile: Profile) -> LiteGraph:
    """A model in which those operators must stay in float that the device would not take in INT8, or in INT16.

    Where nothing may stay in float, what it cannot take is INT8 on the CPU.
    """
    reasons: dict[int, str] = {}
    if not profile.all_int8:
        reasons = {one.index: f"profile {profile.name}: {one.reason}" for one in unfit(lite, profile)}
    if profile.symmetric:
        why = f"profile {profile.name}: its result has an offset in INT8, and activations must be symmetric"
        kinds = {kind for kind, affine in FIXED_SCALES.items() if affine.offset}
        reasons |= {index: why for index in _computing(lite) if lite.kind(index) in kinds}
    narrow = frozenset(index for index in _computing(lite) if not profile.may_be_wide(lite.kind(index)))
    return replace(lite, float_only=reasons, int8_only=narrow)


def narrowed(layer: Layer, kind: str, profile: Profile) -> Layer:
    """A layer that becomes an operator of a kind, with no more abilities than the device has."""
    can = layer.can
    abilities = replace(
        can,
        per_channel=can.per_channel and profile.may_have_channels(kind),
        asymmetric=can.asymmetric and not profile.symmetric,
        powers_only=profile.power_of_two,
        activation_bits=tuple(bits for bits in can.activation_bits if bits == 8 or profile.may_be_wide(kind)),
        no_float_by=profile.no_float_by,
        profile=profile.name,
    )
    return replace(layer, abilities=abilities)


def check_possible(lite: LiteGraph, profile: Profile) -> None:
    """Raise ModelError for a model that no plan makes one that the device runs."""
    hint = "change what the reasons name, or choose another profile"
    if profile.integer_only:
        hint = f"change what the reasons name, or leave out {profile.no_float_by}"
    if profile.fixed_sizes and (names := open_sizes(lite)):
        what = f"sizes beyond the batch are open, and profile {profile.name} wants all sizes fixed: {', '.join(names)}"
        raise ModelError("model", what, hint="export it with fixed sizes, or choose another profile")
    if not profile.has_cpu and (refused := unfit(lite, profile)):
        what = f"profile {profile.name} has no operator for, and nothing else there runs: {_listed(refused)}"
        raise ModelError("model", what, hint=hint)
    if profile.all_int8 and profile.takes_tflite and (refused := left_in_float(lite)):
        what = f"{profile.no_float_by} leaves nothing in float, in which these stay: {_listed(refused)}"
        raise ModelError("model", what, hint=hint)


def open_sizes(lite: LiteGraph) -> tuple[str, ...]:
    """The inputs of which more is open than the batch."""
    ends = zip(lite.inputs, lite.subgraph.inputs, strict=True)
    return tuple(name for name, tensor in ends if None in lite.shape_of(int(tensor))[1:])


def _listed(refused: Sequence[Unfit]) -> str:
    shown = "; ".join(f"'{one.name}' ({one.kind}): {one.reason}" for one in refused[:5])
    return f"{shown}; and {len(refused) - 5} more" if len(refused) > 5 else shown


def _unfit(lite: LiteGraph, index: int, reason: str) -> Unfit:
    results = lite.operators[index].outputs
    return Unfit(index, lite.name_of(int(results[0])) if len(results) else "", lite.kind(index), reason)


def _computing(lite: LiteGraph) -> Iterator[int]:
    """Indices of the operators that read or make float data, beyond its shape."""
    data = all_data(lite)
    for index, op in enumerate(lite.operators):
        if lite.kind(index) not in SHAPE_READERS and not data.isdisjoint(map(int, (*op.inputs, *op.outputs))):
            yield index


def _objection(lite: LiteGraph, index: int, profile: Profile) -> str:
    """Why a device cannot take an operator; empty where it can."""
    if profile.operators is not None and lite.kind(index) not in profile.operators:
        return "it is none of the operators that the device takes"
    return next((reason for limit in profile.limits if (reason := limit(lite, index))), "")


def narrowing(lite: LiteGraph, layers: Iterable[Layer], profile: Profile) -> Iterator[str]:
    """What of the settings of layers is narrowed, a sentence each."""
    kinds = {lite.kind(lite.layers[layer.name]) for layer in layers if layer.weight is not None}
    single = sorted(kind for kind in kinds if KINDS[kind].per_channel and not profile.may_have_channels(kind))
    if single:
        yield f"channel_wise is false for {', '.join(single)}"
    if profile.symmetric:
        yield "asymmetric is false for all layers"
    if profile.power_of_two:
        yield "power_of_two is true for all layers"
    if profile.all_int8:
        yield "quant_enable is true for all layers"
