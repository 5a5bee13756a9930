"""What a run found out, read from its files or its result, for explain, result.json and other JSON."""
