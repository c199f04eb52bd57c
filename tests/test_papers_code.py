"""The published code's rules, written down once more in plain loops, and which of the two conventions is the gradient.

The loops share nothing with the library: a pooling window is decided unit by unit, the states are relaxed one line per layer,
and the gradient is that code's `compute_syn_grads`: (phi_2 - phi_1)/(beta_1 - beta_2), with - beta C inside of phi.
"""

from functools import partial

import numpy as np
import pytest
from cases import SE, Case, data, dot, fitted_slope, loss_slope, random_direction, same_switches
from helpers import relative

from ep import engine, papers_code
from ep.bptt import bptt_gradient
from ep.builders import convnet
from ep.dynamics import Phases
from ep.eqprop import eqprop_gradient
from ep.nudging import Nudging
from ep.vectorfield import asymmetric, kolen_pollack

STEPS_FREE, STEPS_NUDGED, BETA = 6, 4, 1.0
T = 120  # free and nudged steps after which the networks of cases.py are at a fixed point
RULES = ("symmetric", "own", "kolen-pollack")
NUDGINGS = {"symmetric": Nudging.symmetric(BETA), "one-sided": Nudging.one_sided(BETA), "pushed away": Nudging.one_sided(-BETA)}
every_rule = pytest.mark.parametrize("rule", RULES)
every_nudging = pytest.mark.parametrize("name", NUDGINGS)

# --- the published code in loops: two 3x3 convolutions with padding 1, each with 2x2 max-pooling, and a softmax readout -------


def patch(pre, n, i, j):
    """The 3x3 neighbourhood of pixel (i, j) of image n, zero outside."""
    return np.pad(pre[n], ((1, 1), (1, 1), (0, 0)))[i:i + 3, j:j + 3]


def winners(pre, W):
    """{(n, p, q, c): the pixel of window (p, q) at which the convolution is largest, the first of equals}"""
    N, H, width, _ = pre.shape
    best = {}
    for n, i, j in np.ndindex(N, H, width):
        for c, value in enumerate((patch(pre, n, i, j)[..., None] * W).sum((0, 1, 2))):
            window = n, i // 2, j // 2, c
            if window not in best or value > best[window][0]:
                best[window] = value, (i, j)
    return {window: place for window, (_, place) in best.items()}


