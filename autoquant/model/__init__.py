"""Loading, normalizing and looking at a trained model."""
