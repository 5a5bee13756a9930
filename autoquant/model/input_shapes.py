"""Shapes of inputs: what a file states, joined with what the data have."""

from __future__ import annotations

from autoquant.errors import ModelError

Shape = tuple[int | None, ...]


def merged(name: str, stated: Shape | None, given: tuple[int, ...] | None) -> Shape | None:
    """The shape of an input: as stated, open batches set to 1, other open sizes as given for one sample or for a batch.

    A size that neither tells stays None. Raises ModelError where the two contradict each other.
    """
    if stated is None:
        return None if given is None else (1, *given[1:])
    if given is None or not stated:
        return tuple(1 if size is None and axis == 0 else size for axis, size in enumerate(stated))
    sample = given if len(given) == len(stated) - 1 else given[1:]
    if len(given) not in (len(stated), len(stated) - 1) or any(
        size not in (None, wanted) for size, wanted in zip(stated[1:], sample, strict=True)
    ):
        raise ModelError(
            name,
            f"shape {given} is given but the file says {stated}",
            hint="give the sizes that the file leaves open (None), and keep the others",
        )
    return (stated[0] or 1, *sample)
