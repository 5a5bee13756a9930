"""Networks that are trained when first asked for, searches over them, and plain tools to judge what is saved."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache

import networks
import numpy as np
import pytest
from trained_networks import Found, Saved, Trained, score

import autoquant

SAMPLES, CALIBRATION = 400, 64
TOLERANCE = {"volume": 0.02, "attention": 0.02, "denoiser": 0.3}
"""Of top-1, and of PSNR in dB."""
PLAIN = """
version = 1
[layer]
quant_enable = [true, false]
"""
"""No repairs: weights and biases of the saved file are those of the float model."""
WITH_TENSORS = f"""{PLAIN}
[[override]]
types = ["AddV2", "MaxPool"]
quant_enable = true
"""


@pytest.fixture(scope="session")
def saved() -> type[Saved]:
    return Saved


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """A network by name, trained when it is first asked for."""

    @cache
    def made(name: str) -> Trained:
        folder = tmp_path_factory.mktemp(name)
        samples, train, metric = networks.NETWORKS[name]
        rng = np.random.default_rng(5)
        evaluation, calibration = folder / "evaluation.npz", folder / "calibration.npz"
        x, y = samples(SAMPLES, rng)
        np.savez(evaluation, x=x, y=y)
        np.savez(calibration, x=samples(CALIBRATION, rng)[0])
        with networks.without_warnings_of_keras():
            model, predict, weights = train(folder, lambda count: samples(count, rng))
            fp32 = score(metric, predict(x), y)
        return Trained(model, evaluation, calibration, metric, fp32, weights)

    return made


@pytest.fixture(scope="session")
def found(trained: Callable[[str], Trained], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Found]:
    """What a search over a network by name left behind; the one over the attention block is made by the command."""

    @cache
    def made(name: str) -> Found:
        network, folder = trained(name), tmp_path_factory.mktemp(f"{name}-search")
        space = folder / "space.toml"
        space.write_text(WITH_TENSORS if name == "denoiser" else PLAIN)
        if name == "attention":
            words = {"data": network.evaluation, "calibration": network.calibration, "tolerance": TOLERANCE[name]}
            words |= {"metric": network.metric, "space": space, "max-trials": 4, "run": folder / "run"}
            words |= {"certify": "none"}
            options = [str(word) for option, value in words.items() for word in (f"--{option}", value)]
            subprocess.run(
                [sys.executable, "-m", "autoquant", "search", network.model, *options, "--quiet"], check=True
            )
            return Found(folder / "run")
        autoquant.search(
            network.model,
            network.evaluation,
            calibration=network.calibration,
            metric=network.metric,
            tolerance=TOLERANCE[name],
            space=space,
            max_trials=4,
            run=folder / "run",
            certify="none",
        )
        return Found(folder / "run")

    return made
