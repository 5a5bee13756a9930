"""The contract of every target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import Tiny

from autoquant.calibration.channels import Moments, collect_moments
from autoquant.calibration.plan import LayerPlan, Plan, layer_plan
from autoquant.calibration.ranges import MinMax
from autoquant.calibration.statistics import collect
from autoquant.errors import PlanError, RunError
from autoquant.evaluation.engines.table import ENGINES, open_engine
from autoquant.model.graph import Graph
from autoquant.model.litert.graph import LiteGraph
from autoquant.model.open import open_model
from autoquant.targets.table import TARGETS, open_target
from autoquant.tuning.repairs.equalization import equalized_program


@dataclass(frozen=True)
class Bench:
    """A target with a model that it lowered, calibrated on some of the images."""

    target: Any
    engine: Any
    model: Any
    layers: Any
    compiler: Any
    images: Any

    def plan(self, *int8: str) -> Plan:
        return Plan(
            {
                name: layer_plan(layer, LayerPlan(MinMax())) if name in int8 else None
                for name, layer in self.layers.items()
            }
        )

    def outputs(self, path: Path) -> Any:
        runner = self.engine.open_file(path, self.model.program)
        found = runner({"image": self.images})
        runner.close()
        return found["scores"]

    @property
    def float_outputs(self) -> Any:
        return self.engine.open_graph(self.model.program)({"image": self.images})["scores"]


def test_the_table_of_targets_names_engines_and_packages_that_exist() -> None:
    for row in TARGETS.values():
        assert set(row.engines) <= set(ENGINES)
        assert row.io_types[0] == "float32"
        assert all(version(package) for package in row.packages)


@pytest.fixture(scope="module", params=sorted(TARGETS))
def bench(request: pytest.FixtureRequest, tiny: Tiny) -> Bench:
    target, engine = open_target(request.param), open_engine(TARGETS[request.param].runtime)
    assert target.name == request.param
    model = target.lowered(open_model(tiny.model))
    layers = target.survey(model, {}).by_name
    images = np.load(tiny.evaluation)["x"][:40]
    seen = engine.open_graph(model.program, sorted(target.tensors(model, layers)))({"image": images})
    return Bench(target, engine, model, layers, target.compiler(model, layers, collect([(1, [seen])], key="")), images)


def content(program: Graph | LiteGraph) -> Any:
    """What of a program a maker might change."""
    if isinstance(program, LiteGraph):
        return program.content, program.model.subgraphs[0].tensors[0].type, len(program.subgraph.operators)
    return {name: node.SerializeToString(deterministic=True) for name, node in program.nodes.items()}


def test_layers_have_the_names_of_the_model_that_was_opened(bench: Bench) -> None:
    assert set(bench.layers) == {"conv", "depthwise", "dense"}


def test_file_names_belong_to_the_model(bench: Bench, tmp_path: Path) -> None:
    assert bench.target.file_name("a").startswith("a")
    assert bench.target.file_name("a") != bench.target.file_name("b")
    path = tmp_path / bench.target.file_name("tiny")
    bench.compiler.compile(bench.plan("conv"), path)
    assert sorted(tmp_path.iterdir()) == sorted(bench.target.files(path))


@pytest.mark.parametrize("names", [("conv",), ("depthwise",), ("dense",), ("conv", "depthwise", "dense")], ids=str)
def test_the_layers_of_the_plan_and_no_others_are_quantized(
    bench: Bench, tmp_path: Path, names: tuple[str, ...]
) -> None:
    """Near the float model, but not it; the record has all of them and nothing else."""
    parts: list[str] = []
    made = bench.compiler.compile(bench.plan(*names), tmp_path / "saved", parts.append)
    assert parts == ["calibrate", "save"]
    assert list(made.record) == list(names)
    wanted = bench.float_outputs
    error = np.linalg.norm(bench.outputs(tmp_path / "saved") - wanted) / np.linalg.norm(wanted)
    assert 1e-4 < error < 0.1


def test_the_record_has_the_ranges_of_the_inputs(bench: Bench, tmp_path: Path) -> None:
    """The first layer reads the images: 255 steps from the smallest to the largest."""
    record = bench.compiler.compile(bench.plan("conv", "dense"), tmp_path / "saved").record
    low, high = float(bench.images.min()), float(bench.images.max())
    assert record["conv"].activation.scale == pytest.approx((high - low) / 255, rel=1e-6)
    assert record["conv"].activation.offset == round(-128 - low / ((high - low) / 255))
    assert len(record["conv"].scale_w) == 4


@pytest.mark.parametrize("settings", [{}, {"channel_wise": False}, {"weight_algorithm": "mse"}], ids=str)
def test_the_record_is_known_before_there_is_a_file(bench: Bench, tmp_path: Path, settings: Any) -> None:
    layers = {name: layer_plan(layer, LayerPlan(MinMax(), **settings)) for name, layer in bench.layers.items()}
    plan = Plan(layers)
    assert bench.compiler.record(plan) == bench.compiler.compile(plan, tmp_path / "saved").record


@pytest.mark.parametrize("channel_wise", [True, False])
def test_scales_of_powers_of_two(bench: Bench, tmp_path: Path, channel_wise: bool) -> None:
    """All in the record are, no smaller than they were, less than twice as large; the model computes the same."""
    names = ("conv", "depthwise", "dense")
    settings = LayerPlan(MinMax(), channel_wise=channel_wise)
    plans = [
        Plan({name: layer_plan(bench.layers[name], replace(settings, power_of_two=on)) for name in names})
        for on in (False, True)
    ]
    plain, found = (bench.compiler.compile(plan, tmp_path / f"{n}").record for n, plan in enumerate(plans))
    for name in names:
        before = np.array([plain[name].activation.scale, *plain[name].scale_w])
        after = np.array([found[name].activation.scale, *found[name].scale_w])
        assert np.array_equal(np.log2(after), np.rint(np.log2(after)))
        assert (before <= after).all() and (after < 2 * before).all()
    wanted = bench.float_outputs
    error = np.linalg.norm(bench.outputs(tmp_path / "1") - wanted) / np.linalg.norm(wanted)
    assert 1e-4 < error < 0.1


def test_every_set_of_layers_gives_another_file(bench: Bench, tmp_path: Path) -> None:
    files = set()
    for number, names in enumerate([("conv",), ("depthwise",), ("dense",), ("conv", "dense")]):
        bench.compiler.compile(bench.plan(*names), tmp_path / f"{number}")
        files.add((tmp_path / f"{number}").read_bytes())
    assert len(files) == 4


def test_the_same_plan_gives_the_same_bytes(bench: Bench, tmp_path: Path) -> None:
    for name in ("one", "two"):
        bench.compiler.compile(bench.plan("conv", "dense"), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_the_float_model_is_left_alone(bench: Bench, tmp_path: Path) -> None:
    before = content(bench.model.program)
    bench.compiler.compile(bench.plan("conv", "depthwise", "dense"), tmp_path / "saved")
    assert content(bench.model.program) == before


def test_an_equalized_model_computes_the_same_in_layers_of_the_same_names(bench: Bench, tmp_path: Path) -> None:
    """Its files are made as those of any other model; the model itself is left alone."""
    before = content(bench.model.program)

    def moments_of(axes: Mapping[str, int]) -> Mapping[str, Moments]:
        return collect_moments(
            [bench.engine.open_graph(bench.model.program, sorted(axes))({"image": bench.images})], axes
        )

    program = equalized_program(bench.model.program, bench.layers, moments_of)
    equalized = replace(bench.model, program=program)
    assert content(bench.model.program) == before
    assert content(equalized.program) != before
    assert bench.target.survey(equalized, {}).by_name == bench.layers
    outputs = bench.engine.open_graph(equalized.program)({"image": bench.images})["scores"]
    np.testing.assert_allclose(outputs, bench.float_outputs, rtol=1e-5, atol=1e-5 * np.abs(outputs).max())
    names = sorted(bench.target.tensors(equalized, bench.layers))
    seen = bench.engine.open_graph(equalized.program, names)({"image": bench.images})
    compiler = bench.target.compiler(equalized, bench.layers, collect([(1, [seen])], key=""))
    compiler.compile(bench.plan("conv", "depthwise"), tmp_path / "saved")
    error = np.linalg.norm(bench.outputs(tmp_path / "saved") - outputs) / np.linalg.norm(outputs)
    assert 1e-4 < error < 0.1


def test_a_foreign_plan_is_refused(bench: Bench, tmp_path: Path) -> None:
    settings = bench.plan("conv").int8["conv"]
    with pytest.raises(PlanError, match="other"):
        bench.compiler.compile(Plan({"conv": settings, "other": settings}), tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_plan_that_quantizes_nothing_is_refused(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="no layer is to be quantized"):
        bench.compiler.compile(bench.plan(), tmp_path / "saved")


def test_a_disk_that_refuses_leaves_nothing(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        bench.compiler.compile(bench.plan("conv"), tmp_path / "file" / "saved")
