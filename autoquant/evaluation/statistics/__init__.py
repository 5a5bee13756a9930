"""Bounds, intervals and sequential tests on arrays: NumPy and SciPy alone."""
