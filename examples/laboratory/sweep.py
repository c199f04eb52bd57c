"""Which settings of the main job are right on most images that it has not seen?

    python examples/laboratory/sweep.py --grid beta=0.05,0.1,0.2 feedback=0.005,0.01 --data DIR          # every combination
    python examples/laboratory/sweep.py --grid "lr=3e-3 9e-3,4e-3 1.2e-2" seed=0,1,2 -- --epochs 2       # two rates a setting

A choice that looks at test images makes their accuracy too good. So every training here is evaluated on training images that
are held out (--validation-images), and the test images are not looked at: train once more with the chosen settings for those.

NAME=VALUE,VALUE are values of the option --NAME of `python -m ep.train`. What follows a lone -- is given to every training.
Trainings that differ only in their seed are one row of the table, with their mean and range.

One process per core, with one thread each. In --out every training has its run folder, named by its settings: a finished one is
never trained again, an unfinished one goes on from its checkpoint, and more values add to what is there. Then table.md (best
first), table.csv (a row for each training) and sweep.png are drawn. A training that fails, for instance because its rate is too
high, is a row that says so.

The figure: 12 trainings of a small network on 4,000 images of CIFAR-10 (JPEG copy), one seed, half an hour of one core that other
programs used, too. One seed and 1,000 held-out images cannot tell 36% from 37%. The colours say more: at the gains 0.005 and 0.02
every smallest cosine was above 0.97, and at 0.1 none was above 0.21.

    python examples/laboratory/sweep.py --grid beta=0.05,0.1,0.2,0.5 feedback=0.005,0.02,0.1 --images 4000 \\
        --validation-images 1000 --data DIR -- --preset cpu --optimizer adam --whitening 0 --channels 16 32 64 64 --epochs 2 \\
        --warm-up 40
"""

import csv
import itertools
import json
import math
import re
from functools import partial
from pathlib import Path

import numpy as np
import trainings

import ep
from ep import datasets
from ep.train import commandline as cli, experiment, job, runs

SET_HERE = {"train_images": "--images", "validation_images": "--validation-images", "out": "--out", "data": "--data",
            "resume": "--out", "threads": "--jobs", "device": "--jobs"}  # options of the main job that are not swept
NUMBERS = {"held_out_accuracy": "test_accuracy"} | {name: name for name in (  # here: in result.json
    "accuracy_at_T", "fixed_point_accuracy", "smallest_cosine", "train_accuracy", "seconds")}


def main(arguments=None):
    args = options(arguments)
    values = distinct(map(values_of, args.grid))
    trials = [dict(zip(values, chosen)) for chosen in itertools.product(*values.values())]
    work = checked(trials, args)  # a mistake in any of them ends here, before the first is trained
    unfinished = [(folder, words) for folder, words in work if not (folder / "result.json").exists()]
    print(f"{len(work)} trainings, {len(unfinished)} of them to do", flush=True)
    trainings.work([trainings.Training(folder, partial(trainings.main_job, folder, words, args.data), partial(said, folder))
                    for folder, words in unfinished], args.jobs)
    rows = [dict(trial, **outcome(folder), folder=folder.name) for trial, (folder, _) in zip(trials, work)]
    with open(args.out / "table.csv", "w", encoding="utf-8", newline="") as file:
        as_csv = csv.DictWriter(file, dict.fromkeys(key for row in rows for key in row))
        as_csv.writeheader()
        as_csv.writerows(rows)
    if not any("held_out_accuracy" in row for row in rows):
        raise ep.EPError(f"every training failed; the first: {rows[0]['failed']}", exit_code=1)
    text = table(rows, list(values))
    runs.write_text(args.out / "table.md", text)
    plot(rows, list(values), args.out / "sweep.png")
    print(f"{text}written: {', '.join(str(args.out / name) for name in ('table.md', 'table.csv', 'sweep.png'))}")


# --- which trainings ------------------------------------------------------------------------------------------------------


def values_of(text):
    """"beta=0.1,0.2" -> ("beta", ["0.1", "0.2"]); EPError for anything else."""
    name, _, values = text.partition("=")
    name = name.removeprefix("--")
    if not name or not values:
        raise ep.EPError(f"expected NAME=VALUE,VALUE, got '{text}'")
    return name, list(dict.fromkeys(value.strip() for value in values.split(",")))


