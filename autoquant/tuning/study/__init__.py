"""What every part of a search stands on: the request, the space, the trial, the Optuna study, the folder of a run."""
