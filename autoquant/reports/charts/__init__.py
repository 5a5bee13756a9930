"""Where the marks of the report's charts are: pure functions from numbers to places, which templates draw."""
