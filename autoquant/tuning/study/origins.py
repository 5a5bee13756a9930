"""Which packages the metric, target, sampler and range algorithms of a run are of, where they are not ours."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from autoquant.calibration.ranges import RANGES, range_name
from autoquant.errors import RunError
from autoquant.evaluation.metrics.metric import AT_OUTPUT
from autoquant.evaluation.metrics.table import METRICS
from autoquant.extensions import Table
from autoquant.formats.space_toml import SpaceFile
from autoquant.targets.table import TARGETS
from autoquant.tuning.study.choices import SAMPLERS
from autoquant.tuning.study.request import SearchRequest

METRIC = "metrics"
TABLES: Mapping[str, Table[Any]] = MappingProxyType(
    {METRIC: METRICS, "targets": TARGETS, "samplers": SAMPLERS, "range_algorithms": RANGES}
)
"""Key in run.toml's [plugins] -> the table that packages extend."""


def origins_of(request: SearchRequest, space: SpaceFile) -> dict[str, list[str]]:
    """Key of TABLES -> what of it a search uses that is of a package, each as 'huber of acme-metrics 1.2'."""
    metric = request.metric.partition(AT_OUTPUT)[0] if isinstance(request.metric, str) else ""
    chosen = (space.shared, space.layer, *(override.table for override in space.overrides))
    algorithms = {range_name(one) for choices in chosen for one in choices.activation}
    used = {METRIC: [metric], "targets": [request.target], "samplers": [request.sampler]}
    used["range_algorithms"] = sorted(algorithms)
    found = {
        key: [f"{name} of {origin}" for name in names if (origin := TABLES[key].origin(name))]
        for key, names in used.items()
    }
    return {key: lines for key, lines in found.items() if lines}


def check_origins(where: str, stored: Mapping[str, Sequence[str]], *, accepted: Collection[str] = ()) -> None:
    """Raise RunError where a run's packages are not those that it was started with; nothing is imported.

    `accepted` are fields of the request that may have changed.
    """
    for table, name, origin in _stored(stored):
        if table is METRICS and "metric" in accepted:
            continue
        now, what = table.origin(name), f"the {table.what} '{name}' was of {origin} when the run was started"
        if name not in table:
            raise RunError(where, f"{what}, which is not installed", hint="install it")
        if now != origin:
            also = "; --accept-changed metric scores all trials again" if table is METRICS else ""
            hint = f"install that version, or start a new run{also}"
            raise RunError(where, f"{what}, and is of {now or 'autoquant'} now", hint=hint)


def _stored(stored: Mapping[str, Sequence[str]]) -> Iterator[tuple[Table[Any], str, str]]:
    for key, lines in stored.items():
        if key in TABLES:
            for line in lines:
                name, _, origin = line.partition(" of ")
                yield TABLES[key], name, origin
