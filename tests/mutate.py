"""Wrong versions of examples and of ep/train, each of which a test must catch. Not collected by pytest: run it on demand.

    python tests/mutate.py                 # all of them: about ten minutes of one core
    python tests/mutate.py nudging flip    # those whose name contains one of the words
    python tests/mutate.py --list

A mutant is one replacement in one file and a test that must fail with it, and that passes without it. Every option of every
example, ignored, is a mutant: these are made from the examples' own parsers, as the table of checks in test_options.py is.
Those of ep/train are written down below; those of the core (ep/*.py, ep/fast) are in test_mutants.py, which CI runs.
The mutants live in a copy in a temporary folder. The exit code is 1 if one survives.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import test_options

ROOT = Path(__file__).parents[1]
RANDOM = "tests/test_training.py::test_what_is_random_depends_on_seed_epoch_and_step"
OPTIONS, EXPERIMENT = "tests/test_options.py", "tests/test_experiment.py"


class Mutant(NamedTuple):
    file: str
    right: str
    wrong: str
    test: str


def acts(option):
    return f"{OPTIONS}::test_an_option_of_the_main_job_acts[{option}]"


def of(test, file, right, wrong):
    return Mutant(f"ep/train/{file}.py", right, wrong, test)


TRAIN = {  # name: mutant of ep/train
    "schedule of the free phase in nudged ones": of(acts("--schedule-nudged"), "experiment", "Phase(config.steps_nudged, config."
                                                    "schedule_nudged,", "Phase(config.steps_nudged, config.schedule,"),
    "no tolerance": of(acts("--tolerance"), "experiment", "config.schedule, config.tolerance,", "config.schedule, 0.0,"),
    "always deviations": of(acts("--nudged-phases"), "experiment", 'deviations=config.nudged_phases == "deviations", '
                            "conventions=conventions(config)", "deviations=True"),
    "conventions forgotten": of(acts("--conventions"), "experiment", ", conventions=conventions(config))", ")"),
    "Kolen-Pollack forgotten": of(acts("--feedback-update"), "experiment", "combined(estimate.gradient)", "estimate.gradient"),
    "never transposed": of(f"{EXPERIMENT}::test_exact_updates_go_through_the_transpose", "experiment", "transposed=transposed",
                           "transposed=False"),
    "always EP": of(acts("--algorithm"), "experiment", 'if config.algorithm == "bptt":\n            one_chunk',
                    "if False:\n            one_chunk"),
    "Kolen-Pollack with BPTT": of(
        f"{EXPERIMENT}::test_backpropagation_through_time_gives_feedback_weights_their_own_gradient", "experiment",
        'connections="asymmetric"), dict(feedback_update="exact")', 'connections="asymmetric"), dict()'),
    "always symmetric": of(acts("--nudging"), "experiment", "NUDGINGS[config.nudging]", 'NUDGINGS["symmetric"]'),
    "beta forgotten": of(acts("--beta"), "experiment", "(config.beta, rng", "(0.1, rng"),
    "chunks of 16": of(acts("--chunk"), "experiment", "x, y, map, config.chunk)", "x, y, map)"),
    "scale forgotten": of(acts("--scale"), "experiment", "scale=config.scale, ", ""),
    "gain forgotten": of(acts("--feedback"), "experiment", "feedback=config.feedback, ", ""),
    "seed of the weights forgotten": of(acts("--seed"), "experiment", "feedback=config.feedback, seed=config.seed)",
                                        "feedback=config.feedback)"),
    "cost forgotten": of(acts("--cost"), "experiment", "cost=COSTS[config.cost]", 'cost=COSTS["cross-entropy"]'),
    "never calibrated": of(acts("--initial-drive"), "experiment", "calibrate(network, x, config.initial_drive)", "pass"),
    "weight decay forgotten": of(acts("--weight-decay"), "experiment", "config.weight_decay, config.anneal",
                                 "0.02, config.anneal"),
    "annealing forgotten": of(f"{EXPERIMENT}::test_adam_is_annealed_over_all_steps", "experiment", "config.anneal_epochs, steps",
                              "1, steps"),
    "never warms up": of(acts("--warm-up"), "experiment", "config.warm_up)\n", "0)\n"),
    "a drift-free phase that is counted": of(f"{EXPERIMENT}::test_the_phases_that_are_counted_are_those_that_run", "experiment",
                                             ' or conventions(config).rest == "stays"', ""),
    "ignored options are let through": of(f"{EXPERIMENT}::test_settings_that_do_not_fit_together", "experiment",
                                          "        if so and options:", "        if False:"),
    "order from another seed": of(RANDOM, "loop", "default_rng([seed, epoch]).permutation",
                                  "default_rng([0, epoch]).permutation"),
    "augmentation from another seed": of(RANDOM, "loop", "default_rng([seed, epoch, step])",
                                         "default_rng([0, epoch, step])"),
    "the last batch is left out": of("tests/test_training.py", "loop", "return -(-images // batch_size)",
                                     "return images // batch_size"),
    "all test images": of(acts("--test-images"), "runs", "dataset.test_images[:n], dataset.test_labels[:n]",
                          "dataset.test_images, dataset.test_labels"),
    "one epoch": of(acts("--epochs"), "runs", "range(self.epoch, config.epochs)", "range(self.epoch, 1)"),
    "changed settings are let through": of("tests/test_main_job.py::test_resuming_names_what_differs", "commandline",
                                           "    if changed:", "    if False:"),
}
MAIN_JOB = "ep/train/job.py"
JOB = {  # name: mutant of the main job, beside those made below
    "no augmentation": Mutant(MAIN_JOB, "batch = datasets.augment(batch, rng, config.pad, config.flip)", "pass", acts("--flip")),
    "no crops": Mutant(MAIN_JOB, "rng, config.pad, config.flip)", "rng, 0, config.flip)", acts("--pad")),
    "no mirror images": Mutant(MAIN_JOB, "rng, config.pad, config.flip)", "rng, config.pad, False)", acts("--flip")),
    "other training images": Mutant(MAIN_JOB, "dataset.train_images[:n])", "dataset.train_images[-n:])",
                                    acts("--train-images")),
    "nothing held out": Mutant(MAIN_JOB, "datasets.hold_out(dataset, args.validation_images or 0)", "dataset",
                               acts("--validation-images")),
    "the asymmetric recipe is symmetric": Mutant("examples/cifar10_asym_ep.py", ', connections="asymmetric")', ")",
                                                 f"{OPTIONS}::test_the_asymmetric_recipe_is_the_main_job"),
}


def ignored():
    """{name: mutant} for every option of every example: the value on the command line is replaced by the default."""
    mutants = {}
    for name in (test_options.MAIN, *test_options.OTHERS):
        for action in test_options.actions_of(name):
            option = action.option_strings[0] if action.option_strings else action.dest
            uses = f"args.{action.dest}"
            own = MAIN_JOB if name == test_options.MAIN else str(test_options.source_of(name).relative_to(ROOT))
            shared = "examples/trained.py"
            lent = uses not in (ROOT / own).read_text() and uses in (ROOT / shared).read_text()
            file = shared if lent and "trained" in test_options.imports(name) else own
            test = acts(option) if name == test_options.MAIN else (
                f"{OPTIONS}::test_an_option_of_another_example_acts[{name}-{option}]")
            mutants[f"{name} {option}"] = Mutant(file, *without(action, (ROOT / file).read_text()), test)
    return mutants


def without(action, source):
    """(right, wrong): every use of an option in the source, and its default in that place."""
    default = f"__import__('pathlib').Path({str(action.default)!r})" if isinstance(action.default, Path) else repr(action.default)
    if f"args.{action.dest}" in source:
        return f"args.{action.dest}", default
    if "vars(experiment.Config()).keys() - {" in source:  # a setting of the main job
        return "vars(experiment.Config()).keys() - {", f'vars(experiment.Config()).keys() - {{"{action.dest}", '
    if f'"{action.dest}"' in source:  # in the list of those that are taken over
        return f'"{action.dest}"', '"nothing"'
    return f"parser.parse_args().{action.dest}", default


def mutated(source, mutant):
    """The source with every `right` replaced; of an option (args.NAME) every use of it, no assignment and no longer name."""
    parts = source.split(mutant.right)
    assert len(parts) > 1, f"'{mutant.right}' is not in {mutant.file} any more: bring this mutant up to date"
    result = parts[0]
    for part in parts[1:]:
        kept = mutant.right.startswith("args.") and (part[:1].isidentifier() or part.startswith(" = "))
        result += (mutant.right if kept else mutant.wrong) + part
    assert result != source, mutant
    return result


def fails(copy, *tests):
    """Whether one of the tests fails in the copy; anything but a pass or a failure is an error of this file."""
    one_thread = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "PYTHONDONTWRITEBYTECODE"), "1")
    environment = {**os.environ, **one_thread, "PYTHONPATH": str(copy)}
    command = [sys.executable, "-m", "pytest", "--slow", "-x", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(f"error: {' '.join(tests)} cannot be run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    if " passed" not in done.stdout and " failed" not in done.stdout:
        return None  # skipped: it needs what is not installed
    return done.returncode == 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only mutants whose name contains one of these")
    parser.add_argument("--list", action="store_true", help="print them, and run nothing")
    args = parser.parse_args()
    mutants = {name: mutant for name, mutant in (TRAIN | JOB | ignored()).items()
               if not args.words or any(word in name for word in args.words)}
    if args.list:
        print(*(f"{name:60} {mutant.test}" for name, mutant in mutants.items()), sep="\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        copy, survived = Path(folder, "copy"), []
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", "runs", "build", "__pycache__", ".pytest_cache"))
        if fails(copy, *dict.fromkeys(mutant.test for mutant in mutants.values())):
            raise SystemExit("error: one of these tests fails without any mutant; run pytest")
        for name, mutant in mutants.items():
            file = copy / mutant.file
            source = file.read_text(encoding="utf-8")
            file.write_text(mutated(source, mutant), encoding="utf-8")
            caught = fails(copy, mutant.test)
            file.write_text(source, encoding="utf-8")
            print(f"{ {True: 'caught', False: 'SURVIVED', None: 'skipped'}[caught]:9} {name}", flush=True)
            survived += [name] if caught is False else []
    print(f"{len(survived)} of {len(mutants)} survived" + ": " * bool(survived) + ", ".join(survived))
    raise SystemExit(bool(survived))


if __name__ == "__main__":
    main()
