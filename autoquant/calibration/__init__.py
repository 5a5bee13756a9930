"""Statistics of tensors from one FP32 pass, and the plans, ranges, scales and records that come of them."""
