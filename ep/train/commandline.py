"""What every example's command line needs: checked numbers, and mistakes in one sentence."""

import argparse
import math
import os
import re
from functools import partial
from pathlib import Path

from ..errors import EPError
from .machine import cores as cores, run as run  # what an example needs of both: cli.cores(), cli.run(main)

LARGEST = 2**31 - 1  # of what is counted in memory


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake ends in one sentence instead of the whole usage (exit code 2), and -1e-1 is a number."""

    def __init__(self, **options):
        super().__init__(**options)
        self._negative_number_matcher = re.compile(r"-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$", re.IGNORECASE)

    def error(self, message):
        raise EPError(f"{message} (--help lists every option)")


Formatter = partial(argparse.RawDescriptionHelpFormatter, max_help_position=30, width=110)  # the description as it is written


def whole(text, least=0, most=math.inf):
    """argparse type: an integer of at least 0, or `least`."""
    if not text.isdecimal() or not least <= int(text) <= most:
        at_most = "" if most == math.inf else f" and at most {most}"
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}{at_most}, got '{text}'")
    return int(text)


count = partial(whole, least=1, most=LARGEST)  # of things that are made
pixels = partial(whole, most=LARGEST)


def number(text, allowed=math.isfinite, expected="a finite number"):
    """argparse type: a finite number, of those that are allowed."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and allowed(value)):
        raise argparse.ArgumentTypeError(f"expected {expected}, got '{text}'")
    return value


positive = partial(number, allowed=lambda value: value > 0, expected="a number above 0")
not_negative = partial(number, allowed=lambda value: value >= 0, expected="a number of at least 0")
radius = partial(number, allowed=lambda value: 0 <= value < 1, expected="a number from 0 to below 1, where networks settle")


def path(text):
    """argparse type: a path, with ~ expanded. An empty one is a mistake ("$DATA" that is not set), not a default."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, got ''")
    return Path(os.path.expanduser(text))


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
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
    changed = [f"{name} ({getattr(config, name, None)} in the run, {value} asked for)" for name, value in options.items()
               if value != getattr(config, name, None)]
    if changed:
        raise EPError(f"a run is resumed with its own configuration, but these differ: {', '.join(changed)}; leave them out, "
                      "or start a new run")
