"""The README and the pages of the guide, and what is to be run in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from autoquant import guide

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
GUIDE = Path(guide.__file__).parent
PAGES = {"README": README, **{topic: guide.guide_page(topic) for topic in guide.TOPICS}}
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Language and text of each block of a page."""
    for found in BLOCK.finditer(text):
        yield found[1], found[2]


def commands(text: str) -> Iterator[str]:
    """Each line of its console blocks that is to be typed."""
    for language, block in blocks(text):
        if language == "console":
            for line in block.splitlines():
                assert line.startswith("$ "), line
                yield line.removeprefix("$ ").split(" && ")[-1]
