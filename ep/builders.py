"""Networks to start from, and their files: `mlp`, `convnet`, `resnet`, and `load` for what `Network.save` wrote."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import ops
from .activations import ACTIVATIONS, HARD_SIGMOID, RELU6, Activation
from .backend import Array, array_module
from .checks import arrayed, by_layer, floats, named, real, whole, wholes
from .cost import COSTS, SoftmaxCrossEntropy
from .errors import EPError
from .network import KINDS, Network
from .npz import read_npz
from .synapse import Conv, Dense, Filtered, Identity
from .vectorfield import asymmetric

LARGEST = 2**50  # numbers in an array
LITTLE = 5e-4  # of the largest variance, added to all before dividing by their roots
CONNECTIONS = {"symmetric": lambda network, **options: network, "asymmetric": asymmetric}


def mlp(sizes: Sequence[int], activation: Activation | str = HARD_SIGMOID, cost: type | str = SoftmaxCrossEntropy,
        scale: float | Sequence[float] = 1.0, feedback: float = 1.0, seed: int = 0, dtype: type | str = "float32") -> Network:
    """Fully connected network. sizes = [inputs, hidden, ..., classes]; see `convnet` for the other arguments and for errors.

    With SquaredError the last size is the last layer of the system, with SoftmaxCrossEntropy the readout outside it.
    """
    sizes, activation, cost = wholes(sizes, "sizes", 1), named(activation, ACTIVATIONS, "activation"), cost_class(cost)
    if len(sizes) < 2 + cost.readout:
        raise EPError(f"an MLP needs inputs, at least one hidden layer for cross-entropy, and classes: got sizes {sizes}")
    draw = _Draw(seed, _scales(scale, len(sizes) - 1, cost), dtype)
    *units, classes = sizes
    synapses = [_dense(draw, (pre,), post) for pre, post in zip(units, units[1:])]
    cost_instance = _close(draw, synapses, (units[-1],), classes, cost)
    return Network(synapses, activation, cost_instance, feedback=feedback)


def convnet(channels: Sequence[int] = (128, 256, 512, 512), input_shape: Sequence[int] = (32, 32, 3), classes: int = 10,
            kernel: int = 3, paddings: Sequence[int] | None = None, pool: ops.Pooling | str = ops.MAX_POOL,
            activation: Activation | str = HARD_SIGMOID, cost: type | str = SoftmaxCrossEntropy,
            scale: float | Sequence[float] = 1.0, feedback: float = 1.0, seed: int = 0, dtype: type | str = "float32",
            filters: Any = None) -> Network:
    """Convolutions of stride 1, each followed by pooling, then the classes. `convnet()` is the paper's network.

    channels: output channels of each convolution. paddings: one per convolution; default 1, and 0 for the last.
    cost:     SoftmaxCrossEntropy (readout outside the system) or SquaredError (one more dense layer inside it).
    scale:    factor on the paper's initial weights U(-1/sqrt(fan_in), 1/sqrt(fan_in)), not on biases: one number, which
              leaves the readout outside the system as it is; two, for the hidden layers and for the classes; or one per
              layer, the last for the classes.
    feedback: the feedback gain gamma of equation (10). 1 is the paper's network.
    seed:     of the initial parameters, drawn on the host. dtype: "float32" or "float64".
    filters:  (k, k, C, filters), an odd k: the first convolution sees the image through these and their negatives, which do not
              learn (`Filtered`). Those of `whitening`, for example.
    pool, activation and cost may be given by name. Raises EPError for sizes that are none, and if the layers shrink the image
    below 1x1.
    """
    channels, shape, kernel = wholes(channels, "channels", 1), wholes(input_shape, "input_shape", 1), whole(kernel, "kernel", 1)
    classes, cost = whole(classes, "classes", 1), cost_class(cost)
    pool, activation = named(pool, ops.POOLINGS, "pooling"), named(activation, ACTIVATIONS, "activation")
    paddings = [1] * (len(channels) - 1) + [0] if paddings is None else wholes(paddings, "paddings")
    if not channels or len(paddings) != len(channels) or len(shape) != 3:
        raise EPError(f"expected at least one number of channels, one padding per layer, and an input shape (H, W, C): got "
                      f"channels {channels}, paddings {paddings}, input shape {shape}")
    draw = _Draw(seed, _scales(scale, len(channels) + 1, cost), dtype)
    synapses: list[Any] = []
    for C, padding in zip(channels, paddings):
        seen_through = None if synapses else filters
        synapses.append(_conv(draw, shape, C, kernel, padding, pool=pool, filters=seen_through))
        shape = synapses[-1].post_shape
    cost_instance = _close(draw, synapses, shape, classes, cost)
    return Network(synapses, activation, cost_instance, feedback=feedback)


def resnet(blocks: int = 6, channels: Sequence[int] = (32, 64, 128), input_shape: Sequence[int] = (32, 32, 3), classes: int = 10,
           pool: ops.Pooling | str = ops.MAX_POOL, activation: Activation | str = RELU6, cost: type | str = SoftmaxCrossEntropy,
           scale: float | Sequence[float] = 6**0.5, feedback: float = 0.001, seed: int = 0,
           dtype: type | str = "float32", filters: Any = None) -> Network:
    """A residual network: a convolution (the stem), blocks of two, then the classes: 1 + 2 blocks layers of 3x3 convolutions.

        s_b = sigma( W_1 * s_a + ... )         s_c = sigma( W_2 * s_b + skip(s_a) + ... )        ...: what comes down

    The skip is `Identity` where a block keeps the size of its images. Where it halves them, W_1 has the stride 2 and the skip
    is a convolution of 1x1 pixels with the stride 2.

    blocks:   how many in all; as many as there are numbers of channels, or more.
    channels: of the stages. Blocks are shared out evenly, the last stages first; every stage but the first halves the image.
    pool:     of the stem; NO_POOL keeps the image as large as it is, which costs four times as much in every layer.
    scale:    as for `convnet`; 6**0.5 keeps the size of the drives from layer to layer. Convolutions that end beside an
              identity are divided by the square root of how many of these there are, so that the sum along the skips does not
              grow with depth.
    See `convnet` for the other arguments, and for errors.
    """
    blocks, channels, shape = whole(blocks, "blocks", 1), wholes(channels, "channels", 1), wholes(input_shape, "input_shape", 1)
    classes, cost = whole(classes, "classes", 1), cost_class(cost)
    pool, activation = named(pool, ops.POOLINGS, "pooling"), named(activation, ACTIVATIONS, "activation")
    if not 1 <= len(channels) <= blocks or len(shape) != 3:
        raise EPError("expected at least one number of channels, at least one block for each, and an input shape (H, W, C): got "
                      f"{blocks} blocks, channels {channels}, input shape {shape}")
    stages, halvings = len(channels), len(channels) - 1
    draw = _Draw(seed, _scales(scale, 2 + 2 * blocks + halvings, cost), dtype)
    synapses, wiring = [_conv(draw, shape, channels[0], pool=pool, filters=filters)], [(0, 1)]
    for stage, C in enumerate(channels):
        for block in range((blocks + stage) // stages):
            a, last = wiring[-1][1], synapses[-1].post_shape
            stride = 2 if stage and not block else 1
            first = _conv(draw, last, C, stride=stride)
            second = _conv(draw, first.post_shape, C)
            if stride == 1:
                second.W *= (blocks - halvings) ** -0.5  # identities add up: each gets its share of the variance
            skip = Identity(last) if stride == 1 else _conv(draw, last, C, kernel=1, padding=0, stride=2)
            synapses += [first, second, skip]
            wiring += [(a, a + 1), (a + 1, a + 2), (a, a + 2)]
    last = wiring[-1][1]
    cost_instance = _close(draw, synapses, synapses[-1].post_shape, classes, cost)
    if len(synapses) > len(wiring):
        wiring.append((last, last + 1))
    return Network(synapses, activation, cost_instance, wiring, feedback)


def cost_class(cost):
    """A class of costs, or one of this package's by its name. Raises EPError for anything else."""
    cost = named(cost, COSTS, "cost")
    methods = ("value", "force", "output", "parameters", "gradient")
    if not (isinstance(cost, type) and hasattr(cost, "readout") and all(hasattr(cost, name) for name in methods)):
        raise EPError(f"expected a class of costs, with `readout` and the methods {', '.join(methods)} (see ep/cost.py), or a "
                      f"name ({', '.join(COSTS)}): got {cost!r}")
    return cost


