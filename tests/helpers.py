"""Builders of small networks and the numerical tools that the tests share. Random numbers are seeded, and of the host."""

import copy

import numpy as np
import pytest

from ep import bptt
from ep.activations import ACTIVATIONS
from ep.backend import array_module, to_host
from ep.builders import convnet, mlp
from ep.cost import COSTS
from ep.dynamics import Phase, Phases, relax
from ep.errors import EPError
from ep.ops import POOLINGS

COST_NAMES = ("cross-entropy", "squared-error")
# kind of network, activation: every combination that makes sense (tanh has negative states, which max-pooling refuses)
NETWORKS = [(kind, activation) for kind in ("dense", "average", "max") for activation in ACTIVATIONS
            if (kind, activation) != ("max", "tanh")]


T, K = 120, 80  # free and nudged steps after which all these networks are at a fixed point
CONVERGED = Phases(T, K)
TWO_STATES = Phases(T, K, deviations=False)  # equation (4) with live switches, as the paper's code has it
BOARD = Phase(T, "checkerboard")


def sentence(call, *arguments, **options):
    """The one sentence that a call ends in."""
    with pytest.raises(EPError) as error:
        call(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def normal(xp, shape, seed, dtype="float64"):
    """Standard normal numbers; complex if dtype is."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        a = a + 1j * rng.standard_normal(shape)
    return xp.asarray(a, dtype=dtype)


def network(xp, kind="average", activation="sigmoid", cost="cross-entropy", *, seed=0, scale=0.7, dtype="float64", feedback=1.0):
    """dense: 6-5-4-4-3; otherwise two 3x3 convolutions of an 8x8x2 image with that pooling. Three classes.

    With scale 0.7 and seed 0 all NETWORKS are contractive (at round-off after T steps) and none of their gradients is 0.
    """
    common = dict(activation=ACTIVATIONS[activation], cost=COSTS[cost], seed=seed, scale=scale, dtype=dtype,
                  feedback=feedback)
    if kind == "dense":
        return mlp([6, 5, 4, 4, 3], **common).to(xp)
    return convnet([3, 4], (8, 8, 2), 3, paddings=[1, 1], pool=POOLINGS[kind], **common).to(xp)


def data(xp, net, n=3, seed=0, dtype="float64"):
    """x (n, *input shape) in [0, 1), one-hot y (n, 3)."""
    rng = np.random.default_rng([seed, 17])
    x, labels = rng.random((n, *net.shapes[0])), np.arange(n) % 3
    return xp.asarray(x, dtype=dtype), xp.asarray(np.eye(3)[labels], dtype=dtype)


def random_states(xp, net, n=3, seed=0):
    """States strictly inside the bounds, so that nothing is hidden by zeros or by clipping."""
    rng = np.random.default_rng([seed, 23])
    return [xp.asarray(rng.uniform(0.05, 0.95, (n, *shape))) for shape in net.shapes[1:]]


def random_direction(net, seed=0):
    """One random direction in parameter space: every array has the norm 1."""
    some = next(iter(net.parameters().values()))
    xp, direction = array_module(some), {}
    for k, (name, w) in enumerate(net.parameters().items()):
        d = np.random.default_rng([seed, 31, k]).standard_normal(w.shape)
        direction[name] = xp.asarray(d / np.linalg.norm(d))
    return direction


def dot(a, b):
    """Sum of the products of two arrays, lists or dictionaries of arrays, as a host number (no conjugation)."""
    if isinstance(a, dict):
        return sum(dot(a[name], b[name]) for name in a)
    if isinstance(a, (list, tuple)):
        return sum(dot(one, other) for one, other in zip(a, b))
    return to_host((a * b).sum()).item()


def flat(a):
    """All numbers of an array, list or dictionary of arrays, as one host vector."""
    if isinstance(a, dict):
        a = [a[name] for name in sorted(a)]
    if isinstance(a, (list, tuple)):
        return np.concatenate([flat(one) for one in a])
    return to_host(a).ravel()


def relative(a, b):
    """|a - b| / |b|, Euclidean, over everything in them."""
    return float(np.linalg.norm(flat(a) - flat(b)) / np.linalg.norm(flat(b)))


def slope(f, h=1e-4):
    """f'(0) by the 4-point formula: truncation h^4 = 1e-16, round-off about 1e-12."""
    return (f(-2 * h) - 8 * f(-h) + 8 * f(h) - f(2 * h)) / (12 * h)


def complex_step(f, h=1e-30):
    """f'(0) of a real-analytic f, exact to round-off: there is no difference in which digits could cancel."""
    return f(1j * h).imag / h


def moved(arrays, direction, t):
    """arrays + t direction, for a list or a dictionary of arrays."""
    if isinstance(arrays, dict):
        return {name: a + t * direction[name] for name, a in arrays.items()}
    return [a + t * d for a, d in zip(arrays, direction)]


def clip_by_real_part(factor, high=1.0):
    """clip(factor u, 0, high), extended to complex u where it is smooth: a tool for the complex step only."""
    def sigma(u):
        xp, v = array_module(u), factor * u
        return xp.where(v.real < 0, 0.0, xp.where(v.real > high, high, v))
    return sigma


COMPLEX_SIGMA = {"hard-sigmoid": clip_by_real_part(0.5), "clip": clip_by_real_part(1.0),
                 "relu6": clip_by_real_part(1.0, 6.0)}


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


def loss_slope(net, x, y, steps, direction, start=None):
    """The derivative of `loss` along a direction in parameter space, exact to round-off."""
    smooth = copy.copy(net)
    name = net.activation.name
    smooth.activation = net.activation._replace(sigma=COMPLEX_SIGMA.get(name, net.activation.sigma))
    return complex_step(along(net, direction, lambda: loss(smooth, x, y, steps, start)))


def sweep_from_a_random_state(xp, net, x, y):
    """(trajectory, the reverse sweep's derivative of the loss along a random direction, the same by `loss_slope`): 4 steps."""
    start, direction = random_states(xp, net), random_direction(net)
    trajectory, end = bptt.unroll(net, x, start, 4)
    total = net.readout_gradient(end.states, y)
    for g, _ in bptt.sweep(net, x, y, trajectory, end.states):
        total = {**total, **{name: total.get(name, 0.0) + g[name] for name in g}}
    return trajectory, dot(total, direction) / len(x), loss_slope(net, x, y, 4, direction, start)


def loss(net, x, y, steps, start=None):
    """Mean cost after `steps` synchronous free steps, a host number (complex where the parameters are)."""
    final = relax(net, x, steps, start=start).states[-1]
    return to_host(net.cost.value(final, y).sum()).item() / len(x)


def insides(net, states):
    """Per layer, which units are strictly inside the bounds: where this changes, sigma' of a clipped activation does."""
    low, high = net.activation.bounds
    return [to_host((s > low) & (s < high)) for s in states]


def same_switches(one, other):
    """Whether two lists of switches are equal (None where a synapse has none, a pair where it is asymmetric)."""
    return all(same_switches(a, b) if isinstance(a, tuple) else
               (a is None and b is None) or np.array_equal(to_host(a), to_host(b)) for a, b in zip(one, other))


def nudged_states(net, free, phase, deviations):
    """s^beta of a nudged phase: its states, or s* + delta/w where they are deviations."""
    return [s + d / w for s, d, w in zip(free.states, phase.states, net.weights)] if deviations else phase.states


def fitted_slope(errors, betas):
    """d log(error) / d log(beta) by least squares."""
    return np.polyfit(np.log(betas), np.log(errors), 1)[0]
