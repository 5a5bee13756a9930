"""The process of a worker that `--jobs` starts: it works for the run in the folder until its standard input ends."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path

from autoquant.errors import INTERRUPTED, AutoquantError
from autoquant.tuning.fleet.children import PLACE
from autoquant.tuning.own_process import TRUSTED, be_first_victim


def main() -> None:
    """Work; what there is to say goes to standard error."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument(PLACE, default="0/1")
    parser.add_argument(TRUSTED, action="store_true")
    args = parser.parse_args()
    _take_processors(*map(int, args.place.split("/")))
    threading.Thread(target=_end_with_standard_input, daemon=True).start()
    be_first_victim()
    from autoquant.tuning.event_log import log_event
    from autoquant.tuning.fleet.worker import work_for

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        work_for(args.run, listener=log_event, trust_model=args.trust_model)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except AutoquantError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


def _take_processors(place: int, of: int) -> None:
    """Use one's share of the processors: threads of several processes on the same ones take turns."""
    if hasattr(os, "sched_setaffinity"):
        all_of_them = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, all_of_them[place::of] or {all_of_them[place % len(all_of_them)]})


def _end_with_standard_input() -> None:
    """Where it ends the search is gone, and so is this process."""
    with suppress(OSError, ValueError):
        while os.read(0, 1024):
            pass
    os._exit(0)


if __name__ == "__main__":
    main()
