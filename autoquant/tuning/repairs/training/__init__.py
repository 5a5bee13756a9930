"""Training without labels: scales of activations, roundings of weights and biases, by gradients of TensorFlow."""
