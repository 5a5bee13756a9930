"""The command line: one file a command. Rich lives here and nowhere else."""
