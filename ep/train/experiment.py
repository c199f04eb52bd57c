"""One experiment: from a preset, a data set and options to a network, an optimizer and a gradient.

    config = resolve(dataset, preset="cpu", beta=0.5)       every setting, frozen
    network, optimizer, gradient = build(config)

Which settings there are stands in settings.py. Here are the presets (`PRESETS`), what a choice brings with it (`CHOICES`), which
of them wins (`layers`), and what settings mean (`build`).
"""

import zlib
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np

from .. import backend, engine
from ..bptt import bptt_gradient
from ..builders import CONNECTIONS, calibrate, convnet, resnet, whitening
from ..cost import COSTS
from ..datasets import Dataset, cifar
from ..dynamics import Phase, Phases
from ..eqprop import eqprop_gradient
from ..errors import EPError
from ..nudging import NUDGINGS, Nudging
from ..papers_code import papers_gradient
from ..radius import calibrate_radius
from ..vectorfield import FEEDBACK_UPDATES
from . import loop
from .optimizers import OPTIMIZERS
from .settings import Config, refuse_what_would_be_ignored, scaled_by_hand
from .step import Step, recorded

# --- which value a setting has ----------------------------------------------------------------------------------------


CPU = dict(channels=(32, 64, 128, 256), initial_drive=0.333, scale=(1.0, 6.0), feedback=0.01,
           nudged_phases="deviations", beta=0.1, steps_free=2, schedule="up", steps_nudged=1, schedule_nudged="down",
           optimizer="adam", lr=(4e-3, 1.2e-2), weight_decay=0.02, warm_up=200,
           batch_size=32)  # weak feedback: the phases end near their fixed points
SOONER = dict(optimizer="muon", whitening=12, lr=(1.2e-2,), weight_decay=0.2, initial_drive=0.2, scale=(1.0, 3.0),
              epochs=8)  # beside CPU; the decay is strong, for nothing else bounds what Muon's updates make of a kernel
BY_ADAM = {name: CPU[name] for name in ("optimizer", "lr", "weight_decay", "initial_drive", "scale")}
RESNET = BY_ADAM | dict(whitening=0, channels=(32, 64, 128), scale=(1.0, 3.0), feedback=0.001, beta=0.02,
                        lr=(1.2e-3, 3e-3), activation="relu6")  # beside CPU
RESNET_SOONER = {name: SOONER[name] for name in ("optimizer", "whitening", "initial_drive")} | dict(
    lr=(3e-3, 6e-3), weight_decay=0.75)  # beside RESNET
RECURRENT = dict(channels=(32, 64, 128, 256), scale=(1.0, 4.0), initial_radius=0.75, radius_limit=0.93, whitening=12,
                 feedback=1.0, nudged_phases="states", beta=0.2, steps_free=60, schedule="checkerboard", tolerance=1e-3,
                 steps_nudged=6, schedule_nudged="down", omega=1.5, optimizer="muon", lr=(3e-3, 6e-3), weight_decay=0.3,
                 warm_up=50)  # full feedback: a radius near 1, and nearly all images settle
ADAM = dict(optimizer="adam", lr=(2e-3, 6e-3), weight_decay=0.02)  # beside RECURRENT
DEEP = ADAM | dict(channels=(16, 32, 64), initial_radius=0.9, radius_limit=0.92, scale=(1.0, 100.0), lr=(2e-3, 5e-2), beta=5e-4,
                   steps_free=100)  # of a resnet: little arrives at the top, so the readout is large, and beta small
ON_A_GPU = dict(tolerance=0.0, steps_free=30)  # of RECURRENT: a fixed number of steps, for those can be recorded
PAPER = dict(channels=(128, 256, 512, 512), scale=(1.0,), nudged_phases="states", conventions="paper", beta=1.0, steps_free=250,
             steps_nudged=25, schedule="synchronous", optimizer="sgd", lr=(0.25, 0.15, 0.1, 0.08, 0.05), weight_decay=3e-4,
             batch_size=128, check_every=10)  # the log says at which step the residual passed 1e-6
