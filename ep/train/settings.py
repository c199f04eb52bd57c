"""Which settings there are, and what each of them means: one declaration a setting. Parser, --help and refusals follow from it.

    beta: float = option(1.0, number, "nudging strength", NUDGES)
    |     |              |    |       |                   |
    |     |              |    |       |                   when it has an effect; where it has none, it is refused
    |     |              |    |       what --help says
    |     |              |    how the word of the command line is read: a function, a table of names, or bool for --x and --no-x
    |     |              default; of a tuple, the command line takes one value or several
    name in config.json, and --beta on the command line

What a program finds out by itself has a default alone, and no option. A preset replaces many defaults: `experiment.PRESETS`.
"""

from argparse import BooleanOptionalAction
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from ..activations import ACTIVATIONS
from ..builders import CONNECTIONS
from ..cost import COSTS
from ..dynamics import SCHEDULES
from ..errors import EPError
from ..nudging import NUDGINGS
from ..vectorfield import FEEDBACK_UPDATES
from . import loop
from .commandline import count, not_negative, number, pixels, positive, radius, whole
from .optimizers import OPTIMIZERS


class Only(NamedTuple):
    """When an option has an effect, and what it is for: the end of the sentence that refuses it where it has none."""

    acts: Callable[[Any], bool]  # of a `Config`
    purpose: str


class Option(NamedTuple):
    """What `option` says of a setting."""

    default: Any
    read: Callable | Collection
    help: str
    only: tuple


def option(default: Any, read: Callable | Collection, help: str, *only: Only) -> Any:
    """A field of `Config` that the command line can set."""
    return field(default=default, metadata=dict(option=Option(default, read, help, only)))


# --- when they have an effect -------------------------------------------------------------------------------------------


def scaled_by_hand(scale, cost):
    """Whether there are factors other than 1 on weights that `calibrate` would scale anyway: all but those of a readout."""
    readout = len(scale) > 1 and cost != "squared-error"
    return any(factor != 1 for factor in (scale[:-1] if readout else scale))


def equal_by_hand(scale, cost):
    """Whether there are such factors, and equal ones: their proportions are all that `calibrate_radius` keeps of them."""
    own = scale[:-1] if cost != "squared-error" else scale
    return scaled_by_hand(scale, cost) and len(set(own[1:] if len(scale) > 2 else own)) <= 1  # the first layer is in no loop


CLIPPED = [name for name, sigma in ACTIVATIONS.items() if sigma.slope]  # the others have no over-relaxation
RESIDUAL = Only(lambda config: config.network == "resnet", "--network resnet")
UNCALIBRATED = Only(lambda config: config.initial_drive == 0 or not scaled_by_hand(config.scale, config.cost),
                    "initial weights that --initial-drive does not scale: give 1 for all but the readout, or --initial-drive 0")
PROPORTIONS = Only(lambda config: config.initial_radius == 0 or not equal_by_hand(config.scale, config.cost),
                   "hidden layers that differ: all of them are scaled to --initial-radius, so equal factors would change "
                   "nothing. Give 1 for these, or --initial-radius 0")
ASYMMETRIC = Only(lambda config: config.connections == "asymmetric",
                  "feedback weights of their own: add --connections asymmetric")
NUDGES = Only(lambda config: config.algorithm == "eqprop", "--algorithm eqprop: bptt nudges nothing")
TWO_STATES = Only(lambda config: config.nudged_phases == "states" or config.conventions == "here", "--nudged-phases states")
NOT_OWN = Only(lambda config: config.algorithm == "eqprop" or config.feedback_update != "own",
               "--algorithm eqprop: the updates of bptt are exact")
ADAM = Only(lambda config: config.optimizer != "sgd", "--optimizer adam or muon")


