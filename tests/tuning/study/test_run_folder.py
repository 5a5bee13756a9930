"""The folder of a run: which models it deletes, and how often it looks for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autoquant.tuning.study.run_folder import RunFolder

NAMES = ["model.pb", "model.json"]


def models(folder: RunFolder) -> list[int]:
    return sorted(int(found.parent.name) for found in (folder.path / "trials").rglob(NAMES[0]))


def make_model(folder: RunFolder, number: int) -> None:
    for name in NAMES:
        (folder.make_trial(number) if name == NAMES[0] else folder.trial(number)).joinpath(name).touch()


def test_models_are_looked_for_once_then_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that an earlier process left as well; the best may be one of them, and change."""
    before = RunFolder(tmp_path)
    for number in range(3):
        make_model(before, number)
    looks: list[str] = []
    own = Path.glob

    def glob(path: Path, pattern: str, **options: Any) -> Iterator[Path]:
        looks.append(pattern)
        return own(path, pattern, **options)

    monkeypatch.setattr(Path, "glob", glob)
    folder = RunFolder(tmp_path)
    for number, keep, left in ((3, [1, 2], [1, 2]), (4, [1], [1]), (5, [5, 9], [5]), (6, [], [])):
        make_model(folder, number)
        folder.delete_models(NAMES, keep=keep)
        assert models(folder) == left
    assert looks == ["trials/[0-9]*/model.pb"]
