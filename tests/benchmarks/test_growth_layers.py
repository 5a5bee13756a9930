"""The benchmark runs; what is counted of a chain is for a test to judge, for no machine's load changes it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import growth_layers
import numpy as np
import pytest
from growth_layers import exponent
from sensitivity_requests import sensitivity_request

from autoquant.evaluation.engines import fake_quant_places
from autoquant.evaluation.engines.litert import LiteRTRunner
from autoquant.model.litert import matching
from autoquant.model.open import open_model
from autoquant.tuning.sensitivity import divergence
from autoquant.tuning.sensitivity.divergence import FEWEST, PASSES, enough_samples


def test_the_exponent_is_that_of_a_line_through_the_larger_sizes() -> None:
    assert exponent((10, 50, 200, 1000), (99.0, 50.0**1.5, 200.0**1.5, 1000.0**1.5)) == pytest.approx(1.5)
    sizes, costs = np.log([50.0, 200.0, 1000.0]), np.log([1.0, 5.0, 20.0])
    by_hand = ((sizes - sizes.mean()) * (costs - costs.mean())).sum() / ((sizes - sizes.mean()) ** 2).sum()
    assert exponent((50, 200, 1000), (1.0, 5.0, 20.0)) == pytest.approx(by_hand)


def counts(layers: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Of measuring the layers of a chain: weights that are compared, operators in files, runs of these."""
    folder.mkdir()
    data = growth_layers.samples()[:64]
    request = sensitivity_request(open_model(growth_layers.chain(layers, folder)), data)
    found = Counter[str]()

    def counted(name: str, call: Any) -> Any:
        def run(*given: Any, **options: Any) -> Any:
            found[name] += 1
            return call(*given, **options)

        return run

    opened = LiteRTRunner.__init__

    def opening(self: LiteRTRunner, *given: Any, **options: Any) -> None:
        opened(self, *given, **options)
        found["operators"] += len(self._interpreter._get_ops_details())

    with monkeypatch.context() as patch:
        patch.setattr(matching, "equal_but_for_factors", counted("compared", matching.equal_but_for_factors))
        patch.setattr(fake_quant_places, "_has_weight", counted("compared", fake_quant_places._has_weight))
        patch.setattr(LiteRTRunner, "__init__", opening)
        patch.setattr(LiteRTRunner, "__call__", counted("runs", LiteRTRunner.__call__))
        divergence.divergence(request)
    return found


def test_a_chain_three_times_as_long_takes_three_times_as_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = (counts(layers, tmp_path / str(layers), monkeypatch) for layers in (12, 36))
    assert few.keys() == many.keys() == {"compared", "operators", "runs"}
    for name, count in few.items():
        assert many[name] <= 3.6 * count, name


def test_of_more_layers_fewer_samples_tell() -> None:
    """So that what runs, layers times those behind each times samples, grows with the layers."""
    for layers in (64, 200, 1000):
        assert layers / 2 * enough_samples(256, layers / 2) <= PASSES * 256
    assert enough_samples(256, 1.0) == 256
    assert enough_samples(256, 1e9) == FEWEST
    assert enough_samples(5, 1e9) == 5
