"""The files that are read and written: strict, versioned, ordered, written whole."""
