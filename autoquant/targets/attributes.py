"""Attributes of a call as tensors in the body of the function that is called.

TensorFlow hands them on to attributes of nodes in the body, and to nothing else. So each kind goes through a stock
operator that has an attribute of its kind, and whose result tells what it was. No data takes part in that: TensorFlow
folds it to constants before a graph runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from autoquant.model.nodes import BOOL, FLOAT, INT32, INT64, STRING, AttrValue, make_const, make_node


def type_attr(kind: int) -> Any:
    """An attribute that holds a data type."""
    return AttrValue(type=kind)


def in_float(name: str, op: str, *inputs: str) -> Any:
    """A node that computes in float32."""
    return make_node(name, op, inputs, T=type_attr(FLOAT))


def cast(name: str, source: str, kind: int, to: int) -> Any:
    """A node that changes the data type."""
    return make_node(name, "Cast", [source], SrcT=type_attr(kind), DstT=type_attr(to))


def float_attribute(name: str) -> list[Any]:
    """The float32 scalar `<name>:y:0`: LeakyRelu(-1) is minus its slope."""
    negative = make_node(f"negative_{name}", "LeakyRelu", [f"minus_one_{name}:output:0"], T=type_attr(FLOAT))
    return [
        make_const(f"minus_one_{name}", np.array(-1, np.float32)),
        _handed_on(negative, "alpha", name),
        in_float(name, "Neg", f"negative_{name}:activations:0"),
    ]


def size_attribute(name: str) -> list[Any]:
    """The float32 scalar `<name>:y:0` of a positive int: as many characters has the text of 0, padded to that width."""
    text = make_node(f"text_{name}", "AsString", [f"zero_{name}:output:0"], T=type_attr(INT32))
    return [
        make_const(f"zero_{name}", np.array(0, np.int32)),
        _handed_on(text, "width", name),
        make_node(f"length_{name}", "StringLength", [f"text_{name}:output:0"]),
        cast(name, f"length_{name}:output:0", INT32, FLOAT),
    ]


def area_attribute(name: str) -> list[Any]:
    """The float32 scalar `<name>:y:0`, the product of the two positive ints of a list.

    Of one character, padded in front, StringNGrams makes for each int n the texts of n, n - 1, ... 1 characters: the
    first has as many as the first int says, and behind so many texts stands the first one of the second int.
    """
    texts = make_node(
        f"texts_{name}",
        "StringNGrams",
        [f"one_{name}:output:0", f"splits_{name}:output:0"],
        Tsplits=type_attr(INT64),
        separator=b"",
        left_pad=b"x",
        right_pad=b"",
        pad_width=-1,
        preserve_short_sequences=False,
    )
    return [
        make_const(f"one_{name}", np.array(["x"], object)),
        make_const(f"splits_{name}", np.array([0, 1], np.int64)),
        _handed_on(texts, "ngram_widths", name),
        make_node(f"lengths_{name}", "StringLength", [f"texts_{name}:ngrams:0"]),
        make_const(f"start_{name}", np.array(0, np.int32)),
        element(f"height_{name}", f"lengths_{name}:output:0", f"start_{name}:output:0", INT32, axis=f"start_{name}"),
        element(f"width_{name}", f"lengths_{name}:output:0", f"height_{name}:output:0", INT32, axis=f"start_{name}"),
        make_node(f"area_{name}", "Mul", [f"height_{name}:output:0", f"width_{name}:output:0"], T=type_attr(INT32)),
        cast(name, f"area_{name}:z:0", INT32, FLOAT),
    ]


def is_text(name: str, attribute: str, text: bytes) -> list[Any]:
    """The int32 scalar `<name>:y:0`, 1 where a string attribute is `text`, else 0: it separates two empty strings."""
    joined = make_node(f"joined_{name}", "StringJoin", [f"empty_{name}:output:0"] * 2, N=2)
    return [
        make_const(f"empty_{name}", np.array(b"", object)),
        _handed_on(joined, "separator", attribute),
        make_const(f"wanted_{name}", np.array(text, object)),
        make_node(f"same_{name}", "Equal", [f"joined_{name}:output:0", f"wanted_{name}:output:0"], T=type_attr(STRING)),
        cast(name, f"same_{name}:z:0", BOOL, INT32),
    ]


def element(name: str, source: str, index: str, kind: int, *, axis: str) -> Any:
    """A node that takes what has one index along an axis, which the Const `axis` holds."""
    types = {"Tparams": type_attr(kind), "Tindices": type_attr(INT32), "Taxis": type_attr(INT32)}
    return make_node(name, "GatherV2", [source, index, f"{axis}:output:0"], **types)


def _handed_on(node: Any, key: str, attribute: str) -> Any:
    """The node, its attribute `key` being that attribute of the call."""
    node.attr[key].placeholder = attribute
    return node