SYNTHETIC = dict(epochs=3, train_images=4000, test_images=1000, final_test_images=1000, flip=False, pad=0)
CIFAR10 = dict(batch_size=64, epochs=6, train_images=50000, test_images=2000, final_test_images=10000, flip=True, pad=2)
PAPERS_IMAGES = dict(epochs=120, anneal_epochs=100, train_images=50000, test_images=10000, final_test_images=10000, flip=True,
                     pad=4)
CALIBRATION = 256  # images whose drives `calibrate` looks at
FEW = 16  # images whose radius is looked at
FIRST_DRIVES = (1.7, 0.55)  # deviation and mean of those of the first layer, which is in no loop, beside an --initial-radius
VISITS = 40_000  # of any other data set: as many epochs as make so many visits of images, but 5 to 50
PRESETS = {  # (preset, data set) -> its settings; `row` says what any other data set gets
    ("cpu", "synthetic"): CPU | SYNTHETIC,
    ("cpu", "cifar10"): CPU | CIFAR10 | SOONER,
    ("cpu", "cifar100"): CPU | CIFAR10 | SOONER | dict(lr=(6e-3,), weight_decay=0.4),
    ("recurrent", "synthetic"): RECURRENT | SYNTHETIC | dict(epochs=1, lr=(8e-3, 1.2e-2)),
    ("recurrent", "cifar10"): RECURRENT | CIFAR10 | dict(epochs=2),
    ("paper", "cifar10"): PAPER | PAPERS_IMAGES,
    ("paper", "cifar100"): PAPER | PAPERS_IMAGES,
}
NAMES = tuple(dict.fromkeys(preset for preset, _ in PRESETS))
REGIMES = dict(  # a sentence about each, for the screen
    cpu="preset cpu: weak feedback. Two sweeps come near the equilibrium, and EP is nearly backpropagation",
    recurrent="preset recurrent: full feedback, relaxed until it settles. A step of --preset cpu is 5 to 6 times faster; "
              "its weak feedback makes it nearly feed-forward",
    paper="preset paper: full feedback, 250 steps and 25, which need not settle")
CHOICES: list[tuple[tuple, dict, dict]] = [  # (presets, choice, what it brings with it)
    (("paper",), dict(cost="squared-error"), dict(beta=0.5, steps_nudged=30)),  # the paper's other two numbers
    (("paper",), dict(optimizer="adam"), dict(lr=(1e-3,), weight_decay=0.02)),
    (("cpu",), dict(optimizer="adam"), BY_ADAM),
    (("cpu",), dict(connections="asymmetric"), BY_ADAM | dict(whitening=0, weight_decay=0.2)),  # as good as 2: 70.8, 70.6%
    (("cpu",), dict(optimizer="sgd"), BY_ADAM | dict(optimizer="sgd", lr=(0.1,), weight_decay=3e-4, warm_up=0)),
    (("cpu",), dict(network="resnet"), RESNET),
    (("cpu",), dict(network="resnet", optimizer="muon", connections="symmetric"), RESNET_SOONER),
    (NAMES, dict(connections="asymmetric"), dict(feedback_update="kolen-pollack")),
    (("paper",), dict(connections="asymmetric"), dict(steps_nudged=30)),
    (("cpu",), dict(connections="asymmetric", optimizer="sgd"), dict(weight_decay=3e-3)),
    (NAMES, dict(nudged_phases="deviations"), dict(conventions="here")),  # they leave nothing to choose
    (NAMES, dict(conventions="paper"), dict(nudged_phases="states")),
    (NAMES, dict(feedback_update="exact"), dict(nudged_phases="deviations", conventions="here")),  # two states cannot give it
    (NAMES, dict(algorithm="bptt", connections="asymmetric"), dict(feedback_update="exact")),  # it is: W and B get their own
    (NAMES, dict(algorithm="bptt"), dict(schedule="synchronous", schedule_nudged="synchronous", tolerance=0.0,
                                     omega=1.0)),
    (("recurrent",), dict(optimizer="adam"), ADAM),
    (("recurrent",), dict(network="resnet"), DEEP),
    (("recurrent",), dict(nudged_phases="deviations"), dict(beta=0.02, steps_nudged=5)),
    (("recurrent",), dict(network="resnet", nudged_phases="deviations"), dict(beta=1e-4, steps_nudged=16)),
    (("recurrent",), dict(connections="asymmetric"), dict(omega=1.0, initial_radius=0.5, radius_limit=0.7)),  # they may circle
    (("recurrent",), dict(feedback_update="exact"), dict(beta=0.02, steps_nudged=5)),
    (("recurrent",), dict(algorithm="bptt"), dict(steps_free=40, steps_nudged=15)),
    (("recurrent",), dict(optimizer="sgd"), dict(lr=(0.1,), weight_decay=3e-4, warm_up=0)),
    (("cpu",), dict(algorithm="bptt"), dict(steps_free=10, steps_nudged=6)),  # of which a sweep is worth several
]


