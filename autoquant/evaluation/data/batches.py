"""Batches as Python programs have them, read as Keras's `fit` does: tf.data, PyDataset, generators, iterables.

TensorFlow, Keras and PyTorch are not imported here: whoever has such an object has loaded them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from autoquant.errors import DataError
from autoquant.evaluation.data.plugins import name_of
from autoquant.model.model import InputSpec

AT_ONCE = 64
"""Samples of a dataset without batches that are put into one."""
KINDS = "arrays (x, y), a mapping of arrays by name, a pandas frame, a tf.data.Dataset, or a function of batches"
WEIGHTS = "sample weights are not used: every sample counts the same, as in the metrics that Keras does not weight"
SHUFFLED = (
    "the tf.data.Dataset is in another order each time, so that a run could not go on with it: leave out shuffle(), or "
    "give it a seed and reshuffle_each_iteration=False"
)


class Item(NamedTuple):
    """One batch, or one sample: `x` as the user gave it, the labels or None, and whether there were sample weights."""

    x: Any
    y: Any
    weighted: bool


def is_a(value: Any, package: str, *names: str) -> bool:
    """Whether a value is of a class of this name in a package, which is not imported for that."""
    return any(kind.__name__ in names and kind.__module__.partition(".")[0] in package for kind in type(value).__mro__)


def unpacked(where: str, item: Any) -> Item:
    """What Keras's `fit` makes of a batch: `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`. Raises DataError."""
    if not isinstance(item, tuple):
        return Item(item, None, False)
    if not 1 <= len(item) <= 3:
        raise DataError(where, f"is a tuple of {len(item)}", hint="give x, (x, y) or (x, y, sample_weight)")
    x, y, weights = (*item, None, None)[:3]
    return Item(x, one_label(where, y), weights is not None)


def one_label(where: str, labels: Any) -> Any:
    """Labels of the only output that has some. Raises DataError where several have."""
    if not isinstance(labels, Mapping | tuple):
        return labels
    values = list(labels.values()) if isinstance(labels, Mapping) else list(labels)
    if len(values) != 1:
        named = ", ".join(map(str, labels)) if isinstance(labels, Mapping) else f"{len(values)} outputs"
        what = f"has labels for {named}; one output is scored"
        raise DataError(where, what, hint="give the labels of the model's first output alone, or of metric@output=NAME")
    return values[0]


def by_name(
    where: str, x: Any, inputs: Sequence[str], *, ordered: bool = False, more: bool = False
) -> Mapping[str, Any]:
    """The values of inputs by name: `x` is a mapping, a tuple in the order of the inputs, or of one input its value.

    A list is a tuple where there are several inputs, and else one value. A mapping may hold `more`. Raises DataError
    where others are given, and for a tuple of several where the inputs are not `ordered`, so that arrays could be taken
    for one another.
    """
    if isinstance(x, tuple) or (isinstance(x, list) and len(inputs) > 1):
        if len(inputs) > 1 and not ordered:
            what = f"has arrays in an order, and the model's file has none of its inputs {', '.join(inputs)}"
            raise DataError(where, what, hint="give them by name: ({'input': x, ...}, y)")
        if len(x) != len(inputs):
            what = f"has {len(x)} arrays, the model takes {', '.join(inputs)}"
            raise DataError(where, what, hint="give one for each, in this order, or by name")
        return dict(zip(inputs, x, strict=True))
    if isinstance(x, Mapping):
        if set(inputs) - set(x) or (set(x) - set(inputs) and not more):
            what = f"has inputs {', '.join(map(str, x))}, the model takes {', '.join(inputs)}"
            raise DataError(where, what, hint="name them as the model does")
        return x
    if len(inputs) > 1:
        what = f"is one array, the model takes {', '.join(inputs)}"
        raise DataError(where, what, hint="give ({'input': x, ...}, y)")
    return {inputs[0]: x}


class Batches(NamedTuple):
    """What an object is called in messages, and a function that gives its batches, as `FunctionSource` calls it."""

    name: str
    make: Callable[[], Any]


