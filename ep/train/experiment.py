"""One experiment: from a preset, a data set and options to a network, an optimizer and a gradient.

    config = resolve(dataset, preset="cpu", beta=0.5)       every setting, frozen
    network, optimizer, gradient = build(config)

What is known about settings stands here: their defaults (`Config`), the presets (`PRESETS`), what a choice brings with it
(`CHOICES`), which of them wins (`layers`), what they mean (`build`), and what they cost (`steps_per_image`).
"""

import zlib
from dataclasses import dataclass, fields
from functools import partial

import numpy as np

from .. import backend, fast
from ..bptt import bptt_gradient
from ..cost import COSTS
from ..eqprop import eqprop_gradient
from ..errors import EPError
from ..fast import kernels
from ..network import CONNECTIONS, convnet
from ..nudging import NUDGINGS
from ..vectorfield import FEEDBACK_UPDATES
from . import loop
from .optimizers import OPTIMIZERS


@dataclass(frozen=True)
class Config:
    """Every setting of an experiment, as config.json has them; those that nobody sets have these defaults."""

    # images: which, how many, and what augmentation makes of them
    dataset: str = "synthetic"
    source: str = ""  # one line about where they come from
    data: str | None = None  # the folder they were read from
    checksum: int = 0  # of the training images, by which resuming recognises them
    train_images: int = 4000
    validation_images: int = 0  # held out of the training images, in the place of the test images
    test_images: int = 1000  # after every epoch
    final_test_images: int = 1000  # after the last
    flip: bool = False
    pad: int = 0
    # the network
    channels: tuple = (32, 64, 128, 128)
    scale: tuple = (1.0,)  # factors on the paper's initial weights
    cost: str = "cross-entropy"
    connections: str = "symmetric"
    seed: int = 0  # of initial weights, order, augmentation and signs
    # the gradient
    algorithm: str = "eqprop"
    nudging: str = "symmetric"
    beta: float = 1.0
    feedback_update: str = "own"
    steps_free: int = 8  # T
    steps_nudged: int = 3  # K
    schedule: str = "synchronous"
    tolerance: float = 0.0
    check_every: int | None = None
    chunk: int = loop.CHUNK
    # the optimizer
    optimizer: str = "sgd"
    lr: tuple = (0.1,)
    weight_decay: float = 0.0
    batch_size: int = 32
    epochs: int = 1
    anneal_epochs: int | None = None  # default: all of them
    # where the settings come from, and where the numbers are computed
    preset: str = "cpu"
    device: str = "numpy"
    tf32: bool = False

    def __post_init__(self):
        for field, value in vars(self).items():
            if isinstance(value, list):  # as they come from JSON and from the command line
                object.__setattr__(self, field, tuple(value))
        if self.anneal_epochs is None:
            object.__setattr__(self, "anneal_epochs", self.epochs)


# --- which value a setting has ----------------------------------------------------------------------------------------


CPU = dict(channels=(32, 64, 128, 128), scale=(6.0, 2.0, 2.0, 2.0, 2.0), schedule="checkerboard", tolerance=1e-3, beta=1.0,
           steps_free=8, steps_nudged=3, optimizer="sgd", lr=(0.2, 0.03, 0.02, 0.015, 0.01), weight_decay=3e-4,
           batch_size=32)  # what learned most per second on held-out images: docs/results.md
PAPER = dict(channels=(128, 256, 512, 512), scale=(1.0,), schedule="synchronous", tolerance=0.0, beta=1.0, steps_free=250,
             steps_nudged=25, optimizer="sgd", lr=(0.25, 0.15, 0.1, 0.08, 0.05), weight_decay=3e-4, batch_size=128,
             check_every=10)  # the log says at which step the residual passed 1e-6
PRESETS = {  # (preset, data set) -> its settings
    ("cpu", "synthetic"): dict(CPU, epochs=3, train_images=4000, test_images=1000, final_test_images=1000, flip=False, pad=0),
    ("cpu", "cifar10"): dict(CPU, epochs=5, train_images=20000, test_images=2000, final_test_images=10000, flip=True, pad=0),
    ("paper", "cifar10"): dict(PAPER, epochs=120, anneal_epochs=100, train_images=50000, test_images=10000,
                               final_test_images=10000, flip=True, pad=4),
}
CHOICES = [  # (preset or "any", setting, its value, what this choice brings with it)
    ("paper", "cost", "squared-error", dict(beta=0.5, steps_nudged=30)),  # the paper's other two numbers
    ("paper", "connections", "asymmetric", dict(feedback_update="kolen-pollack", steps_nudged=30)),
    ("cpu", "connections", "asymmetric", dict(feedback_update="kolen-pollack", weight_decay=3e-3)),  # docs/results.md says why
    ("any", "algorithm", "bptt", dict(schedule="synchronous", tolerance=0.0)),  # it unrolls a fixed number of steps
]