def whitening(x: Array, filters: int = 12, size: int = 3) -> Array:
    """Fixed filters (size, size, C, filters) for `convnet`: the first principal components of the patches of the images x.

    Each is divided by the standard deviation of the patches along it (plus a little, for the weakest), so that all answer with
    about the same strength: neighbouring pixels and colours are nearly alike, and what they have in common no longer drowns
    the rest. x (N, H, W, C). Rounded to five digits, so that no other machine rounds them otherwise.
    """
    x, filters = arrayed(x, "the images").astype("float64"), whole(filters, "filters", 1)
    if x.ndim != 4:
        raise EPError(f"filters whiten images (N, H, W, C): got shape {x.shape}")
    if filters > (most := size * size * x.shape[3]):
        raise EPError(f"patches of {size}x{size} pixels and {x.shape[3]} colours have {most} components: got {filters} filters")
    if min(x.shape[1:3]) < size or not x.std() > 0:
        raise EPError(f"filters of {size}x{size} pixels whiten images of at least this size that are not all of one colour: got "
                      f"{x.shape[1]}x{x.shape[2]} pixels, standard deviation {x.std():.3g}; use no filters (whitening 0)")
    patches = ops.im2col(x, size).reshape(-1, size * size * x.shape[3])
    variances, components = np.linalg.eigh(np.cov(patches.T))  # the smallest first; one component a column
    F = (components / np.sqrt(variances + LITTLE * variances[-1]))[:, ::-1][:, :filters]
    F = F * np.sign(F[abs(F).argmax(0), np.arange(filters)])  # of the two signs, the one that makes the largest number positive
    return np.round(F, 5).reshape(size, size, x.shape[3], filters).astype("float32")


