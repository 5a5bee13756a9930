"""The FP32 baseline, and scoring a model against it sample by sample, in full or until it is decided."""
