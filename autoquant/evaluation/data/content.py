"""Which samples are the same, by their content: what calibrates, what is searched on and what certifies must differ."""

from __future__ import annotations

import hashlib

import numpy as np

from autoquant.evaluation.data.batch import Array
from autoquant.evaluation.data.dataset import Dataset

BYTES = 16
"""Bytes of a hash: of a billion samples two that differ have the same one with a probability of 1e-21."""
READ = 64
"""Samples that are read at a time."""


def content_hashes(data: Dataset) -> Array:
    """A hash of each sample's inputs as they lie in the source, before preprocessing, without the label; (samples,)."""
    found: list[bytes] = []
    names = [spec.name for spec in data.inputs]
    for batch in data.source.read(data.indices, READ):
        forms = [f"{name} {batch.inputs[name].dtype} {batch.inputs[name].shape[1:]}".encode() for name in names]
        arrays = [np.ascontiguousarray(batch.inputs[name]) for name in names]
        for place in range(len(batch)):
            digest = hashlib.blake2b(digest_size=BYTES)
            for form, array in zip(forms, arrays, strict=True):
                digest.update(form)
                digest.update(array[place].tobytes())
            found.append(digest.digest())
    return np.frombuffer(b"".join(found), f"V{BYTES}")


def shared(one: Array, other: Array) -> Array:
    """Positions in `one` whose content is somewhere in `other`, ascending; both are hashes."""
    return np.flatnonzero(np.isin(one, other))
