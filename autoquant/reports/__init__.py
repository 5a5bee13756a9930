"""What is written about a run."""
