"""The machine that a program runs on: its cores, what it prints to, and how the program ends when something fails."""

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

    end(exit code): what is called then. What is printed meanwhile never ends the program: see `Lasting`.
    """
    with lasting_output():
        try:
            main()
        except (Exception, KeyboardInterrupt) as error:
            if not (known := expected(error)):
                raise
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


def stop(number, frame):
    """A handler that ends a program as any error does, so that it can stop what it has started."""
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


# --- output that never ends a program -----------------------------------------------------------------------------------


class Lasting:
    """A stream to print to that outlives its reader: `| head`, a terminal that was closed, a full disk, a closed descriptor.

    The first failure is said once, on the other of the two streams, and from then on nothing is written. Characters that the
    stream's encoding does not have are written as their escapes.
    """

    def __init__(self, stream, name):
        self.stream, self.name, self.other = stream, name, None

    def __getattr__(self, name):  # encoding, isatty, fileno ...
        return getattr(self.stream, name)

    def write(self, text):
        try:
            self.stream.write(text)
        except UnicodeEncodeError:
            self.stream.write(text.encode(self.stream.encoding, "backslashreplace").decode(self.stream.encoding))
        except RuntimeError:  # a signal handler prints while the stream is being written to
            pass
        except (OSError, ValueError) as error:
            self.lost(error)
        return len(text)

    def flush(self):
        try:
            self.stream.flush()
        except RuntimeError:
            pass
        except (OSError, ValueError) as error:
            self.lost(error)

    def lost(self, error):
        """Nobody reads: write to nowhere from now on, what is still in the buffer too."""
        before, self.stream = self.stream, open(os.devnull, "w", encoding="utf-8")
        try:
            os.dup2(self.stream.fileno(), before.fileno())  # else Python fails when it empties the buffer at its end
        except (OSError, ValueError):
            pass
        print(f"WARNING: {self.name} cannot be written to any more ({error}): going on without it", file=self.other, flush=True)


@contextmanager
def lasting_output():
    """sys.stdout and sys.stderr are `Lasting` within."""
    before = sys.stdout, sys.stderr
    ours = [Lasting(open(os.devnull, "w", encoding="utf-8") if stream is None else stream, name)  # None: closed (2>&-)
            for stream, name in zip(before, ("standard output", "standard error"))]
    (out, err), ours[0].other, ours[1].other = ours, ours[1], ours[0]
    sys.stdout, sys.stderr = out, err
    try:
        yield
    finally:
        for stream in ours:
            stream.flush()
        if sys.stdout is out:  # not a rank that is silent until its process ends
            sys.stdout = before[0] or out
        if sys.stderr is err:
            sys.stderr = before[1] or err
