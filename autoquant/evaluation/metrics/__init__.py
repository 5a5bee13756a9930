"""What a batch of outputs scores; a new metric is one function and one row of the table in table.py."""
