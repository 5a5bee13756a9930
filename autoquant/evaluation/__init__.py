"""Data, metrics and the engines that run a model to score it."""
