"""What executes a model; a new engine implements the Protocol in engine.py and is one row in table.py."""