VARYING = set().union(*PRESETS.values(), *(brings for _, _, brings in CHOICES))  # settings that these tables replace


def row(preset, dataset):
    """The settings of a preset for a data set. One that PRESETS does not name is used whole, with the augmentation it asks for.

    Official images of CIFAR are that data set in a folder of pictures or an .npz file, too.
    Raises EPError for the paper's preset where the images are not CIFAR's.
    """
    name = next((layout.name for layout in cifar.LAYOUTS.values() if dataset.source.startswith(layout.recognised)),
                dataset.name)  # behind it may stand what was held out
    if (preset, name) in PRESETS:
        return PRESETS[preset, name]
    if preset == "paper":
        raise EPError(f"--preset paper is for CIFAR-10 and CIFAR-100, and refuses {dataset.source}: name their folder with "
                      "--data, or leave --preset out")
    train, test = len(dataset.train_labels), len(dataset.test_labels)
    return dict(dict(cpu=CPU, recurrent=RECURRENT)[preset], train_images=train, test_images=min(test, 2000),
                final_test_images=test, epochs=min(50, max(5, VISITS // train)), flip=dataset.flip, pad=dataset.pad,
                **(dict(whitening=min(RECURRENT["whitening"], 9 * dataset.shape[2])) if preset == "recurrent" else {}))


def layers(preset, dataset, device, ranks, given):
    """Where settings come from, the weakest first: each dictionary replaces what those before it say."""
    defaults, of_preset = {field.name: field.default for field in fields(Config)}, row(preset, dataset)
    chosen = {**defaults, **of_preset, **given}
    held_out, batch = chosen["validation_images"], chosen["batch_size"]
    return [
        defaults,
        of_preset,
        *(brings for presets, choice, brings in CHOICES if preset in presets and choice.items() <= chosen.items()),
        dict(initial_drive=0.0) if scaled_by_hand(given.get("scale", ()), chosen["cost"]) else {},
        dict(test_images=held_out, final_test_images=held_out) if held_out else {},
        dict(chunk=-(-batch // ranks), tf32=backend.tf32()) if device != "numpy" else {},  # a GPU's share: one chunk
        dict(ON_A_GPU) if device != "numpy" and preset == "recurrent" else {},
        given,
        dict(final_test_images=given["test_images"]) if "test_images" in given else {},
        dict(identity(dataset), preset=preset, device=device),
    ]


def resolve(dataset: Dataset, preset: str | None = None, device: str = "numpy", ranks: int = 1, **given: Any) -> Config:
    """The `Config` of an experiment on a data set: a row of PRESETS and what is `given`, in the order of `layers`.

    preset: default that of `Config`, also on a GPU. Raises EPError for settings that do not fit together.
    """
    preset = preset or Config.preset
    merged: dict[str, Any] = {}
    for layer in layers(preset, dataset, device, ranks, given):
        merged |= layer
    config = Config(**merged)
    own = len(config.channels) + 1  # layers with parameters: the convolutions and the classes
    if config.network == "resnet":  # stem, two a block, a skip for each stage but the first, and the classes
        own += 2 * config.blocks
    unfit = [name for name in ("scale", "lr") if name not in given and len(getattr(config, name)) not in (1, 2, own)]
    if unfit:
        raise EPError(f"--preset {preset} has other numbers of layers than the {own} of these --channels and the classes: give "
                      f"{' and '.join(f'--{name}' for name in unfit)} too, one number or one for each layer")
    refuse_what_would_be_ignored(config, given)
    for key, labels in (("train_images", dataset.train_labels), ("test_images", dataset.test_labels)):
        if getattr(config, key) > len(labels):
            raise EPError(f"{key.replace('_', ' ')}: {getattr(config, key)} asked for, but {dataset.source} has {len(labels)}")
    return config


def regime(config):
    """The sentence about the preset, as long as it is true of these settings; else what they are."""
    settles = config.tolerance > 0 or config.device != "numpy"
    true = dict(cpu=config.feedback <= 0.02, recurrent=config.feedback == 1 and settles, paper=config.feedback == 1)
    if config.algorithm == "eqprop" and true[config.preset]:
        return REGIMES[config.preset]
    return (f"preset {config.preset}, with other settings: {config.algorithm}, feedback gain {config.feedback:g}, at most "
            f"{config.steps_free} {config.schedule} steps")


def extended(config, epochs):
    """`config` of a finished run for more epochs in all; the same config for the same number. Raises EPError for fewer.

    Where the learning rate was annealed to the last epoch, it is annealed to the new last one: it goes on at the value that it
    would have by now in a run of so many epochs, which is higher than at the end of the shorter run. An end of the annealing that
    is another epoch (the paper's 100 of 120) stays where it is.
    """
    if epochs == config.epochs:
        return config
    if epochs < config.epochs:
        raise EPError(f"epochs: the run has made {config.epochs}, which can be extended but not shortened to {epochs}")
    return replace(config, epochs=epochs, extended=(*config.extended, config.epochs),
                   anneal_epochs=epochs if config.anneal_epochs == config.epochs else config.anneal_epochs)


def identity(dataset):
    """What a configuration keeps of its data set, so that resuming can find, and recognise, the same images."""
    return dict(dataset=dataset.name, source=dataset.source, data=dataset.folder, image_shape=dataset.shape,
                classes=len(dataset.classes),
                checksum=zlib.crc32(dataset.train_images) ^ zlib.crc32(dataset.train_labels),
                test_checksum=zlib.crc32(dataset.test_images) ^ zlib.crc32(dataset.test_labels) ^ zlib.crc32(
                    ascii(dataset.classes).encode()))


# --- what the settings mean -------------------------------------------------------------------------------------------


def for_calibration(dataset):
    """CALIBRATION training images as the network sees them: the first, or evenly spaced ones where they are sorted by class."""
    labels = dataset.train_labels
    mixed = len(np.unique(labels[:CALIBRATION])) > 0.85 * len(np.unique(labels))  # of unsorted CIFAR-100, 92 of 100 classes
    return dataset.normalise(dataset.train_images[::1 if mixed else -(-len(labels) // CALIBRATION)][:CALIBRATION])


def build(config, xp=np, in_chunks=loop.in_chunks, map=map, x=None):
    """(network, optimizer, gradient) of a configuration, on the device of the module xp; see `gradient_function`.

    x: the first CALIBRATION training images as the network sees them, on the host, for whatever of it depends on images.
    """
    network = build_network(config, x).to(xp)
    return network, build_optimizer(config, network), gradient_function(config, in_chunks, map)


def build_network(config, x=None):
    """The initial network; without x it is not calibrated, and has no fixed filters."""
    common = dict(input_shape=config.image_shape, classes=config.classes, activation=config.activation,
                  cost=COSTS[config.cost], scale=config.scale, feedback=config.feedback, seed=config.seed)
    if config.whitening and x is not None:
        common["filters"] = whitening(x, config.whitening)
    if config.network == "resnet":
        network = resnet(config.blocks, config.channels, **common)
    else:
        network = convnet(config.channels, paddings=paddings(config), **common)
    if config.initial_drive and x is not None:
        calibrate(network, x, config.initial_drive)
    if config.initial_radius and x is not None:
        for name, w in network.parameters().items() if config.network == "resnet" else ():
            w *= not name.endswith(".b")  # below a radius of 1 drives shrink on their way up, and drawn biases would drown them
        calibrate(network, x, *FIRST_DRIVES, depth=1)
    network = CONNECTIONS[config.connections](network, seed=config.seed)
    if config.initial_radius and x is not None:
        calibrate_radius(network, x[:FEW], config.initial_radius, engine.prepared)
    return network


def paddings(config):
    """1 for each convolution, but 0 for the last, as in the paper, if what the poolings leave of the image is large enough."""
    side = min(config.image_shape[:2]) >> (len(config.channels) - 1)  # in front of the last convolution
    return [1] * (len(config.channels) - 1) + [0 if side >= 4 else 1]


def about(config: Config, dataset: Dataset) -> dict:
    """`Network.about` of the network that was trained: its images and classes, and the free phase that it was trained with."""
    return dict(dataset.about(), steps_free=config.steps_free, schedule=config.schedule, omega=config.omega)


def build_optimizer(config, network):
    steps = loop.steps_per_epoch(config.train_images, config.batch_size)
    return OPTIMIZERS[config.optimizer](network, config.lr, config.weight_decay, config.anneal_epochs, steps,
                                        config.warm_up)


def phases(config):
    """The `Phases` of a training step."""
    both = dict(check_every=config.check_every, omega=config.omega)
    return Phases(Phase(config.steps_free, config.schedule, config.tolerance, **both),
                  Phase(config.steps_nudged, config.schedule_nudged, **both),
                  deviations=config.nudged_phases == "deviations")


def gradient_function(config: Config, in_chunks: Callable = loop.in_chunks, map: Callable = map) -> Callable[..., Step]:
    """gradient(network, x, y, rng) -> Step, for `train_epoch`. in_chunks: `loop.in_chunks`, or that of several ranks."""
    combined, recorder = FEEDBACK_UPDATES[config.feedback_update][1], engine.Recorder()

    def gradient(network, x, y, rng):
        one_chunk, fast = estimator(config, rng), engine.prepared(network, map)
        if engine.recordable(fast, phases(config)) and config.algorithm == "eqprop":
            one_chunk = partial(recorded, recorder, one_chunk, tuple(one_chunk.keywords.items()))
        step = in_chunks(one_chunk, fast, x, y, map, config.chunk)
        if combined is not dict:  # another gradient than the one whose norms are known
            step.gradient = combined(step.gradient)
            step.squares = dict(zip(step.gradient, loop.numbers([(g * g).sum() for g in step.gradient.values()])))
        return step

    return gradient


def estimator(config: Config, rng: np.random.Generator | None = None) -> partial:
    """f(network, x, y) -> Estimate: the gradient of one chunk. rng draws what is random in the nudging, once for the batch."""
    if config.algorithm == "bptt":
        return partial(bptt_gradient, phases=phases(config))
    options = dict(phases=phases(config), nudging=nudging(config, rng))
    if config.conventions == "paper":
        return partial(papers_gradient, **options, common=config.feedback_update == "kolen-pollack")
    return partial(eqprop_gradient, **options, transposed=FEEDBACK_UPDATES[config.feedback_update][0])


def nudging(config: Config, rng: np.random.Generator | None = None) -> Nudging:
    """The `Nudging`; rng draws what is random in it."""
    return NUDGINGS[config.nudging](config.beta, rng or np.random.default_rng(0))
