"""One table of small networks on which every fact is tested, and the oracles that facts are compared with.

A `Case` says how a network is wired, pooled, activated, judged and fed back. All are float64 with three images and three
classes, come to rest within `case.steps`, and have no parameter whose gradient is 0. A new synapse is a row of SYNAPSES, a new
wiring one of WIRINGS: all that the tests know of these holds for it, or the tests say what does not.
"""

import copy
import functools
from dataclasses import dataclass

import numpy as np
import pytest
from helpers import flat, normal

from ep.activations import ACTIVATIONS
from ep.backend import array_module, to_host
from ep.builders import convnet, mlp, resnet
from ep.cost import COSTS
from ep.dynamics import Phases, relax
from ep.network import Network
from ep.synapse import Conv, Dense, Identity
from ep.vectorfield import Asymmetric, asymmetric

CE, SE = "cross-entropy", "squared-error"
GAINS = (1.0, 0.3, 0.01)
ANGLE = 90.0  # between W and B: feedback that is unrelated to the forward weights, where nothing symmetric helps

# --- synapses -----------------------------------------------------------------------------------------------------------


class Scaled(Identity):
    """A synapse of somebody's own, Phi = < g pre, post >: its parameter is not called W, and it has no bias."""

    def __init__(self, g):
        super().__init__(g.shape)
        self.g = g

    def parameters(self):
        return {"g": self.g}

    def phi(self, pre, post):
        return (self.g * pre * post).reshape(len(pre), -1).sum(1)

    def drive_post(self, pre, switches=None):
        return self.g * pre, None

    def linear_post(self, pre, switches=None):
        return self.g * pre

    drive_pre = drive_post_adjoint = drive_pre_adjoint = linear_post

    def hebbian(self, pre, post, switches=None):
        return {"g": (pre * post).sum(0)}

    hebbian_down = hebbian


def _dense(xp, pre_shape):
    return Dense(normal(xp, (int(np.prod(pre_shape)), 4), 0), normal(xp, (4,), 1), pre_shape)


def _conv(xp, pre_shape, k=3, **options):
    return Conv(normal(xp, (k, k, pre_shape[2], 4), 0), normal(xp, (4,), 1), pre_shape, **options)


WITH_W = {  # name: make(xp), with random weights and biases
    "dense": lambda xp: _dense(xp, (6,)),
    "dense, of an image": lambda xp: _dense(xp, (2, 3, 2)),
    "conv, max": lambda xp: _conv(xp, (6, 5, 3)),
    "conv, average": lambda xp: _conv(xp, (6, 5, 3), pool="average"),
    "conv, no pooling": lambda xp: _conv(xp, (6, 5, 3), pool="none"),
    "conv, stride": lambda xp: _conv(xp, (8, 7, 3), stride=2, padding=1, pool="average"),
    "conv, valid": lambda xp: _conv(xp, (6, 6, 3), padding=0),
    "conv, stride, valid": lambda xp: _conv(xp, (9, 8, 3), k=2, stride=2, padding=0),
}
SYMMETRIC = {**WITH_W, "identity": lambda xp: Identity((4, 3, 2)), "one's own": lambda xp: Scaled(normal(xp, (4, 3), 0))}
ASYMMETRIC = {f"asymmetric {name}": lambda xp, make=make: Asymmetric(make(xp), normal(xp, make(xp).W.shape, 6))
              for name, make in WITH_W.items()}
SYNAPSES = {**SYMMETRIC, **ASYMMETRIC}


def synapse_case(xp, name):
    """(synapse, pre, post, switches of another array than pre) with random numbers everywhere."""
    synapse = SYNAPSES[name](xp)
    pre, post = normal(xp, (2, *synapse.pre_shape), 2), normal(xp, (2, *synapse.post_shape), 3)
    return synapse, pre, post, synapse.drive_post(normal(xp, pre.shape, 5))[1]


# --- networks -------------------------------------------------------------------------------------------------------------


def _joined(case, units, wiring, size=0.4):
    """Dense synapses of that wiring between layers of so many units."""
    synapses = [Dense(size * normal(np, (units[i], units[j]), [k, 1]), normal(np, (units[j],), [k, 2]), (units[i],))
                for k, (i, j) in enumerate(wiring)]
    return Network(synapses, case.activation, COSTS[SE](), wiring)


