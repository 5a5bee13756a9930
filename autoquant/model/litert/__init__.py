"""Float models as the content of a .tflite file: read, converted, looked through, without TensorFlow but to convert."""
