"""What others wrote, for a person to read: long messages of TensorFlow and Keras in one line, and names of any kind."""

from __future__ import annotations

import re
from collections.abc import Sequence

UNKNOWN = "-"
"""A cell of a table whose value is not known, or not there."""


def reason(error: Exception | str) -> str:
    """What an error of TensorFlow or Keras says, in one line, without where in Python an operator was made.

    >>> reason("Graph execution error:\\n\\nDetected at node 'x'\\nNode: 'x'\\nYou must feed a value\\n\\t [[x]]")
    'You must feed a value'
    """
    lines = [line.strip() for line in _COLORS.sub("", str(error)).splitlines()]
    lines = [line for line in lines if line and not line.startswith("[[")]
    told = next((found for find in _REASONS if (found := find(lines))), "") if lines else ""
    told = _NODE.sub(r"'\1'", _NOISE.sub("", told or next(iter(lines), "")))
    return told.strip() or (type(error).__name__ if isinstance(error, Exception) else "no reason is given")


def printable(text: str) -> str:
    r"""The text with control characters, but tabs and ends of lines, as JSON writes them.

    Names of files, tensors and metrics come from strangers: ESC, C1 codes and what turns the direction of writing never
    reach a terminal.

    >>> printable("conv\x1b[2J\u202e")
    'conv\\u001b[2J\\u202e'
    """
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _of_graph(lines: Sequence[str]) -> str:
    """Behind the node, and behind the stack of where it was made."""
    if not lines[0].startswith(("Graph execution error", "Detected at node")):
        return ""
    nodes = [number for number, line in enumerate(lines[:-1]) if line.startswith("Node: ")]
    rest = lines[nodes[0] + 1 :] if nodes else lines[1:]
    return next((line for line in rest if not line.startswith(("Detected at node", "File ", "<stack traces"))), "")


def _of_several(lines: Sequence[str]) -> str:
    """The first of several roots: '(0) INVALID_ARGUMENT: what went wrong'."""
    return lines[1].removeprefix("(0)") if len(lines) > 1 and lines[0].endswith("root error(s) found.") else ""


def _of_keras(lines: Sequence[str]) -> str:
    """What a layer raised when it was called or made from its configuration."""
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("Exception encountered:"):
            return line.removeprefix("Exception encountered:")
        if line.startswith("Exception encountered when calling"):
            return following
    return ""


def _of_user_code(lines: Sequence[str]) -> str:
    """What was raised while a function was traced: 'ValueError: what went wrong'."""
    raised = [line for line in lines if _RAISED.match(line)] if lines[0] == "in user code:" else []
    return raised[-1] if raised else ""


_REASONS = (_of_graph, _of_several, _of_keras, _of_user_code)
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_COLORS = re.compile("\x1b\\[[0-9;]*m")
_NODE = re.compile(r"\{\{node ([^}]*)\}\}")
_NOISE = re.compile(r"\{\{function_node [^}]*\}\}\s*|\s*\[Op:[^]]*\]( name: *)?$")
_RAISED = re.compile(r"[A-Za-z_.]*(Error|Exception): ")