def _convolutions(case):
    return convnet([3, 4], (8, 8, 2), 3, paddings=[1, 1], pool=case.wiring, **case.options)


def _strides(case):
    """Two convolutions with stride 2, none pooled, and a dense synapse of an image."""
    def conv(pre, C, seed, **options):
        return Conv(0.2 * normal(np, (3, 3, pre[2], C), seed), normal(np, (C,), seed + 1), pre, 2, pool="none", **options)
    first = conv((8, 8, 2), 3, 1)
    second = conv(first.post_shape, 4, 3, padding=0)
    last = Dense(0.2 * normal(np, (4, 3), 5), normal(np, (3,), 6), second.post_shape)
    return Network([first, second, last], case.activation, COSTS[SE]())


def _strong_skip(case):
    """A triangle of which the skip 1 -> 3 decides."""
    net = _joined(case, (6, 5, 4, 3), [(0, 1), (1, 2), (2, 3), (1, 3)])
    net.synapses[3].W *= 10.0
    return net


def _ones_own(case):
    """x -> 1 -> 2 -> 3 with somebody's own synapse 1 -> 2 beside the dense one."""
    net = _joined(case, (6, 4, 4, 3), [(0, 1), (1, 2), (2, 3)])
    return Network([*net.synapses, Scaled(0.3 * normal(np, (4,), 3))], case.activation, net.cost, [*net.wiring, (1, 2)])


WIRINGS = {  # name: make(case)
    "dense": lambda case: mlp([6, 5, 4, 4, 3], **case.options),
    "average": _convolutions,
    "max": _convolutions,
    "strides": _strides,
    "triangle": lambda case: _joined(case, (6, 5, 4, 3), [(0, 1), (1, 2), (2, 3), (1, 3)]),
    "strong skip": _strong_skip,
    "out of order": lambda case: _joined(case, (6, 5, 4, 3), [(2, 3), (0, 1), (1, 2), (1, 3)], 0.3),
    "dead end": lambda case: _joined(case, (6, 5, 4, 4, 3), [(0, 1), (1, 2), (2, 3), (1, 4)]),
    "branches": lambda case: _joined(case, (6, 5, 4, 4, 3), [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)]),
    "one's own": _ones_own,
    "filtered": lambda case: convnet([3, 4], (8, 8, 2), 3, paddings=[1, 1], pool="average", filters=normal(np, (3, 3, 2, 2), 8),
                                     **case.options),
    "residual": lambda case: resnet(3, (2, 3), (8, 8, 2), 3, pool="max", **case.options | dict(scale=(1.0, 2.0))),
}
CHAINS = ("dense", "average", "max", "strides")