# --- the settings -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    """Every setting of an experiment, as config.json has them; those that nobody sets have these defaults."""

    # images: which, how many, and what augmentation makes of them
    dataset: str = "synthetic"
    source: str = ""  # one line about where they come from
    data: str | None = None  # the folder or file they were read from
    checksum: int = 0  # of the training images, by which resuming recognises them
    test_checksum: int = 0  # of the test images and of the names of the classes
    image_shape: tuple = (32, 32, 3)  # rows, columns, channels
    classes: int = 10
    train_images: int = option(4000, count, "use the first N training images")
    validation_images: int = option(0, count, "hold out the last N training images and evaluate on them, never on test images: "
                                    "to choose settings")
    test_images: int = option(1000, count, "evaluate on the first N test images (default: some after each epoch, all after the "
                              "last)")
    final_test_images: int = 1000  # after the last epoch
    flip: bool = option(False, bool, "mirror half of the training images")
    pad: int = option(0, pixels, "crop training images at random after padding them by N pixels")
    # the network
    network: str = option("convnet", ("convnet", "resnet"), "convolutions and poolings, or blocks of two convolutions with skips "
                          "around them, 1 + 2 blocks layers deep")
    blocks: int = option(6, count, "of a resnet; 6 are 13 layers", RESIDUAL)
    activation: str = option("hard-sigmoid", CLIPPED, "sigma = clip(u/2, 0, 1), clip(u, 0, 1) or clip(u, 0, 6) (default: that of "
                             "the paper, hard-sigmoid; relu6 of a resnet with --preset cpu)")
    channels: tuple = option((32, 64, 128, 128), count, "of each convolution, or of each stage of a resnet")
    scale: tuple = option((1.0,), positive, "factor on the paper's initial weights: one, two (hidden layers, classes), or one "
                          "per layer; factors on hidden layers stand in the place of --initial-drive; --initial-radius "
                          "keeps their proportions", UNCALIBRATED, PROPORTIONS)
    initial_drive: float = option(0.0, not_negative, "scale the initial weights of every unit so that its drives vary this much "
                                  "over the first training images, around 0; 0: do not")
    initial_radius: float = option(0.0, radius, "scale the initial hidden weights so that the spectral radius at the fixed "
                                   "points of the first training images is this, below 1; 0: do not")
    radius_limit: float = option(0.0, radius, "look at the radius every 20 updates, and multiply the hidden weights by "
                                 "limit / radius if it is larger, so that the network goes on settling; 0: do not")
    whitening: int = option(0, whole, "fixed filters, each with its negative, through which the first convolution sees an image: "
                            "the first principal components of 3x3 patches, whitened; 0: none")
    feedback: float = option(1.0, not_negative, "the feedback gain gamma: 1 is the paper's network, and below it what comes down "
                             "from a layer counts less than what goes up")
    cost: str = option("cross-entropy", COSTS, "squared-error: of the last layer; cross-entropy: of a readout of it")
    connections: str = option("symmetric", CONNECTIONS, "asymmetric: feedback weights of their own")
    seed: int = option(0, whole, "of initial weights, order, augmentation and signs")
    # the gradient
    algorithm: str = option("eqprop", ("eqprop", "bptt"), "bptt: backpropagation through the last K steps")
    nudging: str = option("symmetric", NUDGINGS, "which nudged phases estimate the gradient", NUDGES)
    beta: float = option(1.0, number, "nudging strength, the largest |beta| of the points", NUDGES)
    nudged_phases: str = option("states", ("states", "deviations"), "what nudged phases relax: the states, as in the paper's "
                                "code, or the deviations from the free state, which lose no digits", NUDGES)
    conventions: str = option("here", ("here", "paper"), "of --nudged-phases states: where this code and the paper's take "
                              "different numbers, ours or theirs (docs/theory/paper.md; default: here, and paper with --preset "
                              "paper)", NUDGES, TWO_STATES)
    feedback_update: str = option("own", FEEDBACK_UPDATES, "how forward weights and feedback weights of their own learn: each "
                                  "from its own update, both from the sum, or each from the exact gradient (default: "
                                  "kolen-pollack; with bptt exact)", ASYMMETRIC, NOT_OWN)
    steps_free: int = option(8, count, "T: steps of the free phase, at most")
    schedule: str = option("synchronous", SCHEDULES, "which layers are updated together, and in which order")
    tolerance: float = option(0.0, not_negative, "end the free phase once the residual is below this; 0: never")
    steps_nudged: int = option(3, count, "K: steps of each nudged phase")
    schedule_nudged: str | None = option(None, SCHEDULES, "the same of the nudged phases")  # None: that of the free phase
    omega: float = option(1.0, positive, "over-relaxation of both, below 2, for schedules other than synchronous")
    check_every: int | None = None  # steps from one look at the residual to the next
    chunk: int = option(loop.CHUNK, count, "images that are relaxed together; with CUDA a GPU's whole share of the batch")
    # the optimizer
    optimizer: str = option("sgd", OPTIMIZERS, "with learning rates and weight decay of its own; muon: kernels by orthogonalised "
                            "updates, all else by Adam")
    lr: tuple = option((0.1,), positive, "learning rate: one, two (hidden layers, classes), or one per layer")
    weight_decay: float = option(0.0, not_negative, "pulls the weights towards 0 in every step")
    warm_up: int = option(0, whole, "steps over which the rate of Adam or Muon rises to its full value", ADAM)
    batch_size: int = option(32, count, "images of a training step")
    epochs: int = option(1, count, "a finished run can be resumed with more: its learning rates are annealed anew")
    anneal_epochs: int | None = None  # None: all of them
    extended: tuple = ()  # the numbers of epochs after which the run was finished before, and then continued
    # where the settings come from, and where the numbers are computed
    preset: str = "recurrent"
    device: str = "numpy"
    tf32: bool = False

    def __post_init__(self):
        for name, value in vars(self).items():
            if isinstance(value, list):  # as they come from JSON and from the command line
                object.__setattr__(self, name, tuple(value))
        for name, default in (("anneal_epochs", self.epochs), ("schedule_nudged", self.schedule)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)


# --- what follows from the declarations ---------------------------------------------------------------------------------


OPTIONS: dict[str, Option] = {setting.name: setting.metadata["option"] for setting in fields(Config) if setting.metadata}


def flag(name):
    """The option of a setting, as one types it."""
    return f"--{name.replace('_', '-')}"


def add_options(add, varying):
    """Every option, by `add` of an argparse parser, which leaves None where it is not given.

    varying: settings whose default depends on others, so that --help names none.
    """
    for name, (default, read, help, _) in OPTIONS.items():
        how = dict(help=help if name in varying else f"{help} (default: {default})")
        if read is bool:
            how |= dict(action=BooleanOptionalAction)
        elif callable(read):
            how |= dict(type=read, metavar="N" if read in (count, pixels, whole) else None)
        else:
            how |= dict(choices=list(read))
        if isinstance(default, tuple):
            how |= dict(nargs="+")
        add(flag(name), **how)


def refuse_what_would_be_ignored(config, given):
    """Raise EPError, naming the options, for those of the `given` settings that the others leave without any effect."""
    for only in dict.fromkeys(only for option in OPTIONS.values() for only in option.only):
        names = [flag(name) for name, option in OPTIONS.items() if name in given and only in option.only]
        if names and not only.acts(config):
            raise EPError(f"{' and '.join(names)} {'are' if len(names) > 1 else 'is'} for {only.purpose}")
