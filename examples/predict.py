"""What does a trained network see in a picture, and how does it make up its mind?

    python examples/predict.py photo.jpg other.png      # the shipped network: ten kinds of animals and vehicles
    python examples/predict.py --model runs/flowers/network.npz photo.jpg      # a network of your own, and its classes
    python examples/predict.py --data PATH              # without pictures: the first test images of the network's data set

Two seconds. Relaxes the network step by step and prints the likeliest classes; then the feedback gain, how far the answers still
are from those at the fixed point, and what the feedback is good for. Saves predict.png: each picture, and how the probabilities
change while the network relaxes. The shipped network (models/cifar10-recurrent.npz) was trained by symmetric EP at full feedback.
A network.npz of a finished run of cifar10_sym_ep.py carries the names of its classes, the normalisation of its images and its
free phase. Pictures are read as a person sees them, cut to their middle square and shrunk (ep/datasets/pictures.py).
"""

import argparse
from pathlib import Path

import numpy as np

import ep
from ep import datasets
from ep.datasets import pictures
from ep.train import commandline as cli
from ep.train.curves import as_it_is
from ep.train.equilibrium import settled

SHIPPED = Path(__file__).parent / "models" / "cifar10-recurrent.npz"
CIFAR10 = dict(dataset="cifar10", classes=list(datasets.CLASSES), image_shape=[32, 32, 3], steps_free=8, schedule="checkerboard",
               mean=list(datasets.CIFAR10_MEAN), std=list(datasets.CIFAR10_STD))  # what older files are about, if anything


def main():
    args = options()
    network = ep.load(args.model)
    about = what_it_is_about(network, args.model)
    images, names, titles = read_files(args, about) if args.files else read_test_images(args, about)
    x = datasets.normalise(images, about["mean"], about["std"]).reshape(-1, *network.shapes[0])
    steps, s, probabilities = args.steps or about.get("steps_free", 8), None, []
    for _ in range(steps):  # the free phase, looked at after every step
        phase = ep.Phase(1, about.get("schedule", "checkerboard"), omega=about.get("omega", 1.0))
        s = ep.relax(network, x, phase, start=s).states
        probabilities.append(network.cost.output(s[-1]))  # o = softmax(W s_L + b), (N, classes); squared error: o = s_L
    for name, o in zip(names, probabilities[-1]):
        best = np.argsort(-o)[:3]
        print(f"{name}: " + ", ".join(f"{about['classes'][k]} {o[k]:.0%}" for k in best))
    print(distance(network, x, s, steps))
    print(regime(about.get("regime", {})), end="")
    plot(images, titles, np.array(probabilities), about["classes"], args.out)


def distance(network, x, s, steps):
    """One line: the feedback gain, and what relaxing on from the states s to the fixed point would change."""
    fixed = ep.relax(ep.engine.prepared(network), x, settled(network), start=s)
    before, after = (network.cost.output(states[-1]) for states in (s, fixed.states))
    changed, gap = (before.argmax(-1) != after.argmax(-1)).sum(), abs(before - after).max()
    end = "the fixed point" if fixed.converged else f"step {steps + fixed.steps}, which is no fixed point yet,"
    return (f"feedback gain {network.feedback:g}: from step {steps} to {end} {changed} of {len(x)} answers change, and no "
            f"probability by more than {gap:.1%}")


def regime(found):
    """One line, as its training left it: what the feedback is good for. Nothing, where the file does not say."""
    if not found or found["spectral_radius"] is None:
        return ""
    return (f"of {found['fixed_point_images']} test images it gets {found['fixed_point_accuracy']:.1%} right, and without its "
            f"feedback {found['accuracy_without_feedback']:.1%}; its spectral radius is {found['spectral_radius']:.2f} "
            "(0: nothing comes back, 1: it does not settle)\n")


def what_it_is_about(network, path):
    """Names of classes, normalisation, image shape: what the file says, or CIFAR-10's where it says nothing and they fit."""
    outputs, about = network.targets(np.zeros(1, int)).shape[1], network.about
    if about is None:
        if network.shapes[0] != (32, 32, 3) or outputs != 10:
            raise ep.EPError(f"{path} does not say what its {outputs} classes are, and they are not CIFAR-10's: train it "
                             "again with this version, or set network.about = dataset.about() and save it")
        if path != SHIPPED:
            print(f"{path} does not say what it was trained on: assuming CIFAR-10, since it has 10 classes and takes 32x32 "
                  "colour images")
        return CIFAR10
    missing = {"classes", "mean", "std", "image_shape"} - about.keys()
    if missing or len(about["classes"]) != outputs or np.prod(about["image_shape"]) != np.prod(network.shapes[0]):
        raise ep.EPError(f"{path} contradicts itself: what it says about its images and classes ({', '.join(about)}) does not "
                         f"belong to a network from {network.shapes[0]} to {outputs} classes")
    return about


