"""Run a record of docs/race.md, and check it: trains three seeds, prints their row, or says why they are none.

    python examples/laboratory/race.py runs/race --data DIR --preset cpu --epochs 3      # any options of the main job
    python examples/laboratory/race.py runs/race                                         # reads runs that are finished

The race: minutes of two CPU cores until 75, 80, 85, 88% of the 10,000 test images of CIFAR-10 are right, by equilibrium
propagation. What counts is the accuracy after the last epoch, mean of three seeds, and never that of the best epoch. Two classes:
any network; and full feedback, that is gain 1, with phases that settle, in which removing the feedback costs at least 5 points.

The trainings go to runs/race/seed-0, seed-1 and so on, one after the other; what is finished is kept, and what was interrupted
goes on. Two more columns are measured then: the accuracy when each test image and its mirror image are asked together; and,
where PyTorch is installed, a training step's time as a multiple of that of backpropagation in the same network.
"""

import importlib.util
import json
import subprocess
import time
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm
from trainings import main_job

import ep
from ep import datasets, engine
from ep.train import commandline as cli, experiment, job, loop

GOALS = (0.75, 0.80, 0.85, 0.88)
SEEDS = 3
SETTLES = 0.99  # the share of the images that do in the last epoch
LOSS = 0.05  # of the accuracy, without feedback
FREE = {"seed", "data", "source"}  # settings in which the runs of a row may differ
ROUNDS = 12  # of a step of each in turn; the first touches new memory


def main():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter, allow_abbrev=False)
    parser.add_argument("folder", type=cli.path, help="with a run folder for each seed")
    parser.add_argument("--data", type=cli.path, metavar="DIR", help="where the images are (default: where they were)")
    parser.add_argument("--seeds", type=cli.count, default=SEEDS, help=f"how many to train (default: {SEEDS})")
    parser.add_argument("--threads", type=cli.count, default=cli.cores(), help="default: all cores")
    args, options = parser.parse_known_args()
    if options:
        train(args, options)
    folders = sorted(path.parent for path in args.folder.glob("*/config.json"))
    if not folders:
        raise ep.EPError(f"{args.folder} holds no run: give the options of a training too, such as --preset cpu --data DIR")
    runs = [read(folder) for folder in folders]
    row(runs)  # before anything is measured: it refuses runs that are none of the race
    images = datasets.load("cifar10", args.data or runs[0][0]["data"], download=False)
    with ep.worker_threads(args.threads) as threads:
        both = np.mean([mirrored(folder, config, images, threads) for folder, (config, _) in zip(folders, runs)])
        step = multiple(folders[0], runs[0][0], images)
    print(row(runs, both, step))


def train(args, options):
    """The runs that are not finished yet. Raises EPError if one ends otherwise than well, which has said why.

    And, before any work, for options that this program gives itself, for a recipe that cannot be in the race, and for others
    than those of the runs that are there.
    """
    if own := {"--seed", "--out", "--resume", "--device"} & {option.split("=")[0] for option in options}:
        raise ep.EPError(f"{', '.join(sorted(own))}: a record has a seed and a folder for each run, and runs on a CPU; "
                         "leave that out")
    if reasons := barred(planned(options, args.data)):
        raise ep.EPError(f"no run of this race: it would be one that {reasons[0]}")
    kept, said = args.folder / "options.json", json.dumps(options)
    if not kept.exists() and not any(args.folder.glob("*/config.json")):
        args.folder.mkdir(parents=True, exist_ok=True)
        kept.write_text(said, encoding="utf-8")
    if not kept.exists() or kept.read_text(encoding="utf-8") != said:
        raise ep.EPError(f"{args.folder} has runs with other options: name another folder, or give none to read what is there")
    for seed in range(args.seeds):
        folder = args.folder / f"seed-{seed}"
        if not (folder / "result.json").exists():
            done = subprocess.run(list(map(str, main_job(folder, [*options, "--seed", seed], args.data, args.threads))))
            if done.returncode:
                and_now = "" if done.returncode == 2 else "; the same command goes on"
                raise ep.EPError(f"the training in {folder} has ended early{and_now}", done.returncode)


def planned(options, data):
    """The settings of a training with these options, as its config.json will have them."""
    words = [*options, *(["--data", str(data)] if data else []), "--no-download"]
    return vars(job.configured(job.parser(None, {}).parse_args(words), np, ranks=1)[0])


