"""A search as the guided sampler sees it."""

from __future__ import annotations

from typing import Any

import pytest

from autoquant.formats.space_toml import parse_space
from autoquant.model.layer import Layer
from autoquant.tuning.sampling.problem import SearchProblem
from autoquant.tuning.sensitivity.request import Prediction, Predictions
from autoquant.tuning.study.space import Parameters, SearchSpace
from autoquant.tuning.study.workload import Macs, Workload

LAYERS = [
    Layer(f"l{i}", "Conv2D", (f"x{i}",), -1, f"w{i}", (3, 3, 2, 4), (3,), None, None, 10 * (i + 1)) for i in range(4)
]
SPACE = """
[global]
equalize = [true, false]
[layer]
quant_enable = [true, false]
act_algo = ["ifmr", "minmax"]
[[override]]
layers = "l0"
quant_enable = true
[[override]]
layers = "l1"
quant_enable = false
"""


@pytest.fixture
def asked() -> list[Any]:
    return []


@pytest.fixture
def problem(asked: list[Any]) -> SearchProblem:
    space = SearchSpace(parse_space(SPACE, "space"), LAYERS, batches=8)
    workload = Workload.from_layers({layer.name: layer for layer in LAYERS})

    def predict(parameters: Parameters) -> Predictions:
        asked.append(dict(parameters))
        return {"l2": (Prediction({}, float(len(asked))),)}

    objective = Macs(workload, space.fullest)
    return SearchProblem(space, objective, 0.01, 500, predict)


def test_layers_are_those_that_may_be_in_int8_or_in_float(problem: SearchProblem) -> None:
    assert problem.layers == ("l2", "l3")
    assert problem.dimensions == problem.space.dimensions
    assert (problem.max_drop, problem.total) == (0.01, 500)


def test_gains_are_what_the_objective_grows_by_without_a_layer(problem: SearchProblem) -> None:
    """Multiply-adds: 10, 20, 30 and 40 of 100, of which the second stays in float."""
    assert problem.lowest == pytest.approx(0.2)
    assert problem.gains == {"l2": pytest.approx(0.3), "l3": pytest.approx(0.4)}


def test_divergences_are_predicted_once_for_settings_of_the_whole_model(
    problem: SearchProblem, asked: list[Any]
) -> None:
    first: Parameters = {"equalize": True, "l2:quant_enable": True, "l2:activation": "ifmr"}
    one = problem.sensitivities(first)
    assert problem.sensitivities({**first, "l2:quant_enable": False, "l2:activation": "minmax"}) is one
    other = problem.sensitivities({**first, "equalize": False})
    assert (one["l2"][0].divergence, other["l2"][0].divergence) == (1.0, 2.0)
    assert problem.sensitivities(first) is one
    assert len(asked) == 2