@dataclass(frozen=True)
class Case:
    wiring: str
    activation: str = "sigmoid"
    cost: str = CE
    gain: float = 1.0
    angle: float | None = None  # between W and B; None: there is no B
    scale: float = 0.7
    seed: int = 0
    dtype: str = "float64"

    def __str__(self):
        return f"{self.wiring} {self.activation} {self.cost} {self.gain:g}" + " asymmetric" * (self.angle is not None)

    @property
    def options(self):
        return dict(activation=self.activation, cost=self.cost, scale=self.scale, seed=self.seed, dtype=self.dtype)

    @property
    def steps(self):
        """After so many steps this network is at a fixed point, to round-off."""
        return 110 if self.wiring == "residual" else {1.0: 120, 0.3: 60}.get(self.gain, 24)

    @property
    def at_rest(self):
        """`Phases` that both end at a fixed point, the nudged ones as deviations."""
        return Phases(self.steps, self.steps * 3 // 4, deviations=True)

    def network(self, xp=np):
        net = WIRINGS[self.wiring](self)
        net.feedback = self.gain
        if self.angle is not None and self.wiring == "one's own":  # only what has a W gets a B
            *chain, own = net.synapses
            chain = asymmetric(Network(chain, net.activation, net.cost, net.wiring[:-1], feedback=self.gain), self.angle)
            net = Network([*chain.synapses, own], net.activation, net.cost, net.wiring, feedback=self.gain)
        elif self.angle is not None:
            net = asymmetric(net, self.angle, seed=self.seed)
        return net.to(xp)

    def example(self, xp=np, n=3):
        """(network, x, y)"""
        net = self.network(xp)
        return net, *data(xp, net, n, self.dtype)


KINDS = [(wiring, activation) for wiring in ("dense", "average", "max") for activation in ACTIVATIONS
         if (wiring, activation) != ("max", "tanh")]  # which has negative states
CASES = [  # every pooling with every activation, with both costs, at every gain, symmetric and not; then every wiring
    *(Case(*kind, cost, GAINS[(k + c) % 3]) for k, kind in enumerate(KINDS) for c, cost in enumerate((CE, SE))),
    *(Case(*kind, (CE, SE)[k % 2], GAINS[(k + 2) % 3], ANGLE) for k, kind in enumerate(KINDS)),
    *(Case(wiring, activation, SE, gain, angle) for wiring, activation, gain, angle in [
        ("strides", "tanh", 1.0, None), ("strides", "tanh", 0.3, ANGLE),
        ("triangle", "sigmoid", 1.0, None), ("triangle", "sigmoid", 0.3, ANGLE), ("triangle", "sigmoid", 0.3, None),
        ("out of order", "sigmoid", 1.0, None), ("out of order", "sigmoid", 1.0, ANGLE),
        ("dead end", "sigmoid", 0.3, None), ("branches", "tanh", 0.3, None), ("one's own", "sigmoid", 0.3, None),
        ("one's own", "sigmoid", 1.0, ANGLE), ("filtered", "sigmoid", 1.0, None), ("filtered", "sigmoid", 0.3, ANGLE),
        ("residual", "sigmoid", 0.3, None), ("residual", "sigmoid", 0.3, ANGLE)]),
    Case("residual", "relu6", CE, 0.3)]
BY_NAME = {str(case): case for case in CASES}
WITH_ENERGY = [case for case in CASES if case.angle is None]
TILTED = [case for case in CASES if case.angle is not None]


def every(cases):
    return pytest.mark.parametrize("case", cases, ids=str)


every_case = every(CASES)


def data(xp, net, n=3, dtype="float64"):
    """x (n, *input shape) in [0, 1), one-hot y (n, 3)."""
    x = np.random.default_rng([0, 17]).random((n, *net.shapes[0]))
    return xp.asarray(x, dtype=dtype), xp.asarray(np.eye(3)[np.arange(n) % 3], dtype=dtype)


def random_states(xp, net, n=3):
    """States strictly inside the bounds, so that nothing is hidden by zeros or by clipping."""
    rng = np.random.default_rng([0, 23])
    return [xp.asarray(rng.uniform(0.05, 0.95, (n, *shape))) for shape in net.shapes[1:]]


def like(xp, states, seed):
    """Random arrays of the shapes of the states."""
    return [normal(xp, s.shape, [seed, k]) for k, s in enumerate(states)]


def random_direction(net):
    """One random direction in parameter space: every array has the norm 1."""
    direction = {}
    for k, (name, w) in enumerate(net.parameters().items()):
        d = np.random.default_rng([0, 31, k]).standard_normal(w.shape)
        direction[name] = array_module(w).asarray(d / np.linalg.norm(d))
    return direction


# --- oracles --------------------------------------------------------------------------------------------------------------


def dot(a, b):
    """Sum of the products of two arrays, lists or dictionaries of arrays, as a host number (no conjugation)."""
    if isinstance(a, dict):
        return sum(dot(a[name], b[name]) for name in a)
    if isinstance(a, (list, tuple)):
        return sum(dot(one, other) for one, other in zip(a, b, strict=True))
    return to_host((a * b).sum()).item()


def cosine(a, b):
    a, b = flat(a).astype(float), flat(b).astype(float)
    return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))


def total(a):
    """The sum of an array, as a host number."""
    return to_host(a.sum()).item()


def slope(f, h=1e-4):
    """f'(0) by the 4-point formula: truncation h^4 = 1e-16, round-off about 1e-12."""
    return (f(-2 * h) - 8 * f(-h) + 8 * f(h) - f(2 * h)) / (12 * h)


def complex_step(f, h=1e-30):
    """f'(0) of a real-analytic f, exact to round-off: there is no difference in which digits could cancel."""
    return f(1j * h).imag / h


