"""What a model file may do where it is opened and run: compute, and no more.

A graph of TensorFlow is a program. It can read and write files, call into the Python process, and SavedModels of
TensorFlow 1 run operators when they are loaded. Whoever opens a file of somebody else is not to run that: such models
are refused before anything of them runs, unless their user trusts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from tensorflow.python.framework import dtypes

from autoquant.errors import ModelError, listed
from autoquant.model.operators import node_of


def _operators(names: str) -> frozenset[str]:
    return frozenset(names.split())


REACHES_OUT = _operators(
    """
    ReadFile WriteFile MatchingFiles PrintV2 PyFunc PyFuncStateless EagerPyFunc RemoteCall RpcServer RpcClient
    RpcCall DebugIdentity DebugIdentityV2 DebugIdentityV3 DebugNanCount DebugNumericSummary
    DebugNumericSummaryV2 CreateSummaryFileWriter CreateSummaryDbWriter WriteSummary ImportEvent WholeFileReader
    WholeFileReaderV2 TextLineReader TextLineReaderV2 TFRecordReader TFRecordReaderV2 FixedLengthRecordReader
    FixedLengthRecordReaderV2 LMDBReader TextLineDataset TFRecordDataset TFRecordDatasetV2
    FixedLengthRecordDataset FixedLengthRecordDatasetV2 CSVDataset CSVDatasetV2 SqlDataset LMDBDataset
    SaveDataset SaveDatasetV2 LoadDataset CacheDataset CacheDatasetV2 GeneratorDataset DistributedSave
    DatasetToTFRecord TPUExecute
    """
)
"""Operators that read or write files, call Python, or reach other processes."""
CHECKPOINTS = _operators(
    """
    Save SaveV2 SaveSlices Restore RestoreV2 RestoreSlice MergeV2Checkpoints WriteAudioSummary CheckpointHasKey
    """
)
"""Operators of checkpoints, which any SavedModel has for its own variables, and an inference graph has no use of."""
INITIALIZES = _operators(
    """
    NoOp Const Identity Placeholder PlaceholderWithDefault Cast Range Reshape Pack Fill StringJoin VarHandleOp
    VariableV2 ReadVariableOp Assign AssignVariableOp HashTable HashTableV2 MutableHashTable MutableHashTableV2
    MutableDenseHashTable MutableDenseHashTableV2 MutableHashTableOfTensors MutableHashTableOfTensorsV2
    InitializeTable InitializeTableV2 InitializeTableFromTextFile InitializeTableFromTextFileV2
    LookupTableImport LookupTableImportV2 LookupTableInsert LookupTableInsertV2
    """
)
"""Operators that fill tables and variables, which a main operator may run."""
MAIN = ("saved_model_main_op", "legacy_init_op")
LARGEST = 1 << 30
"""Bytes that a constant may take without having them in the file."""
TRUST = "if you trust whoever made it: --trust-model"


def check_graph(where: str, graph_def: Any, *, forbidden: frozenset[str] = REACHES_OUT | CHECKPOINTS) -> None:
    """Raise ModelError where a node, also one of a function, is of a forbidden operator."""
    found = [*graph_def.node, *(node for function in graph_def.library.function for node in function.node_def)]
    _refuse(where, (node for node in found if node.op in forbidden))


def check_saved_model(where: str, meta_graph: Any, *, main: bool) -> None:
    """Raise as `check_graph`; checkpoints may be read and written by functions that only the loader calls.

    With `main`, as a session loads it, its main operator may do no more than fill tables and variables.
    """
    graph_def = meta_graph.graph_def
    check_graph(where, graph_def, forbidden=REACHES_OUT)
    functions = {function.signature.name: function.node_def for function in graph_def.library.function}
    called = _called(functions, meta_graph.object_graph_def.concrete_functions)
    _refuse(where, (node for name in called for node in functions[name] if node.op in CHECKPOINTS))
    if main:
        others = sorted({node.op for node in _main_nodes(meta_graph) if node.op not in INITIALIZES})
        if others:
            what = f"runs operators when it is loaded (its main_op): {listed(others)}"
            raise ModelError(where, what, hint=TRUST)


def check_constants(where: str, graph_def: Any) -> None:
    """Raise ModelError where a constant takes much memory by its shape and has next to nothing in the file."""
    for node in (*graph_def.node, *(node for function in graph_def.library.function for node in function.node_def)):
        if node.op != "Const":
            continue
        tensor = node.attr["value"].tensor
        sizes = [dimension.size for dimension in tensor.tensor_shape.dim]
        size = int(np.prod([max(side, 0) for side in sizes], dtype=object)) * _item_size(tensor.dtype)
        if size > LARGEST and size > 2 * tensor.ByteSize():
            what = f"'{node.name}' is a constant of {size:,} bytes by its shape, of which the file has"
            raise ModelError(where, f"{what} {tensor.ByteSize():,}", hint="is the file whole?")


def _item_size(number: int) -> int:
    try:
        return int(dtypes.as_dtype(number).size)
    except (TypeError, KeyError):  # no type, or none of a fixed size
        return 1


def _refuse(where: str, nodes: Iterable[Any]) -> None:
    found = {node.op: node.name for node in nodes}
    if found:
        named = listed([f"{op} ('{name}')" for op, name in sorted(found.items())])
        what = f"holds operators that reach files, Python or other processes: {named}"
        raise ModelError(where, what, hint=f"cut them off with --outputs in an export of your own, or, {TRUST}")


def _called(functions: Mapping[str, Any], roots: Iterable[str]) -> set[str]:
    """The functions that these call, themselves included."""
    found: set[str] = set()
    stack = [name for name in roots if name in functions]
    while stack:
        name = stack.pop()
        if name not in found:
            found.add(name)
            stack += [inner for node in functions[name] for inner in _functions_of(node) if inner in functions]
    return found


def _functions_of(node: Any) -> Iterator[str]:
    yield node.op
    for attr in node.attr.values():
        yield from (attr.func.name, *(function.name for function in attr.list.func))


def _main_nodes(meta_graph: Any) -> Iterator[Any]:
    """All that the main operator of a SavedModel depends on."""
    nodes = {node.name: node for node in meta_graph.graph_def.node}
    stack = [name for key in MAIN for name in meta_graph.collection_def[key].node_list.value]
    stack += [info.name for info in meta_graph.signature_def["__saved_model_init_op"].outputs.values()]
    seen: set[str] = set()
    while stack:
        name = node_of(stack.pop().removeprefix("^"))
        if name in nodes and name not in seen:
            seen.add(name)
            stack += nodes[name].input
            yield nodes[name]
