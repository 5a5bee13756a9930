"""A record file before its calibration is finished: an entry for every layer, with nothing in it, as AMCT makes it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

_EMPTY = re.compile(r'key\s*:\s*("(?:[^"\\]|\\.)*")\s*value\s*:?\s*\{\s*\}')


def skeleton_text(names: Iterable[str]) -> str:
    """Entries for these names, all empty.

    >>> print(skeleton_text(["conv"]), end="")
    record {
      key: "conv"
      value {
      }
    }
    """
    return "".join(f"record {{\n  key: {json.dumps(name)}\n  value {{\n  }}\n}}\n" for name in names)


def unfinished(text: str) -> tuple[str, ...]:
    """The names of empty entries in a record's text.

    >>> unfinished(skeleton_text(["conv", "dense"]))
    ('conv', 'dense')
    """
    return tuple(json.loads(key) for key in _EMPTY.findall(text))
