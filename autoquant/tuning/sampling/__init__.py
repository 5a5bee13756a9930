"""The next point to try, chosen from the trials alone. Optuna: only samplers.py, guided.py and shadow_study.py."""
