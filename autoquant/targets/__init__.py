"""Where an INT8 model runs; decides where quantizers sit and what is saved."""
