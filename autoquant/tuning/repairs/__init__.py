"""Equalization and bias correction of a float model, for graphs and for .tflite programs."""
