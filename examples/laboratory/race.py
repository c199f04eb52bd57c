"""Is it a record? Reads finished runs of the main job, and prints their row of docs/race.md, or says why it is none.

    python examples/cifar10_sym_ep.py --preset cpu --data DIR --seed 0 --out runs/race-0         # and so on with the seeds 1, 2
    python examples/laboratory/race.py runs/race-0 runs/race-1 runs/race-2

The race: minutes of two CPU cores until 75, 80, 85, 88% of the 10,000 test images of CIFAR-10 are right, by equilibrium
propagation. What counts is the accuracy after the last epoch, mean of three seeds, and never that of the best epoch. Two classes:
any network; and full feedback, that is gain 1, with phases that settle, in which removing the feedback costs at least 5 points.
"""

import json
from pathlib import Path

import numpy as np

import ep
from ep.train import commandline as cli

GOALS = (0.75, 0.80, 0.85, 0.88)
SEEDS = 3
SETTLES = 0.99  # the share of the images that do in the last epoch
LOSS = 0.05  # of the accuracy, without feedback
FREE = {"seed", "data", "source"}  # settings in which the runs of a row may differ


def main():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    parser.add_argument("runs", nargs="+", type=cli.path, help="run folders, one for each seed")
    print(row([read(folder) for folder in parser.parse_args().runs]))


def read(folder):
    """(settings, lines of the log) of a finished run. Raises EPError for one that cannot be in the race."""
    try:
        config, result, log = ((Path(folder) / name).read_text(encoding="utf-8") for name in
                               ("config.json", "result.json", "log.jsonl"))
    except OSError as error:
        raise ep.EPError(f"{folder} holds no finished run ({Path(error.filename).name} is missing): let it finish, with "
                         f"--resume {folder}") from None
    config, result, log = json.loads(config), json.loads(result), [json.loads(line) for line in log.splitlines()]
    reasons = {
        "is not of all 10,000 test images of CIFAR-10": (config["dataset"], log[-1]["test_images"]) != ("cifar10", 10000),
        "is not of the official images": "official" not in config["source"],
        "held training images out": config["validation_images"] > 0,
        "is not by equilibrium propagation": config["algorithm"] != "eqprop",
        "is not of a CPU": config["device"] != "numpy",
        "has not made all of its epochs": not result["epochs"] == len(log) == config["epochs"],
        "had its epochs extended": len(config["extended"]) > 0,
    }
    for reason in (reason for reason, holds in reasons.items() if holds):
        raise ep.EPError(f"{folder} is no run of this race: it {reason}")
    return config, log


def row(runs):
    """The line of the table, without mirrored images and the command. Raises EPError if the runs are no repetitions of one."""
    settings = [{key: value for key, value in config.items() if key not in FREE} for config, _ in runs]
    if other := sorted(key for key in settings[0] if any(one[key] != settings[0][key] for one in settings)):
        raise ep.EPError(f"these runs are not one recipe with several seeds: they differ in {', '.join(other)}")
    if len({config["seed"] for config, _ in runs}) < len(runs):
        raise ep.EPError("two of these runs have the same seed: a record is the mean of different ones")
    last = [log[-1] for _, log in runs]
    accuracy = np.mean([line["test_accuracy"] for line in last])
    minutes = np.mean([sum(line["seconds"] for line in log) / 60 for _, log in runs])
    passed = max((goal for goal in GOALS if accuracy >= goal), default=None)
    goal = f"{passed:.0%}" if passed else f"none: below {GOALS[0]:.0%}"
    missing = "" if len(runs) >= SEEDS else f"{len(runs)} seed{'s' * (len(runs) > 1)}, not yet a record"
    config, seeds = runs[0][0], missing or "record"
    cells = [goal, f"{minutes:.1f}", f"{accuracy:.1%}", "", f"{config['feedback']:g}", regime(config, last), seeds, ""]
    return f"| {' | '.join(cells)} |"


def regime(config, last):
    """Whether it is full feedback, in words: or what is missing."""
    lost = np.mean([line["accuracy_at_T"] - line["accuracy_without_feedback"] for line in last])
    settled = min(line["converged"] for line in last)
    whole = config["feedback"] == 1 and settled >= SETTLES and lost >= LOSS
    share = f"{settled:.1%} settle" if config["tolerance"] else f"{config['steps_free']} steps"
    return f"{'full' if whole else 'any'}: {share}, {100 * lost:+.1f} points lost without feedback"


if __name__ == "__main__":
    cli.run(main)