def distinct(named):
    """{name: values}; EPError for a name that is given twice."""
    found = {}
    for name, values in named:
        if name in found:
            raise ep.EPError(f"{name} is given twice: name all its values in one place, as in {name}=1,2")
        found[name] = values
    return found


def checked(trials, args):
    """[(run folder, options of the main job)] of these trials; EPError if one of them cannot be trained."""
    parser, dataset, work = job.parser("", {}), None, []
    settings = {action.dest: action for action in parser._actions if action.dest in vars(experiment.Config())}
    shared = parser.parse_args(args.shared)
    given = {action.dest for action in parser._actions if getattr(shared, action.dest, None) != action.default}
    for name in sorted(SET_HERE.keys() & given):
        raise ep.EPError(f"--{name.replace('_', '-')} is not for behind the --: use {SET_HERE[name]} of the sweep")
    for name in sorted({name.replace("-", "_") for trial in trials for name in trial} & given):
        raise ep.EPError(f"{name.replace('_', '-')} is swept, and given behind the --, too: leave one of them out")
    for trial in trials:
        words = [*args.shared, "--train-images", str(args.images), "--validation-images", str(args.validation_images)]
        for name, value in trial.items():
            words += as_words(name, value, settings)
        asked = parser.parse_args([*words, *(["--data", str(args.data)] if args.data else [])])
        if dataset is None or "dataset" in trial:
            whole = datasets.load(asked.dataset or "auto", args.data, not asked.no_download)
            dataset = datasets.hold_out(whole, args.validation_images)
        config, folder = job.config_of(asked, dataset), args.out / folder_name(trial)
        experiment.build(config), experiment.phases(config), experiment.nudging(config)  # each refuses what does not fit
        refuse_another(folder, config)
        work.append((folder, words))
    return work


def as_words(name, value, settings):
    """The words of the command line that give this value to the option --name."""
    action = settings.get(name.replace("-", "_"))
    if not action or action.dest in SET_HERE:
        known = sorted(f"{dest.replace('_', '-')}" for dest in settings.keys() - SET_HERE.keys())
        raise ep.EPError(f"{name} is no setting that can be swept: expected one of {', '.join(known)}")
    if action.nargs != 0:
        return [f"--{name}", *value.split()]
    if value not in ("yes", "no"):
        raise ep.EPError(f"{name} is yes or no, got '{value}'")
    return [f"--{name}" if value == "yes" else f"--no-{name}"]


def folder_name(trial):
    return re.sub(r"[^\w.=,+-]", "_", ",".join(f"{name}={value}" for name, value in trial.items()))


def refuse_another(folder, config):
    """Raise EPError if the folder holds a training with other settings than these: it would be taken for this one."""
    path = folder / "config.json"
    if path.exists() and (stored := json.loads(path.read_text(encoding="utf-8"))):
        asked = json.loads(json.dumps(vars(config)))  # lists for tuples
        changed = sorted(name for name in asked.keys() | stored.keys() if name != "data" and stored.get(name) != asked.get(name))
        if changed:
            raise ep.EPError(f"{folder} holds a training with other settings ({', '.join(changed)}): choose another --out")


# --- what came out ------------------------------------------------------------------------------------------------------------


def outcome(folder):
    """The numbers of a training that has ended, {"failed": why} if there are none."""
    path = folder / "result.json"
    if not path.exists():
        return dict(failed=trainings.last_words(folder))
    result = json.loads(path.read_text(encoding="utf-8"))
    return {here: result[there] for here, there in NUMBERS.items()}


def said(folder, code):
    """What is printed of a training that has ended with this exit code."""
    return f"failed, {trainings.last_words(folder)}" if code else f"{outcome(folder)['held_out_accuracy']:.1%}"