def up(pre, W, won):
    N, H, width, _ = pre.shape
    drive = np.zeros((N, H // 2, width // 2, W.shape[3]))
    for (n, p, q, c), place in won.items():
        drive[n, p, q, c] = (patch(pre, n, *place) * W[..., c]).sum()
    return drive


def down(post, W, won, shape):
    drive = np.zeros((shape[0], shape[1] + 2, shape[2] + 2, shape[3]))
    for (n, p, q, c), (i, j) in won.items():
        drive[n, i:i + 3, j:j + 3] += post[n, p, q, c] * W[..., c]
    return drive[:, 1:-1, 1:-1]


def product(pre, post, won):
    dW = np.zeros((3, 3, pre.shape[3], post.shape[3]))
    for (n, p, q, c), place in won.items():
        dW[..., c] += patch(pre, n, *place) * post[n, p, q, c]
    return dW


def error(theta, s2, y):
    """softmax - y, (N, 3)."""
    z = s2.reshape(len(s2), -1) @ theta["readout.W"] + theta["readout.b"]
    return np.exp(z) / np.exp(z).sum(1, keepdims=True) - y


def relax(theta, x, states, steps, y=None, beta=0.0):
    s1, s2 = states
    B = theta.get("2.B", theta["2.W"])
    from_x = up(x, theta["1.W"], winners(x, theta["1.W"])) + theta["1.b"]
    for _ in range(steps):
        u1 = from_x + down(s2, B, winners(s1, B), s1.shape)
        u2 = up(s1, theta["2.W"], winners(s1, theta["2.W"])) + theta["2.b"]
        if beta:
            u2 -= beta * (error(theta, s2, y) @ theta["readout.W"].T).reshape(s2.shape)
        s1, s2 = np.clip(u1 / 2, 0, 1), np.clip(u2 / 2, 0, 1)
    return s1, s2


def slopes_of_phi(theta, x, y, beta, layers, layers_2):
    """d(phi - beta C)/dtheta, phi = < pool(W * layers), layers_2 > and < pool(B * layers_2), layers > (the code's own names)."""
    (a1, a2), (b1, b2) = layers, layers_2
    e = -beta * error(theta, b2, y)
    slopes = {"1.W": product(x, b1, winners(x, theta["1.W"])), "1.b": b1.sum((0, 1, 2)),
              "2.W": product(a1, b2, winners(a1, theta["2.W"])), "2.b": b2.sum((0, 1, 2)),
              "readout.W": b2.reshape(len(x), -1).T @ e, "readout.b": e.sum(0)}
    if "2.B" in theta:
        slopes["2.B"] = product(b1, a2, winners(b1, theta["2.B"]))
    return {name: slope / len(x) for name, slope in slopes.items()}  # phi.mean()


def papers_gradient(theta, x, y, rule, name):
    """As `train` and `compute_syn_grads` do it: two states, each with its beta, the first of them s_T if one-sided."""
    free = relax(theta, x, (np.zeros((len(x), 4, 4, 3)), np.zeros((len(x), 2, 2, 4))), STEPS_FREE)
    beta = -BETA if name == "pushed away" else BETA
    beta_1, beta_2 = (beta, -beta) if name == "symmetric" else (0.0, beta)
    neurons = [relax(theta, x, free, STEPS_NUDGED, y, b) if b else free for b in (beta_1, beta_2)]
    phi_1, phi_2 = (slopes_of_phi(theta, x, y, b, free if rule == "own" else s, s)
                    for b, s in zip((beta_1, beta_2), neurons))
    gradient = {name: (phi_2[name] - phi_1[name]) / (beta_1 - beta_2) for name in theta}
    if rule == "kolen-pollack":
        gradient["2.W"] = gradient["2.B"] = 0.5 * (gradient["2.W"] + gradient["2.B"])
    return gradient


# --- ours, with and without the conventions -------------------------------------------------------------------------------


def example(rule):
    """A small max-pooling network that is far from settled after STEPS_FREE steps, so that switches move."""
    net = convnet([3, 4], (8, 8, 2), 3, paddings=[1, 1], scale=[2.0, 3.0, 3.0], seed=3, dtype="float64")
    net = net if rule == "symmetric" else asymmetric(net, 60.0, seed=1)
    return net, *data(np, net, n=2)


def ours(gradient, net, x, y, rule, name, **options):
    """By eqprop_gradient or by papers_gradient, on these nudged states."""
    found = gradient(net, x, y, Phases(STEPS_FREE, STEPS_NUDGED, False), nudging=NUDGINGS[name], **options).gradient
    return kolen_pollack(found) if rule == "kolen-pollack" else found


def differing(found, expected, bound=1e-3):
    return {name for name in expected if relative(found[name], expected[name]) > bound}


@every_nudging
@every_rule
def test_with_its_conventions_the_published_code_is_reproduced(rule, name):
    """Every gradient to rounding, on the core's synapses and on the engine's. With our own choices, just those that they are
    about differ: the readout, B (with Kolen-Pollack W too), and, one-sided, everything that what stays at s_T is in."""
    net, x, y = example(rule)
    expected = papers_gradient(net.parameters(), x, y, rule, name)
    assert all(abs(g).max() > 1e-5 for g in expected.values())
    for network in (net, engine.prepared(net)):
        found = ours(papers_code.papers_gradient, network, x, y, rule, name, common=rule == "kolen-pollack")
        assert differing(found, expected, 1e-12) == set()
    inside = {"own": {"2.B"}, "kolen-pollack": {"2.W", "2.B"}}.get(rule, set())
    everything = set() if name == "symmetric" else set(net.parameters())
    found = ours(eqprop_gradient, net, x, y, rule, name, transposed=rule == "symmetric")
    assert differing(found, expected) == inside | everything | {"readout.W", "readout.b"}


# --- which one is the gradient ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nudging, order", [(Nudging.symmetric, 2), (Nudging.one_sided, 1)])
def test_the_readouts_gradient_is_the_one_at_the_free_state(nudging, order):
    """At s* it is the derivative of the loss, whatever beta is; at the nudged states it is off by O(beta^order)."""
    net, x, y = Case("average", scale=1.5).example()
    direction = {name: d * name.startswith("readout") for name, d in random_direction(net).items()}
    expected, errors, betas = loss_slope(net, x, y, T, direction), [], (0.2, 0.1)
    for gradient in (eqprop_gradient, papers_code.papers_gradient):
        for beta in betas:
            found = gradient(net, x, y, Phases(T, T, False), nudging=nudging(beta)).gradient
            errors.append(abs(dot(found, direction) / expected - 1))
    assert max(errors[:2]) < 1e-10 < 1e-5 < min(errors[2:])
    assert fitted_slope(errors[2:], betas) == pytest.approx(order, abs=0.15)


def test_a_phase_that_moves_on_is_nearer_to_the_gradient_than_one_that_stays():
    """One-sided after T = 5 steps, which settle nothing: from s_T the drift swamps the gradient; settled, the two are one."""
    net, x, y = Case("average", scale=1.5).example()
    exact = inner(bptt_gradient(net, x, y, Phases(2 * T, 2 * T)))
    for steps, drifts in ((5, True), (2 * T, False)):
        moves, stays = (inner(gradient(net, x, y, Phases(steps, T, False), nudging=Nudging.one_sided(0.01)))
                        for gradient in (eqprop_gradient, papers_code.papers_gradient))
        assert relative(moves, exact) < 0.05
        assert (relative(stays, exact) > 1) == drifts


def inner(estimate):
    """The gradient without the readout, whose own convention is another matter."""
    return {name: g for name, g in estimate.gradient.items() if not name.startswith("readout")}


@pytest.mark.parametrize("scale, seed, beta", [(1.0, 7, 0.3), (1.5, 8, 0.1), (1.5, 11, 0.3)])
def test_the_switches_of_the_free_state_are_nearer_to_the_gradient(scale, seed, beta):
    """Where B = W, own updates are the gradient. As long as a nudge moves no switch, the two conventions are one; where it
    does, both are off, for the response jumps too, and dB at the switches of the nudged states is off by more."""
    net, x, y = Case("max", cost=SE, angle=0.0, scale=scale, seed=seed).example()
    exact = bptt_gradient(net, x, y, Phases(2 * T, 2 * T)).gradient
    for b, moved in ((0.01, False), (beta, True)):
        found, nudging, phases = {}, Nudging.symmetric(b), Phases(2 * T, T, False)
        for products, gradient in (("free", partial(eqprop_gradient, transposed=False)), ("own", papers_code.papers_gradient)):
            result = gradient(net, x, y, phases, nudging=nudging)
            found[products] = max(relative(result.gradient[name], exact[name]) for name in exact if name.endswith(".B"))
        assert all(same_switches(phase.switches, result.free.switches) for phase in result.nudged) != moved
        if moved:
            assert found["own"] > 1.3 * found["free"]
        else:
            assert found["own"] == pytest.approx(found["free"], rel=1e-6) and found["own"] < 0.05
