"""The certificate of the best model, computed from an evaluation on the holdout, and the log of these evaluations."""