def table(rows, names):
    """Markdown, best first: one line for each setting; of several seeds the mean, and the range of the accuracy."""
    names = [name for name in names if name != "seed"]
    by_setting = {}
    for row in rows:
        by_setting.setdefault(tuple(row[name] for name in names), []).append(row)
    held_out, lines = {}, {}
    for setting, group in by_setting.items():
        numbers = {key: [row[key] for row in group if row.get(key) is not None] for key in NUMBERS}
        accuracies = numbers["held_out_accuracy"]
        held_out[setting] = np.mean(accuracies) if accuracies else -1.0
        mean = {key: f"{np.mean(values):{'.3f' if 'cosine' in key else '.0f' if key == 'seconds' else '.1%'}}" if values else ""
                for key, values in numbers.items()}
        spread = f" ({min(accuracies):.1%} to {max(accuracies):.1%})" if len(accuracies) > 1 else ""
        failed = [row["failed"] for row in group if "failed" in row]
        said = [f"**{mean['held_out_accuracy']}**{spread}", f"{mean['accuracy_at_T']}, {mean['fixed_point_accuracy']}",
                mean["smallest_cosine"], mean["train_accuracy"], mean["seconds"]] if accuracies else [""] * 5
        lines[setting] = "| " + " | ".join([*setting, str(len(accuracies)), *said, "; ".join(failed)]) + " |"
    heads = [*names, "trainings", "held-out accuracy (range)", "at T, at the fixed point", "smallest cosine", "train accuracy",
             "seconds", "failed"]
    return "\n".join(["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|",
                      *(lines[setting] for setting in sorted(lines, key=held_out.get, reverse=True))]) + "\n"


def plot(rows, names, path):
    """A panel for each setting: every training as a dot, coloured by its smallest cosine, and the best one of each value."""
    from matplotlib.figure import Figure  # slow to import, and no display is needed

    rows = [row for row in rows if "held_out_accuracy" in row]
    names = [name for name in names if name != "seed"] or names
    figure = Figure(figsize=(1.5 + 3.5 * len(names), 4), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(names), sharey=True))
    accuracy = np.array([100 * row["held_out_accuracy"] for row in rows])
    cosine = [math.nan if row["smallest_cosine"] is None else row["smallest_cosine"] for row in rows]
    for axis, name in zip(axes, names):
        x, ticks = positions([row[name] for row in rows])
        best = {value: accuracy[x == value].max() for value in sorted(set(x))}
        axis.plot(list(best), list(best.values()), color="grey", linewidth=1, zorder=0, label="best of this value")
        dots = axis.scatter(x, accuracy, c=cosine, cmap="viridis", vmin=min(0.9, np.nanmin([*cosine, 1.0])), vmax=1.0,
                            plotnonfinite=True, edgecolors="black", linewidths=0.4)
        axis.set(xlabel=name)
        if not ticks and x.min() > 0 and x.max() > 5 * x.min():
            axis.set_xscale("log")
        if ticks or len(best) <= 6:
            axis.set_xticks(list(best), ticks or [f"{value:g}" for value in best])
            axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("held-out accuracy (%)")
    axes[0].legend(fontsize="small")
    figure.colorbar(dots, ax=axes, label="smallest cosine with the exact gradient")
    figure.savefig(path, dpi=110)


def positions(values):
    """(positions on an axis, tick labels): numbers where they are, words side by side; labels None for numbers."""
    try:
        return np.array([float(value) for value in values]), None
    except ValueError:
        labels = list(dict.fromkeys(values))
        return np.array([float(labels.index(value)) for value in values]), labels


def options(arguments):
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    add = parser.add_argument
    add("--grid", nargs="+", required=True, metavar="NAME=V,V", help="train every combination of these values")
    add("--images", type=cli.count, default=10000, metavar="N", help="training images of each (default: 10000)")
    add("--validation-images", type=cli.count, default=5000, metavar="N", help="held-out training images that each is evaluated "
        "on (default: 5000)")
    add("--data", type=cli.path, metavar="PATH", help="where the data set is")
    add("--jobs", type=cli.count, default=cli.cores(), help="trainings at once, of one thread each (default: all cores)")
    add("--out", type=cli.path, metavar="DIR", default=Path("runs", "sweep"), help="run folders, table, figure (default: "
        "runs/sweep)")
    add("shared", nargs="*", metavar="-- OPTION", help="options of python -m ep.train for every training, behind a lone --")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    cli.run(main)
