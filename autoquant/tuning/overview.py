"""overview.json: what a run is about beside its trials, for readers that open neither the model nor the data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from autoquant.errors import AutoquantError, OutOfTime, RunError
from autoquant.formats.codec import load, save
from autoquant.model.operators import is_tensor
from autoquant.tuning.events import Event, TrialEnded, Warned
from autoquant.tuning.study.run_folder import RunFolder
from autoquant.tuning.study.trial import Terms, Trial

if TYPE_CHECKING:  # which loads TensorFlow or LiteRT, and readers need neither
    from autoquant.model.graph import Graph
    from autoquant.model.model import Program
    from autoquant.tuning.session import SearchSession
    from autoquant.tuning.study.workload import Workload


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """A layer: its operator, weight, and what it costs; `reason` says why it cannot be INT8, where it cannot."""

    name: str
    op: str
    cost: int
    weight_shape: tuple[int, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Overview:
    """What a run is about.

    `layers` are those of the model in the order in which they run, and operators that compute and cannot be INT8;
    costs are in `unit`. `float_bytes` is the size of the model's file or folder. `engine` is what scores trials, with
    its version. There are so many samples of each kind; `no_holdout` says why there is no holdout. `predicted` are the
    divergences from FP32 (evaluation/metrics/divergence.py) of layers alone in INT8, with the settings of the best
    trial, as far as the search has predicted them. `per_sample` says that the metric has a number for each sample, so
    that those that changed can be named.
    """

    model: str
    terms: Terms
    unit: str
    layers: tuple[LayerFacts, ...]
    engine: str
    search_samples: int
    holdout_samples: int
    calibration_samples: int
    no_holdout: str = ""
    higher_is_better: bool = True
    per_sample: bool = True
    float_bytes: int | None = None
    predicted: Mapping[str, float] = field(default_factory=dict)


def overview_of(session: SearchSession) -> Overview:
    """Of a session, nothing predicted yet."""
    splits, request = session.splits, session.request
    return Overview(
        model=session.builder.model.name,
        terms=session.terms,
        unit=session.builder.workload.unit,
        layers=layer_facts(session.builder.workload, session.builder.model.program),
        engine=session.scorer.engine.version,
        search_samples=len(session.scorer.subset),
        holdout_samples=len(splits.holdout or ()),
        calibration_samples=len(splits.calibration),
        no_holdout=splits.reason,
        higher_is_better=session.metric.higher_is_better,
        per_sample=session.metric.per_sample,
        float_bytes=size_of(Path(request.model)),
    )


class OverviewFile:
    """The overview.json of a session: written at once, and, as a listener before that of the session, for a new best.

    Without it only a report is poorer: that it cannot be written is a warning, once.
    """

    def __init__(self, session: SearchSession, best: Trial | None) -> None:
        self._session = session
        self._best: int | None = None
        self._written: Overview | None = None
        self._told: set[str] = set()
        self.keep(best)

    def __call__(self, event: Event) -> None:
        """Hand on an event."""
        best = event.best if isinstance(event, TrialEnded) else None
        if best is not None and best.number != self._best:
            self.keep(best)
        self._session.listener(event)

    def keep(self, best: Trial | None) -> None:
        """Write the overview with what is predicted of the best trial, unless that is what it says."""
        self._best = None if best is None else best.number
        predicted = {} if best is None else _predicted(self._session, best)
        overview = replace(overview_of(self._session), predicted=predicted)
        if overview == self._written:
            return
        try:
            save(overview, self._session.folder.overview)
            self._written = overview
        except RunError as error:
            if str(error) not in self._told:
                self._told.add(str(error))
                self._session.listener(Warned(str(error)))


def load_overview(folder: RunFolder) -> Overview | None:
    """The overview of a run; None where an earlier version, or a search that did not come so far, wrote none."""
    if not folder.overview.is_file():
        return None
    return load(Overview, folder.overview, RunError, hint="remove it: a report does without")


def layer_facts(workload: Workload, program: Program) -> tuple[LayerFacts, ...]:
    """The layers of a workload, and others that compute, in the order in which the program runs them."""
    from autoquant.tuning.study.workload import cost_of

    layers = [
        LayerFacts(one.name, one.op, workload.costs[name], one.weight_shape)
        for name, one in workload.layers.items()
        if not is_tensor(name)
    ]
    others = [LayerFacts(one.name, one.op, cost_of(one, workload.unit), (), one.reason) for one in workload.others]
    places = _places(program)
    return tuple(sorted([*layers, *others], key=lambda one: places.get(one.name, len(places))))


def size_of(path: Path) -> int | None:
    """Bytes of a file, or of all files in a folder; None where there is nothing."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size if path.is_file() else None


def _places(program: Program) -> Mapping[str, int]:
    from autoquant.model.litert.graph import LiteGraph

    if not isinstance(program, LiteGraph):
        return {node.name: place for place, node in enumerate(cast("Graph", program).ordered())}
    results = {program.name_of(tensor): place for tensor, place in program.makers.items()}
    return {**results, **program.layers}


def _predicted(session: SearchSession, trial: Trial) -> Mapping[str, float]:
    """What was predicted of the layers with a trial's settings, nothing where nobody did."""
    try:
        known = session.known_divergences(trial.parameters) or {}
    except (AutoquantError, OutOfTime) as error:
        session.listener(Warned(f"the predictions for the layers cannot be read: {error}"))
        return {}
    return {name: value for name, value in known.items() if value < float("inf")}
