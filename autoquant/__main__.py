"""`python -m autoquant`, and the console script, is `autoquant`."""

import sys


def run() -> int:
    """Run the command line; an interruption while its own modules load is one too."""
    try:
        from autoquant.cli.main import main

        return main()
    except KeyboardInterrupt:
        return 130  # errors.INTERRUPTED, of a module that may not be loaded yet


if __name__ == "__main__":
    sys.exit(run())
