"""Bases of what a user gives to AMCT, and what its command line reads data with."""

from . import auto_calibration as auto_calibration
