"""Names of tensors and of the nodes that make them."""

from __future__ import annotations


def node_of(tensor: str) -> str:
    """The node that makes a tensor, from any spelling: 'a', 'a:1' and '^a' give 'a'."""
    return tensor.removeprefix("^").split(":", 1)[0]


def canonical(tensor: str) -> str:
    """The one spelling used here: 'a:0' becomes 'a'; 'a:1' stays."""
    return tensor.removesuffix(":0")


def is_tensor(name: str) -> bool:
    """Whether a name is that of an operator's input, `<operator>:<index>`, and not of a layer."""
    return ":" in name
