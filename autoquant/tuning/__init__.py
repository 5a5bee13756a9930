"""The search: an Optuna study of plans, each carried out, saved and scored."""
