"""Bases of what a user gives to `accuracy_based_auto_calibration`, under the import path that AMCT gives them."""

from autoquant.amct.evaluator import AutoCalibrationEvaluatorBase
from autoquant.amct.ranking import CosineSimilaritySensitivity, MseSensitivity, SensitivityBase
from autoquant.amct.strategy import AutoCalibrationStrategyBase, BinarySearchStrategy, TpeStrategy

__all__ = [
    "AutoCalibrationEvaluatorBase",
    "AutoCalibrationStrategyBase",
    "BinarySearchStrategy",
    "CosineSimilaritySensitivity",
    "MseSensitivity",
    "SensitivityBase",
    "TpeStrategy",
]
