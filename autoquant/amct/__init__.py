"""AMCT's functions: they take a live tf.Graph or a frozen .pb, as scripts made for its TensorFlow tool give them."""
