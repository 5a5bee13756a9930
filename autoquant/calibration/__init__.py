"""What calibration saw of each tensor, and the range algorithms that read it."""
