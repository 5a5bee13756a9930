"""Models of any kind, scored side by side on the same samples."""
