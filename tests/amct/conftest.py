"""A folder of its own for every test, in which log files and models go, and a logger that nobody has set."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoquant.amct.logs import NAME


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    logger = logging.getLogger(NAME)
    yield
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


@pytest.fixture
def live(tiny: Any) -> Any:
    """The tiny model as a live tf.Graph."""
    return imported_pb(tiny.model)


@pytest.fixture(scope="session")
def images(tiny: Any) -> Any:
    """Calibration images of the tiny model, (64, 8, 8, 2)."""
    return np.load(tiny.calibration)["x"]


@pytest.fixture(scope="session")
def built() -> Callable[[Callable[[], Any]], Any]:
    """Make the tf.Graph that a function writes."""
    import tensorflow as tf

    def made(write: Callable[[], Any]) -> Any:
        graph = tf.Graph()
        with graph.as_default():
            write()
        return graph

    return made


@pytest.fixture(scope="session")
def load_pb() -> Callable[[Path], Any]:
    """Import a frozen .pb into a tf.Graph of its own, as scripts do."""
    return imported_pb


def imported_pb(path: Path) -> Any:
    import tensorflow as tf

    graph_def = tf.compat.v1.GraphDef()
    graph_def.ParseFromString(path.read_bytes())
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(graph_def, name="")
    return graph
