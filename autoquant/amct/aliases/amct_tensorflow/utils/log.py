"""What scripts log with beside AMCT's own lines."""

from autoquant.amct.logs import LOGGER

__all__ = ["LOGGER"]
