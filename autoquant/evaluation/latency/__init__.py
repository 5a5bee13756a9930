"""Measured times of models and of their operators on this machine."""
