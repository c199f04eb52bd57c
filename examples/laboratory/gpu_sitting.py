"""A GPU for ten minutes: what trains there, as many epochs as fit, annealed to their own end.

    python examples/laboratory/gpu_sitting.py split cifar10.npz --out images      # here: files of at most 16 MiB, to be sent
    python examples/laboratory/gpu_sitting.py join images --out .                 # there: the file again, checked by its digest
    python examples/laboratory/gpu_sitting.py train full-deviations --minutes 8 --data DIR --out sitting         # there
    python examples/laboratory/gpu_sitting.py join sitting/parts --out runs/full-deviations                      # here again

A machine that is lent for minutes, and reached by commands alone, takes files of a limited size and gives files of a limited size
back. `train` first trains for two short epochs twice, which says what a step and an evaluation take on this GPU. It then chooses
the number of epochs that fit into --minutes, trains them, and leaves the files of the run, the large ones cut into parts. Each
part's name has its number, and digests.json the SHA-256 of every whole file.

    full-deviations   the paper's channels at gain 1, settled, symmetric nudging, by deviations
    full-states       the same by the difference of two states, the paper's rule
    full-one-sided    the same, nudged one way
    highest           a residual network at a weak gain, for the highest accuracy
    cifar100          the same, for CIFAR-100: --data DIR is where that is

Nothing here has run on a GPU yet: the tests train with it on a CPU.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import ep
from ep.train import commandline as cli, runs

SIZE = 16 << 20  # bytes of a part
FULL = "--preset recurrent --channels 128 256 512 512 --batch-size 128 --pad 4 --warm-up 300 --nudging {} --nudged-phases {}"
WIDE = "--preset cpu --network resnet --channels 128 256 512 --pad 4 --batch-size 128"
TRAININGS = {"full-deviations": FULL.format("symmetric", "deviations"), "full-states": FULL.format("symmetric", "states"),
             "full-one-sided": FULL.format("one-sided", "states"), "highest": WIDE, "cifar100": WIDE}
PROBES = (30, 90)  # updates of an epoch of the two short trainings


def main():
    args = options()
    if args.do == "split":
        split([args.what], args.out)
    elif args.do == "join":
        join(Path(args.what), args.out)
    elif args.what not in TRAININGS:
        raise ep.EPError(f"no training has the name '{args.what}': expected one of {', '.join(TRAININGS)}")
    else:
        train(TRAININGS[args.what] + " " + " ".join(args.also), args)


# --- files that travel in parts -----------------------------------------------------------------------------------------------


def split(paths, folder):
    """Cut files into parts of at most SIZE bytes: NAME.part-000, ... in the folder, and digests.json."""
    folder.mkdir(parents=True, exist_ok=True)
    digests = {}
    for path in map(Path, paths):
        data = path.read_bytes()
        digests[path.name] = hashlib.sha256(data).hexdigest()
        for k, start in enumerate(range(0, max(1, len(data)), SIZE)):
            (folder / f"{path.name}.part-{k:03}").write_bytes(data[start:start + SIZE])
    runs.write_text(folder / "digests.json", json.dumps(digests, indent=1) + "\n")


def join(folder, out):
    """Put the files of `split` together again. Raises EPError, and writes nothing of it, for a file that is not what it was."""
    digests = json.loads((folder / "digests.json").read_text())
    out.mkdir(parents=True, exist_ok=True)
    for name, digest in digests.items():
        data = b"".join(part.read_bytes() for part in sorted(folder.glob(f"{name}.part-*")))
        if hashlib.sha256(data).hexdigest() != digest:
            raise ep.EPError(f"{name} is not what was split: a part is missing or damaged in {folder}", exit_code=1)
        (out / name).write_bytes(data)
        print(f"{out / name}: {len(data):,} bytes")


# --- a training that fits ------------------------------------------------------------------------------------------------------


def train(recipe, args):
    batch, images = settings(recipe, args)
    with tempfile.TemporaryDirectory() as place:
        short, long = (last_epoch(job(f"{recipe} --train-images {n * batch} --epochs 2", args, Path(place) / str(n)))
                       for n in PROBES)
    step = max(1e-6, (long - short) / (PROBES[1] - PROBES[0]))
    evaluation = max(0.0, short - PROBES[0] * step)
    epoch = step * -(-images // batch) + evaluation
    epochs = max(1, int((60 * args.minutes - 6 * evaluation) / epoch))  # the last evaluation is of all test images
    print(f"{1e3 * step:.1f} ms an update, {evaluation:.1f} s an evaluation: {epochs} epochs of {epoch:.1f} s fit", flush=True)
    run = job(f"{recipe} --epochs {epochs}", args, args.out / "run")
    runs.write_text(args.out / "sitting.json", json.dumps(dict(recipe=recipe, epochs=epochs, seconds_of_an_update=step,
                                                               seconds_of_an_evaluation=evaluation), indent=1) + "\n")
    split(sorted(path for path in run.iterdir() if path.is_file()), args.out / "parts")


def settings(recipe, args):
    """(images of a batch, training images of an epoch), as the main job has them for this recipe."""
    from ep import datasets
    from ep.train import job as main_job

    asked = main_job.parser("", {}).parse_args(recipe.split())
    config = main_job.config_of(asked, datasets.load(asked.dataset or "auto", args.data, False), device="cupy")
    return config.batch_size, config.train_images


def job(recipe, args, folder):
    """Train by the main job in this folder; returns it."""
    command = [sys.executable, "-m", "ep.train", *recipe.split(), "--device", args.device, "--no-download", "--out", str(folder)]
    done = subprocess.run([*command, *(["--data", str(args.data)] if args.data else [])], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise ep.EPError(f"the training failed: {done.stderr.strip().splitlines()[-1]}", exit_code=1)
    return folder


def last_epoch(folder):
    """Seconds of the last epoch of a run, evaluation included."""
    return json.loads((folder / "log.jsonl").read_text().splitlines()[-1])["seconds"]


def options():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    add = parser.add_argument
    add("do", choices=("split", "join", "train"))
    add("what", help="a file, a folder of parts, or the name of a training")
    add("also", nargs="*", help="behind a lone --: more options of the main job")
    add("--out", type=cli.path, metavar="DIR", default=Path("sitting"))
    add("--data", type=cli.path, metavar="DIR", help="where the images are")
    add("--minutes", type=cli.positive, default=8.0, help="that the training may take (default: 8)")
    add("--device", choices=("cuda", "cpu"), default="cuda")
    return parser.parse_args()


if __name__ == "__main__":
    cli.run(main)
