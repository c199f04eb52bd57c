"""A network: synapses between layers, an activation, a cost. It knows Phi and its derivatives, but not how to relax.

    Phi(x, s) = sum_k Phi_k(s_i, s_j)        synapse k joins layer i to layer j; layer 0 is the input x     (per example)
    E(x, s)   = sum_n G(s_n) - Phi(x, s)     the energy whose stationary points are the fixed points         (2)

With asymmetric synapses (vectorfield.py) there is neither, and "dPhi/ds" below reads "the drives".
"""

import copy
import json

import numpy as np

from . import ops
from .activations import ACTIVATIONS, HARD_SIGMOID, TANH
from .backend import array_module, to_host
from .cost import COSTS, SoftmaxCrossEntropy, SquaredError
from .errors import EPError
from .npz import read_npz, write_npz
from .synapse import Conv, Dense
from .vectorfield import asymmetric


class Network:
    """Layers 0 (the input x), 1 ... L (the states s_1 ... s_L) joined by synapses.

    synapses:   list of synapses (see synapse.py)
    activation: sigma of every layer, an `Activation`
    cost:       acts on the last layer, a `SquaredError` or `SoftmaxCrossEntropy`
    wiring:     wiring[k] = (i, j), the layers that synapse k joins; default the chain 0-1-2-...-L
    recipe:     what `load` needs to build the same network again; the builders below fill it in

    Parameters and gradients are flat dictionaries {"1.W": array, "1.b": ..., "readout.W": ...}: the synapse's number
    (or "readout" for the cost's own), a dot, and the name in the synapse.
    """

    def __init__(self, synapses, activation, cost, wiring=None, recipe=None):
        self.synapses, self.activation, self.cost, self.recipe = list(synapses), activation, cost, recipe
        self.wiring = wiring or [(n, n + 1) for n in range(len(self.synapses))]
        self.shapes = self._layer_shapes()
        self.holomorphic = activation.holomorphic and all(synapse.holomorphic for synapse in self.synapses)
        if activation is TANH and any(getattr(s, "pool", None) is ops.MAX_POOL for s in self.synapses):
            raise EPError("max-pooling needs states >= 0, and tanh has negative ones: use another activation, or average "
                          "pooling")

    def _layer_shapes(self):
        """[shape of x, shape of s_1, ...]; raises EPError where two synapses disagree about a layer."""
        shapes = {}
        for k, (synapse, ends) in enumerate(zip(self.synapses, self.wiring), start=1):
            for layer, shape in zip(ends, (synapse.pre_shape, synapse.post_shape)):
                if shapes.setdefault(layer, shape) != shape:
                    raise EPError(f"synapse {k} expects layer {layer} to have shape {shape}, but it has {shapes[layer]}")
        if sorted(shapes) != list(range(len(shapes))):
            raise EPError(f"layers must be numbered 0 (the input), 1, 2, ... without a gap: the wiring has {sorted(shapes)}")
        return [shapes[n] for n in range(len(shapes))]

    # --- the scalar functions, per example ----------------------------------------------------------------------------

    def phi(self, x, states):
        """Phi(x, s) per example, (N,)."""
        layers = [x, *states]
        return sum(synapse.phi(layers[i], layers[j]) for synapse, (i, j) in zip(self.synapses, self.wiring))

    def energy(self, x, states):
        """E(x, s) = sum_n G(s_n) - Phi(x, s) per example, (N,)."""
        G = self.activation.G
        return sum(G(s).reshape(len(s), -1).sum(1) for s in states) - self.phi(x, states)

    # --- their derivatives --------------------------------------------------------------------------------------------

    def drives(self, x, states):
        """(u, switches): u[n-1] = dPhi/ds_n for every layer, and the switches of every synapse at these states."""
        inputs, switches = self.input_drives(x), [None] * len(self.synapses)
        everywhere = range(1, len(self.shapes))
        u = self.drives_of(everywhere, inputs, states, switches)
        return [u[n] for n in everywhere], switches

    def input_drives(self, x):
        """{k: drive_post(x)} for the synapses k that start at the input: constant while x is."""
        return {k: self.synapses[k].drive_post(x) for k, (i, _) in enumerate(self.wiring) if i == 0}

    def drives_of(self, group, inputs, states, switches, frozen=False):
        """{n: dPhi/ds_n} for the layers n in `group`; refreshes the switches of the synapses into them, unless frozen.

            u_n = sum_{k: i -> n} drive_post_k(s_i)  +  sum_{k: n -> j} drive_pre_k(s_j)
        """
        layers, u = [None, *states], {}
        for k, (i, j) in enumerate(self.wiring):
            if j in group:
                keep = switches[k] if frozen else None
                up, switches[k] = inputs[k] if i == 0 else self.synapses[k].drive_post(layers[i], keep)
                u[j] = u[j] + up if j in u else up
        for k, (i, j) in enumerate(self.wiring):
            if i in group:
                down = self.synapses[k].drive_pre(layers[j], switches[k])
                u[i] = u[i] + down if i in u else down
        return u

    def switches(self, inputs, states):
        """The switches of every synapse at these states (None for synapses that have none)."""
        layers = [None, *states]
        return [(inputs[k] if i == 0 else self.synapses[k].drive_post(layers[i]))[1] for k, (i, _) in enumerate(self.wiring)]

    def hebbian(self, x, states, switches):
        """dPhi/dtheta summed over the batch, a flat dictionary."""
        layers = [x, *states]
        return {f"{k + 1}.{name}": g for k, (i, j) in enumerate(self.wiring)
                for name, g in self.synapses[k].hebbian(layers[i], layers[j], switches[k]).items()}

    def anchored(self, x, states, switches):
        """This network, its synapses told the free state s* that nudged phases start from (only asymmetric ones listen)."""
        layers, network = [x, *states], copy.copy(self)
        network.synapses = [synapse.anchored(layers[i], layers[j], sw)
                            for synapse, (i, j), sw in zip(self.synapses, self.wiring, switches)]
        return network

    def readout_gradient(self, states, y):
        """dC/dtheta of the cost's own parameters, summed over the batch, a flat dictionary (empty for squared error)."""
        return {f"readout.{name}": g for name, g in self.cost.gradient(states[-1], y).items()}

    # --- the two ends -------------------------------------------------------------------------------------------------

    def init_state(self, x):
        """All states zero, with the dtype and on the device of x."""
        self.check_input(x)
        return [array_module(x).zeros((len(x), *shape), dtype=x.dtype) for shape in self.shapes[1:]]

    def check_input(self, x):
        """Raise EPError if x has the wrong shape or type."""
        if x.shape[1:] != self.shapes[0] or x.dtype.kind not in "fc":
            raise EPError(f"expected inputs of shape (N, {', '.join(map(str, self.shapes[0]))}) and a float type: got "
                          f"{tuple(x.shape)}, {x.dtype}")

    def targets(self, labels, dtype=None):
        """Integer labels (N,) -> one-hot (N, classes), on the network's device; (N, classes) stays what it is.

        Raises EPError for another shape, and for labels outside 0 ... classes - 1.
        """
        some = next(iter(self.parameters().values()))  # any of them knows the device
        readout = self.cost.parameters()
        classes = len(readout["b"]) if readout else self.shapes[-1][0]  # the readout's, or the units of the last layer
        xp, dtype = array_module(some), dtype or some.dtype
        if labels.ndim == 2 and labels.shape[1] == classes:
            return xp.asarray(labels, dtype=dtype)
        if labels.ndim != 1 or labels.dtype.kind not in "iu" or not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise EPError(f"expected integer labels (N,) from 0 to {classes - 1}, or targets (N, {classes}): got shape "
                          f"{tuple(labels.shape)}, {labels.dtype}, largest {labels.max() if labels.size else None}")
        return (xp.asarray(labels)[:, None] == xp.arange(classes)).astype(dtype)

    def predict(self, states):
        """The likeliest class per example, (N,) integers, from relaxed states."""
        return self.cost.output(states[-1]).argmax(1)

    # --- parameters ---------------------------------------------------------------------------------------------------

    def _owners(self):
        return {**{str(k): synapse for k, synapse in enumerate(self.synapses, start=1)}, "readout": self.cost}

    def parameters(self):
        """{"1.W": array, ...}: the arrays themselves, so an optimizer may change them in place."""
        return {f"{layer}.{name}": w for layer, owner in self._owners().items() for name, w in owner.parameters().items()}

    def set_parameters(self, parameters):
        """Replace every parameter by the one of the same name. Raises EPError, before any change, if they do not fit."""
        own = self.parameters()
        if own.keys() != parameters.keys():
            raise EPError(f"these parameters belong to another architecture: expected {sorted(own)}, got "
                          f"{sorted(parameters)}")
        for key, w in parameters.items():
            if w.shape != own[key].shape:
                raise EPError(f"parameter {key} belongs to another architecture: expected shape {own[key].shape}, got "
                              f"{w.shape}")
        for key, w in parameters.items():
            layer, name = key.split(".")
            setattr(self._owners()[layer], name, w)

    def to(self, xp):
        """Move the parameters to the module xp (numpy or cupy), in place; returns the network."""
        self.set_parameters({key: xp.asarray(to_host(w)) for key, w in self.parameters().items()})
        return self

    def save(self, path):
        """Write recipe and parameters to one .npz file, without pickle. Read it back with `load`."""
        if self.recipe is None:
            raise EPError("only networks made by mlp() or convnet() can be saved whole: save network.parameters() instead")
        arrays = {key: to_host(w) for key, w in self.parameters().items()}
        write_npz(path, {**arrays, "recipe": np.array(json.dumps(self.recipe))})


