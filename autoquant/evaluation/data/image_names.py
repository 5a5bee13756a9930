"""What the names of image files say of which images belong together."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from autoquant.array import Array
from autoquant.errors import DataError, UsageError

NUMBERED = re.compile(r"(.*[^\W_])[\W_]+[a-z]{0,8}\d+", re.IGNORECASE)
"""A name that ends with a number, perhaps of a `frame` or `slice`, and what stands before it."""
PATTERNS = ("([^/]+)_", "([^/]+)-", "/(.+)/", r"([^/]*[^\W_])[\W_]+[A-Za-z]{0,8}\d+\.\w+$")
"""What may be the unit: all before the last _ or - of a name, folders below that of the class, all before a number."""
HINT = "of images it is a regular expression that every path must match: '([^/]+)_' is all before the last _ of a name"


def matched(where: str, paths: Sequence[str], pattern: str, option: str) -> Array:
    """What a regular expression finds in each path, (paths,): its groups where it has any, else all that matches.

    `option` asked for it. Raises UsageError for what is none, DataError naming a path where it finds nothing.
    """
    try:
        found = [re.search(pattern, path) for path in paths]
    except re.error as error:
        raise UsageError(f"{option} {pattern}", f"is no regular expression: {error}", hint=HINT) from error
    missing = [path for path, match in zip(paths, found, strict=True) if match is None]
    if missing:
        what = f"{option} {pattern} matches {len(paths) - len(missing):,} of {len(paths):,} paths, not {missing[0]}"
        raise DataError(where, what, hint=HINT)
    return np.asarray(["/".join(match.groups("")) or match[0] for match in found if match is not None])


def beginning(name: str) -> str:
    """What a name has in common with others that are numbered like it; the name itself where it has no number.

    >>> beginning("scans/patient12_slice003"), beginning("a/7f3c")
    ('scans/patient12', 'a/7f3c')
    """
    found = NUMBERED.fullmatch(name)
    return found[1] if found else name


def pattern_of(paths: Sequence[str], groups: Sequence[str]) -> str:
    """The first of PATTERNS that parts the paths as these groups do, the same names in all classes being one.

    Empty where none does.
    """
    wanted = len({group.partition("/")[2] or group for group in groups})
    for pattern in PATTERNS:
        found = [re.search(pattern, path) for path in paths]
        units = [match[1] for match in found if match is not None]
        whole = len(units) == len(paths) and len(set(zip(units, groups, strict=True))) == len(set(groups))
        if whole and len(set(units)) == wanted:
            return pattern
    return ""
