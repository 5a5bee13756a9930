from __future__ import annotations

import dataclasses
import tracemalloc
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoquant.calibration import statistics
from autoquant.calibration.distribution import Distribution, Exact
from autoquant.calibration.sketch import Sketch
from autoquant.calibration.sketcher import Sketcher
from autoquant.calibration.statistics import Statistics, collect, load_statistics, save_statistics
from autoquant.errors import PlanError

BATCHES = [{"x": np.random.default_rng(n).normal(0.0, 2.0**n, size=(4, 3)).astype(np.float32)} for n in range(5)]


def both(batch: Mapping[str, np.ndarray]) -> Iterable[Mapping[str, np.ndarray]]:
    """A model that shows two tensors, `double` in two parts."""
    yield {"input": batch["x"], "double": 2 * batch["x"][:1]}
    yield {"double": 2 * batch["x"][1:]}


def facts(sketch: Distribution) -> dict[str, Any]:
    assert isinstance(sketch, Sketch)
    near = (sketch.near.keys.tolist(), sketch.near.counts.tolist())
    return {**dataclasses.asdict(sketch), "counts": sketch.counts.tolist(), "near": near}


def sketch_of(*arrays: np.ndarray) -> Sketch:
    sketcher = Sketcher()
    for array in arrays:
        sketcher.add(array)
    return sketcher.distribution()


def everything(kept: Statistics) -> tuple[dict[int, Any], dict[int, Any]]:
    tensors = {n: {name: facts(s) for name, s in seen.items()} for n, seen in kept.tensors.items()}
    slices = {n: {place: [c.name, *map(facts, c.each)] for place, c in s.items()} for n, s in kept.slices.items() if s}
    return tensors, slices


def stages(*batch_nums: int) -> Iterable[tuple[int, Iterable[Mapping[str, np.ndarray]]]]:
    """What is new until each number of batches."""
    before = 0
    for batch_num in batch_nums:
        yield batch_num, (part for batch in BATCHES[before:batch_num] for part in both(batch))
        before = batch_num


def test_a_snapshot_is_the_sketch_of_the_batches_before_it() -> None:
    kept = collect(stages(1, 3), key="k")
    assert kept.batch_nums == (1, 3)
    for n in (1, 3):
        values = [batch["x"] for batch in BATCHES[:n]]
        assert facts(kept.distribution("input", n)) == facts(sketch_of(*values))
        assert facts(kept.distribution("double", n)) == facts(sketch_of(*(2 * value for value in values)))


def test_all_values_of_some_tensors() -> None:
    kept = collect(stages(1, 3), key="k", exact=["double"])
    for n in (1, 3):
        doubled = 2 * np.concatenate([batch["x"] for batch in BATCHES[:n]])
        seen = kept.distribution("double", n)
        assert isinstance(seen, Exact)
        np.testing.assert_array_equal(seen.ordered, np.sort(doubled.ravel()))
        assert isinstance(kept.distribution("input", n), Sketch)


@pytest.mark.parametrize("exact", [[], ["input"]], ids=["sketches", "exact"])
def test_channels_of_some_tensors(exact: list[str]) -> None:
    kept = collect(stages(1, 3), key="k", exact=exact, channels=[("input", 1), ("double", -1)])
    for n in (1, 3):
        rows = np.concatenate([batch["x"] for batch in BATCHES[:n]]).T
        np.testing.assert_array_equal(kept.channels("input", 1, n).largest, np.abs(rows).max(axis=1))
        np.testing.assert_array_equal(kept.channels("double", -1, n).largest, 2 * np.abs(rows).max(axis=1))
        assert {type(seen) for seen in kept.channels("input", 1, n).each} == {Exact if exact else Sketch}
        assert {type(seen) for seen in kept.channels("double", -1, n).each} == {Sketch}


def test_memory_does_not_grow_with_the_data() -> None:
    """Of sketches: ten times the batches take no more; that it can be measured is shown by all values."""

    def most(batches: int, **options: Any) -> int:
        """The most memory in use at once, bytes."""
        rng = np.random.default_rng(0)
        parts = ({"x": rng.standard_normal((1000, 20), np.float32)} for _ in range(batches))
        tracemalloc.start()
        try:
            collect([(batches, parts)], key="", **options)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = most(4), most(80)
    assert many < 1.1 * few
    assert most(80, channels=[("x", -1)]) < 1.1 * most(4, channels=[("x", -1)])
    assert most(80, exact=["x"]) > 80 * 1000 * 20 * 4 > 2 * many


