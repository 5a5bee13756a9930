"""Affine INT8 arithmetic, plans and records."""
