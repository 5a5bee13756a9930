"""Tensor decomposition, which is not supported: its functions say so when they are called."""

from autoquant.amct.unsupported import unsupported

auto_decomposition = unsupported("auto_decomposition")
decompose_graph = unsupported("decompose_graph")