def calibrate(network: Network, x: Array, deviation: float, mean: float = 0.0, depth: int | None = None) -> Network:
    """Scale the initial weights so that the drives of every unit vary over the images x by this standard deviation; in place.

        W <- W deviation / std(u),   b <- mean - mean(u)          u the drives of the feed-forward pass over x, per unit (channel)

    Layer by layer from the input, with the states of the layer below as they are by then, and over the places of a channel, too.
    No channel is then at a bound everywhere, at any depth and for any sigma that has `mean` within its bounds, and no factor has
    to be guessed. The readout stays as it is.
    An `Identity` has no weights: u is then what is added to it. The layers that get one lie on a path of skips along which these
    sums add up; so each of m such layers gets deviation/sqrt(m), and at any depth the variance grows along this path to about
    twice that of its beginning at most.
    depth: only the layers that are so many synapses from the input at most; default all of them.
    x (N, *input shape), N a few hundred. Returns the network. Feedback weights of an asymmetric network are not touched: make
    it asymmetric afterwards.
    """
    x, deviation, mean = network.inputs(x), real(deviation, "deviation", 0), real(mean, "mean")
    if not network.bilinear or any({"W", "b"} - synapse.parameters().keys() for synapse in network.synapses
                                   if type(synapse) is not Identity):
        raise EPError("only synapses with W and b, and identities, can be calibrated, and this network has others")
    layers, identities = [x, *network.init_state(x)], sum(type(synapse) is Identity for synapse in network.synapses)
    deepest = max(network.depths) if depth is None else depth
    for n in sorted((n for n in range(1, len(network.shapes)) if network.depths[n] <= deepest), key=lambda n: network.depths[n]):
        incoming = [(synapse, i) for synapse, (i, j) in zip(network.synapses, network.wiring) if j == n]
        weighted = [(synapse, i) for synapse, i in incoming if type(synapse) is not Identity]
        skipped = sum(layers[i] for synapse, i in incoming if type(synapse) is Identity)
        u, share = 0.0, deviation * (identities**-0.5 if len(weighted) < len(incoming) else 1.0)
        if weighted:
            u = sum(synapse.drive_post(layers[i])[0] for synapse, i in weighted)
            over = tuple(range(u.ndim - 1))  # images and places
            spread = u.std(over)
            flat = spread <= 1e-5 * abs(u).max(over)  # but for rounding: there is nothing to scale
            factor = array_module(u).where(flat, 1.0, share / (spread + flat))
            for synapse, _ in weighted:
                synapse.W *= factor
                synapse.b *= 0.0
            u = sum(synapse.drive_post(layers[i])[0] for synapse, i in weighted)
            weighted[0][0].b += (mean - u.mean(over)).astype(u.dtype)
            u = u + weighted[0][0].b
        layers[n] = network.activations[n - 1].sigma(u + skipped)
    return network


# --- files ------------------------------------------------------------------------------------------------------------


