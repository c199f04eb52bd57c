"""The machine that a program runs on: its cores, its signals, and how the program ends when something fails."""

import io
import os
import signal
import sys
import threading
from contextlib import contextmanager

from ..backend import device_error
from ..errors import EPError

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
           if hasattr(signal, name)]  # what asks a program to stop: a terminal, an operating system, a batch system


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
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files and classes may be any bytes
    try:
        main()
    except (Exception, KeyboardInterrupt) as error:
        if not (known := expected(error)):
            raise
        if isinstance(error, BrokenPipeError):  # `| head`: else Python fails when it empties the buffer at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"error: {known}", file=sys.stderr)
        end(known.exit_code)


def expected(error):
    """The EPError that says it in one sentence, or None for an error that only a bug explains. Notes of the error are added."""
    if isinstance(error, KeyboardInterrupt):
        known = EPError("interrupted", 130)
    elif isinstance(error, OSError):  # a full disk
        known = EPError(str(error), 1)
    else:
        known = error if isinstance(error, EPError) else device_error(error)
    notes = getattr(error, "__notes__", [])
    return EPError("; ".join([str(known), *notes]), known.exit_code) if known and notes else known


@contextmanager
def listening(handler):
    """SIGNALS call handler(number, frame) within, and are put back at the end; only the main thread may listen to them."""
    numbers = SIGNALS if threading.current_thread() is threading.main_thread() else []
    before = {number: signal.getsignal(number) for number in numbers}
    if before.get(getattr(signal, "SIGHUP", None)) == signal.SIG_IGN:  # nohup
        del before[signal.SIGHUP]
    try:
        for number in before:
            signal.signal(number, handler)
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)
