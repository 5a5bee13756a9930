"""Samples: where they come from, how they become what a model takes, and how they are split; no model is run here."""