def load(path):
    """The network that `Network.save` wrote. Raises EPError for a missing, damaged or foreign file."""
    arrays = read_npz(path)
    try:
        return from_recipe(json.loads(str(arrays.pop("recipe"))), arrays)
    except (KeyError, ValueError, TypeError):
        raise EPError(f"{path} is not a network that was written by Network.save, or by another version of it") from None


def from_recipe(recipe, parameters=None):
    """Build a network from its recipe, a JSON-able dictionary; `parameters` replace the initial ones."""
    arguments = dict(recipe)
    connect = CONNECTIONS[arguments.pop("connections", "symmetric")]
    build = {"mlp": mlp, "convnet": convnet}[arguments.pop("builder")]
    for argument, table in (("activation", ACTIVATIONS), ("cost", COSTS), ("pool", ops.POOLINGS)):
        if argument in arguments:
            arguments[argument] = table[arguments[argument]]
    network = connect(build(**arguments))
    if parameters is not None:
        network.set_parameters(parameters)
    return network


# --- builders ---------------------------------------------------------------------------------------------------------

CONNECTIONS = {"symmetric": lambda network, **options: network, "asymmetric": asymmetric}


def mlp(sizes, activation=HARD_SIGMOID, cost=SoftmaxCrossEntropy, scale=1.0, seed=0, dtype="float32"):
    """Fully connected network. sizes = [inputs, hidden, ..., classes]; see `convnet` for the other arguments.

    With SquaredError the last size is the last layer of the system, with SoftmaxCrossEntropy the readout outside it.
    """
    if len(sizes) < 2 + (cost is SoftmaxCrossEntropy) or min(sizes) < 1:
        raise EPError("an MLP needs inputs, at least one hidden layer for cross-entropy, and classes: got sizes "
                      f"{list(sizes)}")
    draw = _Draw(seed, _scales(scale, len(sizes) - 1, cost), dtype)
    *units, classes = sizes
    synapses = [_dense(draw, (pre,), post) for pre, post in zip(units, units[1:])]
    cost_instance = _close(draw, synapses, (units[-1],), classes, cost)
    recipe = dict(builder="mlp", sizes=[int(n) for n in sizes], activation=activation.name, cost=cost.name, dtype=str(dtype))
    return Network(synapses, activation, cost_instance, recipe=recipe)