@pytest.mark.parametrize("options", [{}, {"exact": ["x"]}, {"channels": [("x", -1)]}], ids=str)
def test_nothing_of_a_part_is_held_when_the_next_is_asked_for(options: dict[str, Any]) -> None:
    """So that arrays may be views of an interpreter's memory, which it refuses to use again before."""
    held: list[weakref.ref[Any]] = []

    def parts() -> Iterable[Mapping[str, np.ndarray]]:
        for number in range(20):
            array = np.random.default_rng(number).normal(size=(40, 20, 30)).astype(np.float32)
            held.append(weakref.ref(array))
            part = {"x": array}
            del array
            yield part
            del part
            assert held[-1]() is None

    assert collect([(20, parts())], key="", **options).distribution("x", 20).count == 20 * 40 * 20 * 30


def test_statistics_that_were_not_collected() -> None:
    kept = collect(stages(1, 3), key="k", channels=[("input", -1)])
    with pytest.raises(PlanError, match="batch_num: 2 batches were not calibrated; there are 1, 3"):
        kept.distribution("input", 2)
    with pytest.raises(PlanError, match="batch_num: 2 batches were not calibrated; there are 1, 3"):
        kept.channels("input", -1, 2)
    with pytest.raises(PlanError, match="other: was not calibrated; calibrate the layer that reads it"):
        kept.distribution("other", 1)
    for tensor, axis in (("double", -1), ("input", 1)):
        with pytest.raises(PlanError, match=f"{tensor}: was not calibrated channel by channel; .* dmq_balancer_param"):
            kept.channels(tensor, axis, 1)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    data=st.lists(st.lists(st.floats(width=32), max_size=9), min_size=2, max_size=2),
    name=st.text(st.characters(exclude_categories=["Cs"])),
    key=st.text(st.characters(exclude_categories=["Cs"])),
)
def test_save_and_load(tmp_path: Path, data: list[list[float]], name: str, key: str) -> None:
    batches = [{name: np.array(values, np.float32).reshape(-1, 1)} for values in data]
    made = collect(
        ((n, [batch]) for n, batch in enumerate(batches, start=1)), key=key, channels=[(name, 1), (name, -1)]
    )
    save_statistics(made, tmp_path / "statistics.npz")
    loaded = load_statistics(tmp_path / "statistics.npz", key=key)
    assert loaded is not None and loaded.key == key
    assert everything(loaded) == everything(made)


def test_exact_statistics_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too large for a file"):
        save_statistics(collect(stages(1), key="k", exact=["input"]), tmp_path / "statistics.npz")
    assert not list(tmp_path.iterdir())


def made_to_save() -> Statistics:
    return collect(stages(1, 2), key="mine", channels=[("input", 1)])


def saved(folder: Path) -> Path:
    path = folder / "statistics.npz"
    save_statistics(made_to_save(), path)
    assert load_statistics(path, key="mine") is not None
    return path


def test_another_key(tmp_path: Path) -> None:
    assert load_statistics(saved(tmp_path), key="other") is None


def test_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path)
    monkeypatch.setattr(statistics, "VERSION", statistics.VERSION + 1)
    assert load_statistics(path, key="mine") is None


def test_no_file(tmp_path: Path) -> None:
    assert load_statistics(tmp_path / "statistics.npz", key="mine") is None


def test_every_cut_of_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        assert load_statistics(path, key="mine") is None


def test_a_damaged_file_is_not_used(tmp_path: Path) -> None:
    """Bytes in every part of it changed, one at a time: either nothing is loaded, or the byte did not matter."""
    path = saved(tmp_path)
    whole, expected = path.read_bytes(), everything(made_to_save())
    places = range(0, len(whole), 61)
    refused = 0
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        loaded = load_statistics(path, key="mine")
        refused += loaded is None
        assert loaded is None or everything(loaded) == expected
    assert refused > len(places) / 2


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x04K\x01."], ids=["empty", "garbage", "pickle"])
def test_no_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "statistics.npz").write_bytes(content)
    assert load_statistics(tmp_path / "statistics.npz", key="mine") is None
