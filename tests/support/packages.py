"""Packages with entry points, as pip installs them: a folder of modules and a .dist-info on sys.path."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from autoquant import extensions
from autoquant.calibration.ranges import RANGES
from autoquant.evaluation.metrics.table import METRICS
from autoquant.targets.table import TARGETS
from autoquant.tuning.study.choices import SAMPLERS


def install(folder: Path, name: str, version: str, code: str, groups: Mapping[str, Mapping[str, str]]) -> None:
    """Write a package with one module, named as the package is but for '-'; `groups` are its entry points."""
    module = name.replace("-", "_")
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    lines = [
        line for group, rows in groups.items() for line in (f"[{group}]", *(f"{k} = {v}" for k, v in rows.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    forget()


def forget() -> None:
    """Let entry points be looked for again, and modules of theirs be imported again."""
    from autoquant.tuning.sampling.samplers import SAMPLERS as MADE

    extensions._installed.cache_clear()
    for module in extensions._IMPORTED:
        sys.modules.pop(module, None)
    extensions._IMPORTED.clear()
    for table in (METRICS, TARGETS, SAMPLERS, RANGES, MADE):
        table._loaded.clear()


@contextmanager
def site(folder: Path) -> Iterator[Path]:
    """A folder for packages, found inside and nowhere else."""
    folder.mkdir(exist_ok=True)
    sys.path.insert(0, str(folder))
    try:
        yield folder
    finally:
        sys.path.remove(str(folder))
        forget()