def fitted_slope(errors, betas):
    """d log(error) / d log(beta) by least squares."""
    return np.polyfit(np.log(betas), np.log(errors), 1)[0]


def moved(arrays, direction, t):
    """arrays + t direction, for a list or a dictionary of arrays."""
    if isinstance(arrays, dict):
        return {name: a + t * direction[name] for name, a in arrays.items()}
    return [a + t * d for a, d in zip(arrays, direction, strict=True)]


def along(net, direction, f):
    """t -> f() with the parameters moved by t times the direction (and put back)."""
    def f_of_t(t):
        own = net.parameters()
        net.set_parameters(moved(own, direction, t))
        try:
            return f()
        finally:
            net.set_parameters(own)
    return f_of_t


def clip_by_real_part(factor, high=1.0):
    """clip(factor u, 0, high), extended to complex u where it is smooth: a tool for the complex step only."""
    def sigma(u):
        xp, v = array_module(u), factor * u
        return xp.where(v.real < 0, 0.0, xp.where(v.real > high, high, v))
    return sigma


COMPLEX_SIGMA = {"hard-sigmoid": clip_by_real_part(0.5), "clip": clip_by_real_part(1.0), "relu6": clip_by_real_part(1.0, 6.0)}


def loss(net, x, y, steps, start=None):
    """Mean cost after `steps` synchronous free steps, a host number (complex where the parameters are)."""
    return total(net.cost.value(relax(net, x, steps, start=start).states[-1], y)) / len(x)


def loss_slope(net, x, y, steps, direction, start=None):
    """The derivative of `loss` along a direction in parameter space, exact to round-off."""
    smooth = copy.copy(net)
    smooth.activation = net.activation._replace(sigma=COMPLEX_SIGMA.get(net.activation.name, net.activation.sigma))
    return complex_step(along(net, direction, lambda: loss(smooth, x, y, steps, start)))


@functools.cache
def settled_slope(xp, case):
    """The derivative of the loss at the fixed point, C(s*, y), along the random direction. Asked for once."""
    net, x, y = case.example(xp)
    return loss_slope(net, x, y, case.steps, random_direction(net))


def backpropagation(net, x, y):
    """dL/dtheta of the feed-forward chain with these weights (batch mean), by hand: no relaxation, no feedback."""
    layers, slopes, switches = [x], [], []
    for synapse in net.synapses:
        u, sw = synapse.drive_post(layers[-1])
        layers, slopes, switches = [*layers, net.activation.sigma(u)], [*slopes, net.activation.dsigma(u)], [*switches, sw]
    gradient, back = net.readout_gradient(layers[1:], y), -net.cost.force(layers[-1], y)
    for n in reversed(range(len(net.synapses))):
        error = slopes[n] * back
        gradient |= {f"{n + 1}.{name}": g for name, g in net.synapses[n].hebbian(layers[n], error, switches[n]).items()}
        back = net.synapses[n].drive_pre(error, switches[n])
    return {name: g / len(x) for name, g in gradient.items()}


def insides(net, states):
    """Per layer, which units are strictly inside the bounds: where this changes, sigma' of a clipped activation does."""
    low, high = net.activation.bounds
    return [to_host((s > low) & (s < high)) for s in states]


def same_switches(one, other):
    """Whether two lists of switches are equal (None where a synapse has none, a pair where it is asymmetric)."""
    return all(same_switches(a, b) if isinstance(a, tuple) else
               (a is None and b is None) or np.array_equal(to_host(a), to_host(b)) for a, b in zip(one, other, strict=True))


def stays(net, free, states, switches=None):
    """Whether no unit has reached or left a bound, and no switch has moved, since the free phase: else there is no theorem."""
    same = all(np.array_equal(a, b) for a, b in zip(insides(net, states), insides(net, free.states)))
    return (net.activation.holomorphic or same) and (switches is None or same_switches(switches, free.switches))


def where(cases, **wanted):
    """Those of the cases whose fields are (or are among) the wanted."""
    return [case for case in cases if all(getattr(case, name) in value if isinstance(value, (tuple, list))
                                          else getattr(case, name) == value for name, value in wanted.items())]

