"""What each layer is predicted to lose in INT8."""
