"""What devices take of a .tflite, after their public documentation: a value for each, and the table of all."""
