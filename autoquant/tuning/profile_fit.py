"""What the device of a profile will not run of a model, with its multiply-adds, before any search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoquant.errors import ModelError
from autoquant.model.layer import Survey
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.model import Model, stated_batch
from autoquant.targets.base import Target
from autoquant.targets.profiles.profile import Profile

if TYPE_CHECKING:  # which loads LiteRT
    from autoquant.targets.profiles.fit import Unfit


@dataclass(frozen=True, slots=True)
class ProfileFit:
    """A model beside a profile: the `survey` of its layers there, and the operators that the device will not run.

    `macs` gives the multiply-adds of those, by index, for one sample; None where they are not known. `narrowed` says
    what of the settings is narrowed. `impossible` is why no plan makes a file that the device runs, '' where one does.
    """

    profile: Profile
    survey: Survey
    cannot_run: tuple[Unfit, ...]
    macs: Mapping[int, int | None]
    narrowed: tuple[str, ...]
    impossible: str


def profile_fit(target: Target, lowered: Model) -> ProfileFit:
    """Look at a model that was lowered for a target with a profile. Raises ModelError where nothing can be INT8."""
    from autoquant.model.litert.interpreter import stated_shapes, tensor_shapes
    from autoquant.model.litert.multiply_adds import multiply_adds
    from autoquant.targets.litert import LiteRTTarget
    from autoquant.targets.profiles.fit import cannot_run, check_possible, narrowing

    lite = lowered.program
    assert isinstance(target, LiteRTTarget) and target.profile is not None and isinstance(lite, LiteGraph)
    survey, found = target.look(lowered, {}), cannot_run(lite, target.profile)
    stated, shapes = stated_shapes(lite), tensor_shapes(lite)
    computed = {one.index: multiply_adds(lite.model, lite.operators[one.index], shapes) for one in found}
    batch = stated_batch(stated)
    try:
        check_possible(lite, target.profile)
        impossible = ""
    except ModelError as error:
        impossible = error.what
    return ProfileFit(
        profile=target.profile,
        survey=survey,
        cannot_run=found,
        macs={index: None if macs is None else macs // batch for index, macs in computed.items()},
        narrowed=tuple(narrowing(lite, survey.layers, target.profile)),
        impossible=impossible,
    )