def read_files(args, about):
    """(images (N, H, W, C) uint8, paths, names of the files)."""
    shape = tuple(about["image_shape"])
    return np.stack([pictures.read(path, shape) for path in args.files]), args.files, [path.name for path in args.files]


def read_test_images(args, about):
    """(images, which they are, their true classes) of the data set that the network was trained on."""
    name = about.get("dataset", "auto")
    if name not in datasets.NAMES and args.data is None:
        raise ep.EPError(f"this network was trained on {about.get('source', 'images of your own')}: name pictures, or where they "
                         "are with --data")
    dataset = datasets.load(name, args.data, download=False)
    datasets.check_seen(dataset, about)
    n = args.count or 5
    true = [dataset.classes[k] for k in dataset.test_labels[:n]]
    names, titles = ([f"{what} {name}" for name in true] for what in ("a test image of class", "true:"))
    return dataset.test_images[:n], names, titles


def plot(images, titles, probabilities, classes, path):
    """One column per image: the image, and the probabilities of its three likeliest classes over the steps."""
    from matplotlib.figure import Figure  # slow to import, and no display is needed

    figure = Figure(figsize=(1 + 2.4 * len(images), 4.6), layout="constrained")
    axes = figure.subplots(2, len(images), squeeze=False, sharey="row")
    steps = range(1, len(probabilities) + 1)
    for n, (image, title) in enumerate(zip(images, titles)):
        shown = image if image.shape[2] in (1, 3) else image[..., 0]  # of other channels the first
        axes[0, n].imshow(shown, cmap="gray", vmin=0, vmax=255 if image.dtype == np.uint8 else 1)
        axes[0, n].set_title(as_it_is(title), fontsize="medium", parse_math=False)
        axes[0, n].axis("off")
        best, colours = np.argsort(-probabilities[-1, n])[:3], ("#0072B2", "#D55E00", "#009E73")
        lines = [axes[1, n].plot(steps, probabilities[:, n, k], color=colour)[0] for k, colour in zip(best, colours)]
        axes[1, n].set(ylim=(0, 1), xlabel="step of the free phase")
        legend = axes[1, n].legend(lines, [""] * len(best), fontsize="small", loc="center right")
        for text, k in zip(legend.get_texts(), best):  # names are no formulas, and are shown with a leading _, too
            text.set(text=as_it_is(classes[k]), parse_math=False)
        axes[1, n].grid(alpha=0.3)
    axes[1, 0].set_ylabel("probability")
    path = path if path.suffix else path.with_suffix(".png")  # as Matplotlib does
    figure.savefig(path, dpi=110)
    print(f"written: {path}")


def options():
    parser = cli.Parser(description=__doc__, formatter_class=cli.Formatter)
    add = parser.add_argument
    add("files", nargs="*", type=cli.path, metavar="PICTURE", help="picture files (default: test images)")
    add("--model", type=cli.path, default=SHIPPED, metavar="PATH", help="network.npz of a run, or what Network.save wrote "
        "(default: the shipped one)")
    add("--data", type=cli.path, metavar="PATH", help="where the data set is whose test images are looked at")
    add("--count", type=cli.count, help="number of test images (default: 5)")
    add("--steps", type=cli.count, metavar="T", help="steps of the free phase (default: as the network was trained; "
        "10_settling.py shows what more do)")
    add("--out", type=figure, default="predict.png", metavar="FILE")
    args = parser.parse_args()
    if args.files and (args.count or args.data):
        raise ep.EPError("--count and --data are for test images: leave them out where pictures are named")
    return args


def figure(text):
    """argparse type: the path of a figure, whose ending says in which format Matplotlib writes it."""
    from matplotlib.backend_bases import FigureCanvasBase  # slow to import

    formats, file = FigureCanvasBase.get_supported_filetypes(), cli.path(text)
    if file.suffix and file.suffix[1:].lower() not in formats or file.is_dir() or not file.parent.is_dir():
        raise argparse.ArgumentTypeError(f"expected a file ending in one of {', '.join(formats)} in a folder that exists, "
                                         f"got '{text}'")
    return file


if __name__ == "__main__":
    cli.run(main)
