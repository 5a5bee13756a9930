"""What a run found out, read from its files, for explain, its JSON, and report.html."""
