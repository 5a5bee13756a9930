"""The pages of the guide: Markdown files beside this module, shown by `autoquant guide`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

TOPICS: Mapping[str, str] = MappingProxyType(
    {
        "start": "from a Keras model to a certificate, in ten minutes",
        "data": "models, data, preprocessing, metrics and tolerance",
        "space": "what the search may choose",
        "search": "how the search works, when a trial stops, when it ends",
        "certificate": "what may be claimed of the result, with an example",
        "run": "the folder of a run, exit codes, how to read a result",
        "workers": "trials on other machines, and on many processors",
        "safety": "what is safe to open: models, runs and data of others",
        "operators": "which layers become INT8, on both targets",
        "profiles": "what devices take of a .tflite, and what that is known from",
        "amct": "scripts and files of AMCT",
        "symptoms": "what to do when it misses, is slow, or refuses",
        "extending": "metrics, targets, samplers and range algorithms in packages of your own",
        "python": "the functions of the Python package",
    }
)
"""Topic -> what its page is about."""
FOLDER = Path(__file__).parent
NOTEBOOK = "keras.ipynb"
"""The notebook beside the pages."""
SKILL = "SKILL.md"
"""The file that coding agents look for."""


def guide_page(topic: str) -> str:
    """The Markdown of a topic's page. Raises KeyError for a topic that there is not."""
    if topic not in TOPICS:
        raise KeyError(topic)
    return _read(topic)


def skill_page() -> str:
    """The page for coding agents, with the front matter that they expect."""
    return _read("skill")


def _read(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")
