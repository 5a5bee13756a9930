"""INT8 arithmetic on arrays, by NumPy alone: affine maps, weights and biases, balancing, equalization."""