def batches_of(spec: Any, inputs: Sequence[InputSpec], warn: Callable[[str], None], *, ordered: bool) -> Batches:
    """The batches of a function, a tf.data.Dataset, a PyDataset, a generator, or any iterable. Raises DataError.

    `warn` is told of a dataset that is another one in each pass.
    """
    if is_a(spec, "tensorflow", "DatasetV2"):
        return _of_dataset(spec, inputs, warn, ordered)
    if is_a(spec, "keras tf_keras", "PyDataset", "Sequence"):
        return _of_py_dataset(spec)
    if isinstance(spec, Iterator):
        return _of_iterator(spec)
    if callable(spec):
        return Batches(name_of(spec), spec)
    if isinstance(spec, Iterable) and not isinstance(spec, set | frozenset | bytes):
        return Batches(type(spec).__name__, lambda: map(_as_tuple, spec))
    raise DataError("data", f"cannot be read: it is of Python's type {type(spec).__name__}", hint=f"give {KINDS}")


def _as_tuple(item: Any) -> Any:
    """PyTorch's loaders give lists."""
    return tuple(item) if isinstance(item, list) else item


def _of_py_dataset(spec: Any) -> Batches:
    name = type(spec).__name__
    if not hasattr(type(spec), "__len__"):
        raise DataError(name, "does not say how many batches it has", hint="define __len__ in it")
    return Batches(name, lambda: (spec[number] for number in range(len(spec))))


def _of_iterator(spec: Iterator[Any]) -> Batches:
    """Read in the one pass that there is; what has no room in the cache then cannot be read again."""
    name = getattr(spec, "__qualname__", type(spec).__name__)
    what = "is an iterator, which can be read only once, and its samples had no room in the cache"
    again: Exception = DataError(name, what, hint="give the function that makes it, without calling it, or more cache")
    read = False

    def once() -> Iterator[Any]:
        nonlocal again, read
        if read:
            raise again
        read = True
        try:
            yield from map(_as_tuple, spec)
        except Exception as error:
            again = error  # which is what the user should know, not that there is no second time
            raise

    return Batches(name, once)


def _of_dataset(spec: Any, inputs: Sequence[InputSpec], warn: Callable[[str], None], ordered: bool) -> Batches:
    name = "tf.data.Dataset"
    if int(spec.cardinality()) == -1:
        raise DataError(name, "never ends", hint="leave out repeat(), or cut it off: dataset.take(batches)")
    for part in _flat(spec.element_spec):
        if not is_a(part, "tensorflow", "TensorSpec"):
            what = f"holds a {type(part).__name__.removesuffix('Spec')}, not an array"
            raise DataError(name, what, hint="convert it: dataset.map(lambda x, y: (x.to_tensor(), y))")
    if _shuffles(spec):
        warn(SHUFFLED)
    if _has_batches(spec.element_spec, inputs, ordered):
        return Batches(name, spec.as_numpy_iterator)
    alike = all(part.shape.is_fully_defined() for part in _flat(spec.element_spec))
    return Batches(name, spec.batch(AT_ONCE if alike else 1).as_numpy_iterator)


def _flat(structure: Any) -> Iterator[Any]:
    if isinstance(structure, Mapping | tuple):
        for part in structure.values() if isinstance(structure, Mapping) else structure:
            yield from _flat(part)
    else:
        yield structure


def _has_batches(element: Any, inputs: Sequence[InputSpec], ordered: bool) -> bool:
    """Whether elements are batches, as `fit` wants them, not samples; by the first input of which the shapes tell."""
    x = unpacked("tf.data.Dataset", element).x
    specs = by_name("tf.data.Dataset", x, [spec.name for spec in inputs], ordered=ordered)
    for input_ in inputs:
        shape = specs[input_.name].shape
        if input_.shape is not None and shape.rank is not None:
            return _is_batch(shape.as_list(), list(input_.shape))
    return True


def _is_batch(given: list[int | None], wanted: list[int | None]) -> bool:
    if len(given) >= len(wanted):
        return True
    if len(given) < len(wanted) - 1 or wanted[-1] != 1:
        return False
    # One axis is missing: that of the batch, or a last one of size 1, which Keras adds.
    return given[0] is None or any(w not in (None, g) for g, w in zip(given, wanted[1:], strict=True))


def _shuffles(dataset: Any) -> bool:
    """Whether it, or one that it is made of, is in another order in each pass or process, as far as can be seen."""
    if type(dataset).__name__ == "_ShuffleDataset":
        seeded = any(int(getattr(dataset, seed, 0)) for seed in ("_seed", "_seed2"))
        if not seeded or getattr(dataset, "_reshuffle_each_iteration", True) is not False:
            return True
    return any(map(_shuffles, getattr(dataset, "_inputs", tuple)()))
