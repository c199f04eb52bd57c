"""The dynamics: equation (1), and the relaxation to its fixed point.

    s_n <- sigma( dPhi/ds_n - beta dC/ds_n )          fixed point: s^beta, and s* = s^0            (1)

One *step* updates every layer once. The schedule says in which groups: `synchronous` all layers from the old values,
`checkerboard` the odd layers first, then the even ones from the new values (about twice as far per step). Both have the same
fixed points and reach the same one where there is only one. Where there are several, synchronous steps may alternate between
two states for ever: odd and even layers of two minima of E, in turn. A checkerboard step never raises E in a chain without
max-pooling, and settles.
"""

from dataclasses import dataclass, field

import numpy as np

from .backend import array_module
from .errors import EPError

SCHEDULES = {  # number of layers L -> groups of layers that are updated together
    "synchronous": lambda L: [range(1, L + 1)],
    "checkerboard": lambda L: [range(1, L + 1, 2), range(2, L + 1, 2)],
}


@dataclass
class Relaxation:
    """Where a relaxation ended.

    states    [s_1 ... s_L]
    switches  of every synapse at these states (the frozen ones, if they were frozen)
    steps     how many were made
    residual  largest |s_new - s_old| over layers, units and images of the last step
    converged residual <= tolerance; a relaxation of a fixed number of steps has the tolerance 0
    history   [(step, residual)] of every step at which the residual was computed
    """

    states: list
    switches: list
    steps: int
    residual: float
    converged: bool
    history: list = field(default_factory=list)


@dataclass
class Estimate:
    """A gradient and how it was obtained: what `eqprop_gradient` and `bptt_gradient` return.

    gradient  {"1.W": dL/dW, ...}: batch mean, to be descended
    loss      L = C(s*, y), batch mean; correct: number of right predictions at s*
    free      the `Relaxation` of the free phase; nudged: those of the nudged phases, in the order of the points
    """

    gradient: dict
    loss: float
    correct: int
    free: Relaxation
    nudged: list = field(default_factory=list)


def relax(network, x, y=None, beta=0.0, *, steps, start=None, schedule="synchronous", tolerance=0.0, check_every=None,
          switches=None, inputs=None):
    """Iterate (1) from `start` (default: all zero) for `steps` steps, or fewer if the residual falls to `tolerance`.

    x (N, *input shape); y (N,) labels or (N, classes) targets, needed if beta != 0. beta: nudging strength, real or complex.
    switches: keep these max-pooling switches throughout ("frozen"); default: those of the current states ("live"). Those
    of a synapse from the input never change, frozen or not.
    inputs: network.input_drives(x), if they are known already: they are the same in every phase.
    check_every: compute the residual every so many steps, and at the last (it makes a GPU wait). Default: every step
    if there is a tolerance, else only at the last.
    Returns a `Relaxation`. Raises EPError if y is missing, or for complex beta in a network that is not holomorphic.
    """
    beta = checked(network, x, y, beta, steps, schedule, tolerance, check_every)
    y = None if y is None else network.targets(y, x.dtype)
    states = list(network.init_state(x) if start is None else start)
    if isinstance(beta, complex):
        states = [s + 0j for s in states]
    groups, inputs, frozen = SCHEDULES[schedule](len(states)), inputs or network.input_drives(x), switches is not None
    switches = list(switches) if frozen else network.switches(inputs, states)
    check_every, history = check_every or (1 if tolerance > 0 else steps), []
    for t in range(1, steps + 1):
        old = list(states)
        for group in groups:
            step(network, group, inputs, states, switches, y, beta, frozen)  # replaces the arrays in `states`
        if t == steps or t % check_every == 0:
            history.append((t, residual(states, old)))
            if history[-1][1] <= tolerance and tolerance > 0:
                break
    if not frozen:
        switches = network.switches(inputs, states)
    steps_made, last = history[-1]
    return Relaxation(states, switches, steps_made, last, last <= tolerance, history)


def step(network, group, inputs, states, switches, y, beta, frozen=False):
    """Equation (1) for the layers in `group`, all from the same old values; changes the lists states and switches."""
    u = network.drives_of(group, inputs, states, switches, frozen)
    L = len(states)
    if beta != 0 and L in u:
        u[L] = u[L] + beta * network.cost.force(states[-1], y)  # force = -dC/ds_L
    for n in group:
        states[n - 1] = network.activation.sigma(u[n])


def estimate(network, gradient, free, y, nudged=()):
    """The `Estimate` from gradients summed over the batch: divide by N, add what is known at s*."""
    s, N = free.states[-1], len(y)
    return Estimate(
        gradient={name: gradient[name] / N for name in network.parameters()},
        loss=float(network.cost.value(s, y).sum()) / N,
        correct=int((network.predict(free.states) == y.argmax(1)).sum()),
        free=free, nudged=list(nudged))


def residual(states, old):
    """Largest |s_new - s_old| over layers, units and images, as a Python float."""
    xp = array_module(states[0])
    return float(xp.stack([abs(s - o).max() for s, o in zip(states, old)]).max())


def checked(network, x, y, beta, steps, schedule, tolerance, check_every):
    """beta as a Python number; EPError for arguments that do not fit."""
    network.check_input(x)
    if schedule not in SCHEDULES:
        raise EPError(f"unknown schedule '{schedule}': expected one of {', '.join(SCHEDULES)}")
    if steps < 1 or (check_every is not None and check_every < 1) or not tolerance >= 0:
        raise EPError("expected at least 1 step, a residual every 1 or more steps, and a tolerance of 0 or more: got "
                      f"steps={steps}, check_every={check_every}, tolerance={tolerance}")
    if beta != 0 and (y is None or len(y) != len(x)):
        raise EPError("nudging (beta != 0) needs the targets y, one per input")
    if np.iscomplexobj(beta) and not network.holomorphic:
        raise EPError("complex nudging needs a holomorphic network: use sigmoid or tanh and average (or no) pooling "
                      "instead of clipping and max-pooling")
    return complex(beta) if np.iscomplexobj(beta) else float(beta)  # a Python number, so that float32 states stay float32
