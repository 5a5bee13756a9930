"""What to try next, as a function of the history alone; only samplers.py, proposer.py and mirror.py know Optuna."""