def load(path: str | Path, synapses: Sequence[type] = ()) -> Network:
    """The network that `Network.save` wrote. synapses: the classes of one's own that are in it; a file runs no code.

    Raises EPError for a missing, damaged or foreign file, and for a class that is needed.
    """
    arrays, own = read_npz(path), [synapses] if isinstance(synapses, type) else synapses
    known = {**{f"ep.{one.__name__}": one for one in KINDS}, **{one.__name__: one for one in own}}
    try:
        said = json.loads(str(arrays["network"]))
        parts = [rebuilt(part, arrays, known) for part in said["synapses"]]
        cost = COSTS[said["cost"]](**{name: arrays[f"readout.{name}"] for name in ("W", "b") if f"readout.{name}" in arrays})
        network = Network(parts, said["activation"], cost, said["wiring"], said["feedback"])
        network.set_parameters({key: arrays[key] for key in network.parameters()})  # those that a constructor drew, too
        network.about = said["about"]
    except EPError as error:
        raise EPError(f"{path}: {error}") from None
    except Exception:  # a description or an array of another kind
        raise EPError(f"{path} is not a network that was written by Network.save, or by another version of it") from None
    return network


def rebuilt(described, arrays, known):
    """The synapse that network.py `described`. Lists come back as tuples, for JSON knows no others. known: {name: class}"""
    name, small, large, parts = described
    if name not in known:
        raise EPError(f"it has synapses of the class {name!r}, and a file runs no code: pass the class itself, as in "
                      "load(path, synapses=[MySynapse])")
    return known[name](**{key: tuple(value) if isinstance(value, list) else value for key, value in small.items()},
                       **{key: arrays[where] for key, where in large.items()},
                       **{key: rebuilt(part, arrays, known) for key, part in parts.items()})


# --- initial parameters -----------------------------------------------------------------------------------------------


def _scales(scale, layers, cost):
    """[factor on the initial weights of each layer]: the last is a readout's unless the cost is inside the system."""
    scales = by_layer(scale, layers, "scale")
    if np.size(scale) == 1 and cost.readout:
        scales[-1] = 1.0
    return scales


class _Draw:
    """draw(shape, fan_in) -> W, b of the next layer, from one seeded host generator:

    W from U(-scale/sqrt(fan_in), scale/sqrt(fan_in)), b, one number per output channel, from U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
    """

    def __init__(self, seed, scales, dtype):
        self.rng, self.scales = np.random.default_rng(whole(seed, "seed")), iter(scales)
        try:
            self.dtype = np.dtype(dtype).name if dtype is not None else None  # of "float32", np.float32, float ...
        except TypeError:
            self.dtype = None
        if self.dtype not in ("float32", "float64"):
            raise EPError(f"expected dtype float32 or float64: got {dtype}")

    def __call__(self, shape, fan_in):
        if math.prod(shape) > LARGEST:
            raise EPError(f"no memory is large enough for weights of shape {shape}: use fewer channels or units")
        return [self.rng.uniform(-factor / fan_in**0.5, factor / fan_in**0.5, size).astype(self.dtype)
                for size, factor in ((shape, next(self.scales)), (shape[-1:], 1.0))]


def _dense(draw, pre_shape, units):
    fan_in = int(np.prod(pre_shape))
    return Dense(*draw((fan_in, units), fan_in), pre_shape)


def _conv(draw, pre_shape, C, kernel=3, padding=1, stride=1, pool=ops.NO_POOL, filters=None):
    front = None
    if filters is not None:
        F = floats(np.asarray(filters, dtype=draw.dtype), "filters", 4)
        front = Conv(F, np.zeros(F.shape[3], F.dtype), pre_shape, padding=len(F) // 2, pool=ops.NO_POOL)
        pre_shape = (*front.post_shape[:2], 2 * F.shape[3])
    W, b = draw((kernel, kernel, pre_shape[2], C), kernel * kernel * pre_shape[2])
    made = Conv(W, b, pre_shape, stride=stride, padding=padding, pool=pool)
    return made if front is None else Filtered(front, made)


def _close(draw, synapses, shape, classes, cost):
    """The last step to the classes: a readout outside the system, or one more dense synapse inside it."""
    if cost.readout:
        fan_in = int(np.prod(shape))
        return cost(*draw((fan_in, classes), fan_in))
    synapses.append(_dense(draw, shape, classes))
    return cost()