# --- what is measured -----------------------------------------------------------------------------------------------------


def mirrored(folder, config, images, threads):
    """The share of the test images that are right by the mean of the outputs for an image and for its mirror image."""
    network, phase = trained(folder), experiment.phases(experiment.Config(**config)).free

    def right(part):
        x = images.normalise(images.test_images[part])
        output = sum(network.cost.output(ep.relax(network, view, phase).states[-1]) for view in
                     (x, np.ascontiguousarray(x[:, :, ::-1])))
        return (output.argmax(1) == images.test_labels[part]).sum()

    network = engine.prepared(network)
    parts = loop.chunks(len(images.test_labels), config["chunk"])
    return sum(tqdm(threads(right, parts), total=len(parts), desc=f"{folder.name}, mirrored", leave=False)
               ) / len(images.test_labels)


def multiple(folder, config, images):
    """A training step, gradient and update, as a multiple of PyTorch's with backpropagation: the median of ROUNDS in turn.

    In processor time, one thread each, which other programs change little. Of the trained network, which settles later than an
    untrained one; it goes on learning meanwhile. None without PyTorch.
    """
    if importlib.util.find_spec("torch") is None:
        return None
    import torch
    from backpropagation import backpropagated

    torch.set_num_threads(1)
    config = experiment.Config(**config)
    n, rng = config.batch_size, np.random.default_rng(0)
    x, y, gradients = images.normalise(images.train_images[:n]), images.train_labels[:n], []
    for gradient in (experiment.gradient_function(config), backpropagated):
        network = trained(folder)
        gradients.append(partial(step, network, experiment.build_optimizer(config, network), gradient, x, y, rng))
    times = [[seconds(one) for one in gradients] for _ in range(ROUNDS)][1:]
    return float(np.median([ours / theirs for ours, theirs in times]))


def step(network, optimizer, gradient, x, y, rng):
    optimizer.step(gradient(network, x, y, rng).gradient, 0)


def seconds(run):
    start = time.process_time()
    run()
    return time.process_time() - start


def trained(folder):
    return ep.load(folder / "network.npz")


# --- the row --------------------------------------------------------------------------------------------------------------


def read(folder):
    """(settings, lines of the log) of a finished run. Raises EPError for one that cannot be in the race."""
    try:
        config, result, log = ((Path(folder) / name).read_text(encoding="utf-8") for name in
                               ("config.json", "result.json", "log.jsonl"))
    except OSError as error:
        raise ep.EPError(f"{folder} holds no finished run ({Path(error.filename).name} is missing): let it finish, with "
                         f"--resume {folder}") from None
    config, result, log = json.loads(config), json.loads(result), [json.loads(line) for line in log.splitlines()]
    reasons = barred(config)
    if not result["epochs"] == len(log) == config["epochs"]:
        reasons.append("has not made all of its epochs")
    if reasons:
        raise ep.EPError(f"{folder} is no run of this race: it {reasons[0]}")
    return config, log


def barred(config):
    """What keeps a run with these settings out of the race: [reason, ...]."""
    reasons = {
        "is not of all 10,000 test images of CIFAR-10": (config["dataset"], config["final_test_images"]) != ("cifar10", 10000),
        "is not of the official images": "official" not in config["source"],
        "held training images out": config["validation_images"] > 0,
        "is not by equilibrium propagation": config["algorithm"] != "eqprop",
        "is not of a CPU": config["device"] != "numpy",
        "had its epochs extended": len(config["extended"]) > 0,
    }
    return [reason for reason, holds in reasons.items() if holds]


def row(runs, both=None, step=None):
    """The line of the table, but for the command. Raises EPError if the runs are no repetitions of one.

    both: the accuracy with mirrored images. step: see `multiple`.
    """
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
    each = ", ".join(f"{100 * line['test_accuracy']:.1f}" for line in last)
    config, seeds = runs[0][0], each if len(runs) >= SEEDS else f"{each}: not yet a record"
    cells = [goal, f"{minutes:.1f}", "" if step is None else f"{step:.1f}", f"{accuracy:.1%}", "" if both is None else
             f"{both:.1%}", f"{config['feedback']:g}", regime(config, last), seeds, ""]
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