def layers(preset, dataset, device, ranks, given):
    """Where settings come from, the weakest first: each dictionary replaces what those before it say."""
    defaults, row = {field.name: field.default for field in fields(Config)}, PRESETS[preset, dataset.name]
    chosen = {**defaults, **row, **given}
    held_out, batch = chosen["validation_images"], chosen["batch_size"]
    return [
        defaults,
        row,
        *(change for name, setting, value, change in CHOICES if name in (preset, "any") and chosen[setting] == value),
        dict(test_images=held_out, final_test_images=held_out) if held_out else {},
        dict(chunk=-(-batch // ranks), tf32=backend.tf32()) if device == "cupy" else {},  # a GPU's share of a batch: one chunk
        given,
        dict(final_test_images=given["test_images"]) if "test_images" in given else {},
        dict(identity(dataset), preset=preset, device=device),
    ]


def resolve(dataset, preset=None, device="numpy", ranks=1, **given):
    """The `Config` of an experiment on a data set: a row of PRESETS and what is `given`, in the order of `layers`.

    preset: default "paper" with CUDA and CIFAR-10, else "cpu". Raises EPError for settings that do not fit together.
    """
    preset = preset or ("paper" if device == "cupy" and dataset.name == "cifar10" else "cpu")
    if (preset, dataset.name) not in PRESETS:
        raise EPError(f"--preset {preset} is for CIFAR-10 and refuses the embedded images: pass --data, or use --preset cpu")
    merged = {}
    for layer in layers(preset, dataset, device, ranks, given):
        merged |= layer
    config = Config(**merged)
    of_preset, own = (len(channels) + 1 for channels in (PRESETS[preset, dataset.name]["channels"], config.channels))
    if own != of_preset and not {"scale", "lr"} <= given.keys():
        raise EPError(f"--preset {preset} has scales and learning rates for {of_preset - 1} convolutions and the classes: give "
                      f"--scale and --lr too, one number or one for each of {own} layers")
    if "feedback_update" in given and config.connections == "symmetric":
        raise EPError("--feedback-update is for feedback weights of their own: add --connections asymmetric")
    for key, labels in (("train_images", dataset.train_labels), ("test_images", dataset.test_labels)):
        if getattr(config, key) > len(labels):
            raise EPError(f"{key.replace('_', ' ')}: {getattr(config, key)} asked for, but {dataset.source} has {len(labels)}")
    return config


def identity(dataset):
    """What a configuration keeps of its data set, so that resuming can find, and recognise, the same images."""
    return dict(dataset=dataset.name, source=dataset.source, data=dataset.folder,
                checksum=zlib.crc32(dataset.train_images) ^ zlib.crc32(dataset.train_labels))


# --- what the settings mean -------------------------------------------------------------------------------------------


def build(config, xp=np, in_chunks=loop.in_chunks, map=map):
    """(network, optimizer, gradient) of a configuration, on the device of the module xp; see `gradient_function`."""
    network = kernels.fused(build_network(config).to(xp))
    steps = loop.steps_per_epoch(config.train_images, config.batch_size)
    optimizer = OPTIMIZERS[config.optimizer](network, config.lr, config.weight_decay, config.anneal_epochs, steps)
    return network, optimizer, gradient_function(config, in_chunks, map)


def build_network(config):
    network = convnet(config.channels, cost=COSTS[config.cost], scale=config.scale, seed=config.seed)
    return CONNECTIONS[config.connections](network, seed=config.seed)


def gradient_function(config, in_chunks=loop.in_chunks, map=map):
    """gradient(network, x, y, rng) -> Estimate, for `train_epoch`. in_chunks: `loop.in_chunks`, or that of several ranks."""
    transposed, combined = FEEDBACK_UPDATES[config.feedback_update]

    def gradient(network, x, y, rng):
        relax = partial(fast.prepared(network, map=map), check_every=config.check_every)
        if config.algorithm == "bptt":
            one_chunk = partial(bptt_gradient, relax=relax, **phases(config))
        else:  # the nudging is drawn once for the batch: its sign may be random
            one_chunk = partial(eqprop_gradient, nudging=nudging(config, rng), transposed=transposed, relax=relax,
                                **phases(config))
        estimate = in_chunks(one_chunk, network, x, y, map, config.chunk)
        estimate.gradient = combined(estimate.gradient)
        return estimate

    return gradient


def phases(config):
    return dict(steps_free=config.steps_free, steps_nudged=config.steps_nudged, schedule=config.schedule,
                tolerance=config.tolerance)


def free_phase(config, network, map=map):
    """relax(network, x) -> Relaxation, for `evaluate`: the free phase that training has."""
    return partial(fast.prepared(network, map=map), steps=config.steps_free, schedule=config.schedule,
                   tolerance=config.tolerance)


def nudging(config, rng=None):
    """The `Nudging`; rng draws what is random in it."""
    return NUDGINGS[config.nudging](config.beta, rng or np.random.default_rng(0))


# --- what they cost ---------------------------------------------------------------------------------------------------


def second_phases(config, converged=0.0):
    """How many phases of K steps follow the free one, on average; a phase at beta = 0 that has settled is the free one itself.

    converged: the share of images whose free phase reached its tolerance.
    """
    if config.algorithm == "bptt":
        return 1
    return sum(1 if beta else 1 - converged for beta in nudging(config).points)


def expected_time(config, network, x, map, threads, ranks=1):
    """A sentence about the minutes that training will take, by timing a few relaxation steps of the images x."""
    T, K = config.steps_free, config.steps_nudged
    per_epoch = config.train_images * (T + K * second_phases(config)) + config.test_images * T
    steps = config.epochs * per_epoch + config.final_test_images * T
    relax = partial(fast.prepared(network), schedule=config.schedule)
    cut = len(loop.chunks(config.batch_size, config.chunk))  # what ranks can share out
    seconds = steps * loop.seconds_per_step(network, x, relax, map, threads) * -(-cut // ranks) / cut
    each = f" on each of {ranks} ranks" if ranks > 1 else ""
    idle = f"; {ranks - cut} of them idle, since a batch has {cut} chunk(s) of {config.chunk} images" if ranks > cut else ""
    return f"expected time: about {seconds / 60:.1f} minutes for {config.epochs} epochs with {threads} thread(s){each}{idle}"
