"""Bases of what a user gives to `accuracy_based_auto_calibration`."""

from autoquant.amct.evaluator import AutoCalibrationEvaluatorBase
from autoquant.amct.ranking import CosineSimilaritySensitivity, MseSensitivity, SensitivityBase
from autoquant.amct.strategy import AutoCalibrationStrategyBase, BinarySearchStrategy

__all__ = [
    "AutoCalibrationEvaluatorBase",
    "AutoCalibrationStrategyBase",
    "BinarySearchStrategy",
    "CosineSimilaritySensitivity",
    "MseSensitivity",
    "SensitivityBase",
]