def convnet(channels=(128, 256, 512, 512), input_shape=(32, 32, 3), classes=10, kernel=3, paddings=None,
            pool=ops.MAX_POOL, activation=HARD_SIGMOID, cost=SoftmaxCrossEntropy, scale=1.0, seed=0, dtype="float32"):
    """Convolutions of stride 1, each followed by pooling, then the classes. `convnet()` is the paper's network.

    channels: output channels of each convolution. paddings: one per convolution; default 1, and 0 for the last.
    cost:     SoftmaxCrossEntropy (readout outside the system) or SquaredError (one more dense layer inside it).
    scale:    factor on the paper's initial weights U(-1/sqrt(fan_in), 1/sqrt(fan_in)), not on biases: one number, which
              leaves the readout outside the system as it is, or one per layer, the last for the classes.
    seed:     of the initial parameters, drawn on the host. dtype: "float32" or "float64".
    Raises EPError if the layers shrink the image below 1x1.
    """
    paddings = [1] * (len(channels) - 1) + [0] if paddings is None else list(paddings)
    if not channels or min(channels) < 1 or len(paddings) != len(channels):
        raise EPError(f"expected a positive number of channels and one padding per layer: got channels {list(channels)}, "
                      f"paddings {paddings}")
    draw, synapses, shape = _Draw(seed, _scales(scale, len(channels) + 1, cost), dtype), [], tuple(input_shape)
    for C, padding in zip(channels, paddings):
        W, b = draw((kernel, kernel, shape[2], C), kernel * kernel * shape[2])
        synapses.append(Conv(W, b, shape, padding=padding, pool=pool))
        shape = synapses[-1].post_shape
    cost_instance = _close(draw, synapses, shape, classes, cost)
    recipe = dict(builder="convnet", channels=[int(C) for C in channels], input_shape=list(input_shape), classes=classes,
                  kernel=kernel, paddings=paddings, pool=pool.name, activation=activation.name, cost=cost.name, dtype=str(dtype))
    return Network(synapses, activation, cost_instance, recipe=recipe)


