"""The search: from a request to trials, the best of them, and its certificate."""
