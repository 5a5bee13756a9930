"""What evaluators of AMCT's command line read raw data with."""

from autoquant.amct.graph_evaluator import load_data

__all__ = ["load_data"]
