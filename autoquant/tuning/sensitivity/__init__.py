"""How much the model's output changes when one layer becomes INT8, for each of the ways in which it could."""
