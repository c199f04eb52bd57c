"""The machine that a program runs on: its cores, and how the program ends when something fails."""

import os
import sys

from ..backend import GOOD, device_error
from ..errors import EPError


def core_numbers():
    """The processor cores that this process may use, a set of their numbers."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count()))


def cores():
    """How many they are."""
    return len(core_numbers())


def run(main, end=sys.exit):
    """Call main(); an error that is `expected` becomes its sentence on stderr and its exit code.

    end(exit code): what is called then.
    """
    try:
        main()
    except (Exception, KeyboardInterrupt) as error:
        if not (known := expected(error)):
            raise
        print(f"error: {known}", file=sys.stderr)
        end(known.exit_code)


def expected(error):
    """The EPError that says it in one sentence, or None for an error that only a bug explains."""
    if isinstance(error, KeyboardInterrupt):
        return EPError(f"interrupted; {GOOD}", 130)
    if isinstance(error, OSError):  # a full disk
        return EPError(f"{error}: {GOOD}", 1)
    return error if isinstance(error, EPError) else device_error(error)
