"""What may be claimed of the best model, and the log of holdout evaluations."""
