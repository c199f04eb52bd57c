"""What every example's command line needs: checked numbers, one-sentence errors, and settings with presets."""

import argparse
import math
import os
import sys
from pathlib import Path

from ..backend import GOOD, device_error
from ..errors import EPError


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake ends in one sentence instead of the whole usage (exit code 2)."""

    def error(self, message):
        raise EPError(f"{message} (--help lists every option)")


class Formatter(argparse.RawDescriptionHelpFormatter):
    """--help: the description as it is written, and options in one column."""

    def __init__(self, prog):
        super().__init__(prog, max_help_position=30, width=110)


def whole(text, least=0):
    """argparse type: an integer of at least 0, or `least`."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got '{text}'")
    return int(text)


def count(text):
    """argparse type: an integer of at least 1."""
    return whole(text, 1)


def number(text, allowed=math.isfinite, expected="a finite number"):
    """argparse type: a finite number, of those that are allowed."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and allowed(value)):
        raise argparse.ArgumentTypeError(f"expected {expected}, got '{text}'")
    return value


def positive(text):
    """argparse type: a finite number above 0."""
    return number(text, lambda value: value > 0, "a number above 0")


def not_negative(text):
    """argparse type: a finite number of at least 0."""
    return number(text, lambda value: value >= 0, "a number of at least 0")


def path(text):
    """argparse type: a path, with ~ expanded. An empty one is a mistake ("$DATA" that is not set), not a default."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got ''")
    return Path(text).expanduser() if text.startswith("~") else Path(text)


def dataset(text):
    """argparse type: a name of `datasets.load`, or a path, with ~ expanded."""
    return os.path.expanduser(text)


def core_numbers():
    """The processor cores that this process may use, a set of their numbers."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count()))


def cores():
    """How many they are."""
    return len(core_numbers())


def add_surroundings(add):
    """The options of every training example that are no setting of the experiment: where things are, on what it runs."""
    add("--data", type=path, metavar="PATH", help="where the data set is, or is to be downloaded to; without --dataset, what "
        "is found there")
    add("--no-download", action="store_true", help="never touch the network")
    add("--out", type=path, metavar="DIR", help="run folder (default: a new one in runs/)")
    add("--resume", type=path, metavar="RUN_DIR", help="continue this run, bit for bit")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add("--threads", type=count, help="worker threads; they change no result (default: all cores)")


def given(args, names):
    """{name: value} of those options that were on the command line (their default is None)."""
    return {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}


def refuse_changes(config, options):
    """Raise EPError, naming every field, if `options` would change a stored configuration."""
    changed = [f"{name} ({config.get(name)} in the run, {value} asked for)" for name, value in options.items()
               if value != config.get(name)]
    if changed:
        raise EPError(f"a run is resumed with its own configuration, but these differ: {', '.join(changed)}; leave them out, "
                      "or start a new run")


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
