"""Names that the converter makes distinct by numbers, as they are without the tensors that it would not have made."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import count, takewhile


def without_numbers(
    names: Sequence[str], added: Iterable[Sequence[int]], first: Collection[int], nodes: Collection[str]
) -> Mapping[int, str] | None:
    """New names by index, for tensors that were numbered because of others, which are the first two of each triple.

    All three of a triple were given the same name, and are numbered one after another, as all are that have it: none, 1
    and so on, those in `first` before the rest; what has another name now may have taken the first. None where that is
    not certain, as of a name that one of `nodes` has.

    >>> without_numbers(["conv", "conv1", "conv2", "conv3"], [(0, 1, 2)], (), ())
    {2: 'conv', 3: 'conv1'}
    """
    places = {name: index for index, name in enumerate(names)}
    found: dict[int, str] = {}
    triples = [tuple(triple) for triple in added]
    gone = {index for triple in triples for index in triple[:-1]}
    for base in dict.fromkeys(_base([names[index] for index in triple]) for triple in triples):
        if base is None:
            return None
        start = 0 if base in places else 1
        numbered = list(takewhile(places.__contains__, (f"{base}{number or ''}" for number in count(start))))
        indices = [places[name] for name in numbered]
        in_order = indices == sorted(indices, key=lambda index: (index not in first, index))
        if not in_order or any(name != base and name in nodes for name in numbered):
            return None
        found |= dict(zip((index for index in indices if index not in gone), numbered, strict=False))
    return found


def _base(names: Sequence[str]) -> str | None:
    """The name that these are, with numbers one after another; None where there is none, or several.

    >>> _base(["a", "a1", "a2"]), _base(["a9", "a10", "a11"]), _base(["a", "b", "c"])
    ('a', 'a', None)
    """
    name = names[0]
    digits = len(name) - len(name.rstrip("0123456789"))
    splits = ((name[: len(name) - length], name[len(name) - length :]) for length in range(digits + 1))
    fitting = [
        base
        for base, number in splits
        if names == [f"{base}{int(number or 0) + more or ''}" for more in range(len(names))]
    ]
    return fitting[0] if len(fitting) == 1 else None
