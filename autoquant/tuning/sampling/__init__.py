"""The next point to try, chosen from the trials alone. Only samplers.py imports Optuna."""