def _scales(scale, layers, cost):
    """[factor on the initial weights of each layer]: the last is a readout's unless the cost is inside the system."""
    scales = [float(factor) for factor in np.atleast_1d(scale)]
    if len(scales) == 1:
        scales = scales * (layers - 1) + [1.0 if cost is SoftmaxCrossEntropy else scales[0]]
    if len(scales) != layers or not min(scales) > 0:
        raise EPError(f"expected one positive scale, or one for each of the {layers} layers: got {scale}")
    return scales


class _Draw:
    """draw(shape, fan_in) -> W, b of the next layer, from one seeded host generator:

    W from U(-scale/sqrt(fan_in), scale/sqrt(fan_in)), b, one number per output channel, from U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
    """

    def __init__(self, seed, scales, dtype):
        self.rng, self.scales, self.dtype = np.random.default_rng(seed), iter(scales), dtype
        if str(dtype) not in ("float32", "float64"):
            raise EPError(f"expected dtype float32 or float64: got {dtype}")

    def __call__(self, shape, fan_in):
        return [self.rng.uniform(-factor / fan_in**0.5, factor / fan_in**0.5, size).astype(self.dtype)
                for size, factor in ((shape, next(self.scales)), (shape[-1:], 1.0))]


def _dense(draw, pre_shape, units):
    fan_in = int(np.prod(pre_shape))
    return Dense(*draw((fan_in, units), fan_in), pre_shape)


def _close(draw, synapses, shape, classes, cost):
    """The last step to the classes: a readout outside the system, or one more dense synapse inside it."""
    if cost is SoftmaxCrossEntropy:
        fan_in = int(np.prod(shape))
        return SoftmaxCrossEntropy(*draw((fan_in, classes), fan_in))
    synapses.append(_dense(draw, shape, classes))
    return SquaredError()
