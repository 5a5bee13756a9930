"""What a run found out, read from its files, for explain and its JSON."""
