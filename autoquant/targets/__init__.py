"""Where an INT8 model runs: decides what can be quantized, where quantizers sit, and what is saved."""
