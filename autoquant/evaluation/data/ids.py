"""What users call their samples: the name of a file, the key of a record, or the value of an array of ids."""

from __future__ import annotations

import re
from collections.abc import Sequence

from autoquant.evaluation.data.arrays import ArraySource
from autoquant.evaluation.data.dataset import Dataset
from autoquant.evaluation.data.images import ImageFolder
from autoquant.evaluation.data.records import RecordSource

NAMED = re.compile(r"(^|[/_])(file_?name|file|path|name|key|id|source_id|uuid)s?$")
"""What an array or a feature of a record is called that names each sample."""


def sample_ids(data: Dataset, numbers: Sequence[int]) -> list[str]:
    """A name for each of these samples, by their number in the source of the data; '' where there is none."""
    source = data.source
    if isinstance(source, ImageFolder):
        return [source.file_name(number) for number in numbers]
    if isinstance(source, RecordSource):
        return [source.value_of(number, NAMED) for number in numbers]
    if isinstance(source, ArraySource):
        columns = source.columns()
        name = next((name for name in columns if NAMED.search(name.lower())), None)
        if name is not None and len(set(columns[name].tolist())) == len(source):
            return [str(columns[name][number]) for number in numbers]
    return ["" for _ in numbers]
