"""What to try next, as a function of the history alone; only samplers.py, guided.py and shadow_study.py know Optuna."""
