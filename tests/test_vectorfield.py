"""Asymmetric networks: the symmetric one where B = W, the gradient of the loss everywhere else, and what aligns W and B.

The tests at `ANGLE` degrees are at feedback that is unrelated to the forward weights, where nothing symmetric helps.
"""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import (
    CONVERGED,
    COST_NAMES,
    NETWORKS,
    TWO_STATES,
    T,
    data,
    dot,
    fitted_slope,
    flat,
    insides,
    loss_slope,
    moved,
    network,
    normal,
    nudged_states,
    random_direction,
    random_states,
    relative,
    same_switches,
    slope,
    sweep_from_a_random_state,
)
from test_network import skip_network
from test_synapse import SYNAPSES

from ep import bptt, dynamics, eqprop
from ep.activations import SIGMOID
from ep.backend import to_host
from ep.builders import convnet, load
from ep.dynamics import Phase, Phases
from ep.errors import EPError
from ep.network import Network
from ep.nudging import Nudging
from ep.ops import AVERAGE_POOL
from ep.train.optimizers import SGD
from ep.vectorfield import Asymmetric, alignment, asymmetric, kolen_pollack

ANGLE = 90.0
LIMIT = Phases(T, T)  # for BPTT: all the way back to zero
EXAMPLES = Path(__file__).parents[1] / "examples"
every_network = pytest.mark.parametrize("kind,activation", NETWORKS)
every_cost = pytest.mark.parametrize("cost", COST_NAMES)
every_synapse = pytest.mark.parametrize("name", SYNAPSES)
SMOOTH = [("dense", "tanh"), ("average", "sigmoid"), ("max", "sigmoid")]


def case(xp, name):
    """(asymmetric synapse, pre, post, switches of another array) with random numbers everywhere."""
    make, W_shape, b_shape = SYNAPSES[name]
    synapse = Asymmetric(make(normal(xp, W_shape, 0), normal(xp, b_shape, 1)), normal(xp, W_shape, 6))
    pre, post = normal(xp, (2, *synapse.pre_shape), 2), normal(xp, (2, *synapse.post_shape), 3)
    return synapse, pre, post, synapse.drive_post(normal(xp, pre.shape, 5))[1]


def estimate(net, x, y, nudging, **options):
    """The gradient by EP between converged phases; no switch and no clip may differ between s* and the nudged states."""
    phases = options.setdefault("phases", CONVERGED)
    result = eqprop.eqprop_gradient(net, x, y, nudging=nudging, **options)
    assert all(phase.residual < 1e-14 for phase in (result.free, *result.nudged))
    for phase in result.nudged:
        assert same_switches(phase.switches, result.free.switches)
        if not net.activation.holomorphic:
            states = nudged_states(net, result.free, phase, phases.deviations)
            assert all(np.array_equal(a, b) for a, b in zip(insides(net, states), insides(net, result.free.states)))
    return result.gradient


def cosine(a, b):
    return dot(a, b) / (dot(a, a) * dot(b, b)) ** 0.5


# --- one synapse: every new linear map beside its adjoint -------------------------------------------------------------


@every_synapse
def test_the_way_down_and_its_adjoint(xp, name):
    """< pre, drive_pre(post) > = < drive_pre_adjoint(pre), post > = < B, dB >, at the switches of another array."""
    synapse, pre, post, switches = case(xp, name)
    value = dot(pre, synapse.drive_pre(post, switches))
    assert dot(synapse.drive_pre_adjoint(pre, switches), post) == pytest.approx(value, rel=1e-12)
    assert dot(synapse.linear_hebbian(pre, post, switches)["B"], synapse.B) == pytest.approx(value, rel=1e-12)


@every_synapse
def test_the_way_up_and_its_adjoint(xp, name):
    """< drive_post(pre), post > = < pre, drive_post_adjoint(post) > + < b, db >  = < W, dW > + < b, db >."""
    synapse, pre, post, switches = case(xp, name)
    up, kept = synapse.drive_post(pre, switches)
    value, products = dot(up, post), synapse.hebbian(pre, post, switches)
    bias_term = dot(synapse.b, products["b"])
    assert kept is switches and products.keys() == {"W", "b"}
    assert dot(pre, synapse.drive_post_adjoint(post, switches)) + bias_term == pytest.approx(value, rel=1e-12)
    assert dot(synapse.W, products["W"]) + bias_term == pytest.approx(value, rel=1e-12)


@every_synapse
def test_up_through_W_and_down_through_B(xp, name):
    """drive_post is that of a symmetric synapse (W, b), and drive_pre that of a symmetric synapse (B, 0)."""
    synapse, pre, post, _ = case(xp, name)
    make = SYNAPSES[name][0]
    up, (of_W, of_B) = synapse.drive_post(pre)
    forward_up, forward_switches = make(synapse.W, synapse.b).drive_post(pre)
    feedback = make(synapse.B, 0.0 * synapse.b)
    feedback_switches = feedback.drive_post(pre)[1]
    assert relative(up, forward_up) == 0 and same_switches([of_W, of_B], [forward_switches, feedback_switches])
    assert relative(synapse.drive_pre(post, (of_W, of_B)), feedback.drive_pre(post, feedback_switches)) == 0
    if of_B is not None:
        assert not same_switches([of_W], [of_B])


@every_synapse
def test_plain_deviations_are_differences_of_drives(xp, name):
    """What transposed=False moves deviations by: linear_post(v) = drive_post(pre + v) - drive_post(pre) at these switches;
    drive_pre is linear anyway."""
    synapse, pre, post, switches = case(xp, name)
    v, w = normal(xp, pre.shape, 7), normal(xp, post.shape, 8)
    moved_up = synapse.drive_post(pre + v, switches)[0] - synapse.drive_post(pre, switches)[0]
    assert relative(synapse.linear_post(v, switches), moved_up) < 1e-13
    moved_down = synapse.drive_pre(post + w, switches) - synapse.drive_pre(post, switches)
    assert relative(synapse.drive_pre(w, switches), moved_down) < 1e-13


# --- equal weights: the symmetric network -----------------------------------------------------------------------------


@every_cost
@every_network
@pytest.mark.parametrize("schedule", list(dynamics.SCHEDULES))
def test_equal_weights_state_by_state(xp, kind, activation, cost, schedule):
    """With B = W every state of every step is that of the symmetric network, free and nudged."""
    net = network(xp, kind, activation, cost, scale=1.5)
    other, (x, y) = asymmetric(net, angle=0.0), data(xp, net)
    for beta in (0.0, 0.3):
        states = random_states(xp, net)
        for _ in range(4):
            one, two = (dynamics.relax(n, x, Phase(1, schedule), y, beta, start=states) for n in (net, other))
            assert one.residual > 1e-6 and relative(two.states, one.states) < 1e-14
            states = one.states


@every_cost
@every_network
def test_equal_weights_gradient_by_gradient(xp, kind, activation, cost):
    """With B = W: dW + dB = the symmetric gradient, exactly for BPTT, to O(beta^2) for all rules of EP; db without ado."""
    net = network(xp, kind, activation, cost)
    other, (x, y) = asymmetric(net, angle=0.0), data(xp, net)
    exact, backward = (bptt.bptt_gradient(n, x, y, CONVERGED).gradient for n in (net, other))
    assert backward.keys() - exact.keys() == {name for name in other.parameters() if name.endswith(".B")} != set()
    joined = kolen_pollack(backward)
    assert relative({name: joined[name] for name in exact}, exact) < 1e-12
    nudging = Nudging.symmetric(1e-3)
    symmetric = estimate(net, x, y, nudging)
    for options in (dict(transposed=False), dict(transposed=True), dict(transposed=False, phases=TWO_STATES)):
        own = estimate(other, x, y, nudging, **options)
        joined = kolen_pollack(own)
        assert relative(own, backward) < 1e-5  # own updates are right where B = W
        for name in exact:
            assert relative(joined[name], symmetric[name]) < 1e-5, name
        assert all(relative(joined[name], joined[f"{name[0]}.W"]) == 0 for name in joined if name.endswith(".B"))


@every_cost
def test_a_symmetric_network_is_its_own_transpose(xp, cost):
    """`transposed` changes nothing in a symmetric network, bit for bit, at any gain."""
    net = network(xp, "max", "sigmoid", cost, scale=1.5, feedback=0.6)
    x, y = data(xp, net)
    phases, nudging = Phases(20, 10), Nudging.symmetric(0.3)
    one, other = (eqprop.eqprop_gradient(net, x, y, phases, nudging=nudging, transposed=transposed).gradient
                  for transposed in (True, False))
    assert relative(one, other) == 0


# --- BPTT: the derivative of the unrolled loss, whatever the feedback -------------------------------------------------


@every_cost
@every_network
@pytest.mark.parametrize("steps_free,steps_back", [(5, 5), (7, 5)], ids=["from zero", "truncated"])
def test_bptt_is_the_derivative_of_the_unrolled_loss(xp, kind, activation, cost, steps_free, steps_back):
    """d/d(W, b, B) of C(s_T, y), where they act in the last K of T steps, far from a fixed point."""
    net = asymmetric(network(xp, kind, activation, cost, scale=1.5, seed=6), ANGLE)
    x, y = data(xp, net)
    start = dynamics.relax(net, x, steps_free - steps_back).states if steps_back < steps_free else None
    direction = random_direction(net)
    expected = loss_slope(net, x, y, steps_back, direction, start)
    result = bptt.bptt_gradient(net, x, y, Phases(steps_free, steps_back))
    assert result.free.residual > 1e-6 and abs(expected) > 1e-4
    assert dot(result.gradient, direction) == pytest.approx(expected, rel=1e-11)
    assert result.gradient.keys() == net.parameters().keys()
    assert all(abs(to_host(result.gradient[name])).max() > 1e-6 for name in result.gradient)


@every_cost
@every_network
def test_the_sweep_from_a_random_state(xp, kind, activation, cost):
    """The same from a random state, where no zero hides which switches were used."""
    net = asymmetric(network(xp, kind, activation, cost, scale=1.5), ANGLE)
    x, y = data(xp, net)
    trajectory, found, expected = sweep_from_a_random_state(xp, net, x, y)
    if kind == "max":
        for which in (0, 1):  # both kinds of switches move
            switches = [to_host(sw[1][which]) for _, _, sw in trajectory]
            assert all((a != b).any() for a, b in zip(switches, switches[1:]))
    assert abs(expected) > 1e-4
    assert found == pytest.approx(expected, rel=1e-11)


@every_network
def test_transposed_drives_are_the_transposed_jacobian(xp, kind, activation):
    """< D v, mu > = < v, D^T mu > with D v by differences of the drives; and D is not its own transpose."""
    net = asymmetric(network(xp, kind, activation), ANGLE)
    x, _ = data(xp, net)
    states, mu, v = random_states(xp, net), *([normal(xp, (3, *s), [seed, k]) for k, s in enumerate(net.shapes[1:])]
                                             for seed in (1, 2))
    switches = net.drives(x, states)[1]
    there, back = (dot(list(net.transposed_drives(a, switches).values()), b) for a, b in ((mu, v), (v, mu)))
    assert slope(lambda t: dot(net.drives(x, moved(states, v, t))[0], mu)) == pytest.approx(there, rel=1e-9)
    assert abs(there - back) > 1e-2 * abs(there)


def test_any_wiring(xp):
    """A network with a skip connection becomes asymmetric as well: BPTT and asymmetric EP give the derivative of its loss."""
    net = asymmetric(skip_network(xp), ANGLE)
    x, y = data(xp, net)
    direction = random_direction(net)
    expected = loss_slope(net, x, y, T, direction)
    assert [name for name in net.parameters() if name.endswith("B")] == ["1.B", "3.B", "4.B"] and abs(expected) > 1e-4
    assert dot(bptt.bptt_gradient(net, x, y, LIMIT).gradient, direction) == pytest.approx(expected, rel=1e-11)
    exact = estimate(net, x, y, Nudging.four_point(1e-3))
    assert dot(exact, direction) == pytest.approx(expected, rel=1e-8)


def test_both_halves_of_a_gradient_that_is_not_called_W(xp):
    """A synapse of another kind, with the parameter g, joins two layers of an asymmetric network: what the way up and the way
    down say about g is added, by BPTT and by every form of EP that is exact, and neither replaces the other."""
    spec = importlib.util.spec_from_file_location("own_synapse", EXAMPLES / "09_your_own_synapse.py")
    spec.loader.exec_module(own := importlib.util.module_from_spec(spec))
    smooth = dict(pool=AVERAGE_POOL, activation=SIGMOID, dtype="float64")
    chain = asymmetric(convnet([3, 3], (8, 8, 2), 3, paddings=[1, 1], **smooth), ANGLE)
    skip = own.Skip(np.array([0.5, 1.0, 1.5]), pre_shape=chain.shapes[1], r=2)
    net = Network([*chain.synapses, skip], chain.activation, chain.cost, [*chain.wiring, (1, 2)]).to(xp)
    x, y = data(xp, net)
    direction = {name: d * (name == "3.g") for name, d in random_direction(net).items()}
    expected = loss_slope(net, x, y, T, direction)
    g = bptt.bptt_gradient(net, x, y, LIMIT).gradient
    assert abs(expected) > 1e-4 and dot(g, direction) == pytest.approx(expected, rel=1e-11)
    exact = estimate(net, x, y, Nudging.four_point(1e-3))
    assert relative(exact["3.g"], g["3.g"]) < 1e-8
    free, mu = dynamics.relax(net, x, T), [to_host(m) for m in random_states(xp, net)]
    halves = [net.parameter_adjoint(x, free.states, free.switches, [xp.asarray(m * keep) for m, keep in zip(mu, kept)])["3.g"]
              for kept in ((1, 0), (0, 1), (1, 1))]
    assert relative(halves[0] + halves[1], halves[2]) < 1e-14
    assert all(abs(to_host(half)).min() > 1e-2 for half in halves)


# --- the rules --------------------------------------------------------------------------------------------------------


@every_cost
@every_network
def test_asymmetric_ep_is_the_gradient_of_the_loss(xp, kind, activation, cost):
    """At unrelated feedback: (8) with (7) = the derivative of the loss along a random direction; plain VF-EP is not."""
    net = asymmetric(network(xp, kind, activation, cost), ANGLE)
    x, y = data(xp, net)
    direction, nudging = random_direction(net), Nudging.four_point(1e-3)
    expected = loss_slope(net, x, y, T, direction)
    exact, backward = estimate(net, x, y, nudging), bptt.bptt_gradient(net, x, y, LIMIT).gradient
    assert all(abs(to_host(g)).max() > 1e-5 for g in backward.values())
    assert dot(exact, direction) == pytest.approx(expected, rel=1e-9)
    assert relative(exact, backward) < 1e-8
    own, inside = estimate(net, x, y, nudging, transposed=False), [name for name in backward if "readout" not in name]
    assert relative([own[name] for name in inside], [backward[name] for name in inside]) > 1e-2


@every_cost
@pytest.mark.parametrize("kind,activation", SMOOTH)
def test_the_bias_of_asymmetric_ep_falls_as_beta_squared(xp, kind, activation, cost):
    """Symmetric nudging; with max-pooling at the switches of s*, which stay whatever beta is."""
    net = asymmetric(network(xp, kind, activation, cost), ANGLE)
    x, y = data(xp, net)
    exact, betas = bptt.bptt_gradient(net, x, y, LIMIT).gradient, (2e-2, 1e-2)
    errors = [relative(estimate(net, x, y, Nudging.symmetric(b)), exact) for b in betas]
    assert errors[1] < 0.02
    assert fitted_slope(errors, betas) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("kind,activation", SMOOTH)
def test_chunks_and_schedules_change_nothing(xp, kind, activation):
    """At fixed points checkerboard = sweeps = synchronous, and the batch is the mean over its images, each with its own s*."""
    net = asymmetric(network(xp, kind, activation), ANGLE)
    (x, y), nudging = data(xp, net), Nudging.symmetric(0.05)
    whole = estimate(net, x, y, nudging)
    for free, nudged in (("checkerboard", "checkerboard"), ("up", "down")):
        assert relative(estimate(net, x, y, nudging, phases=Phases(Phase(T, free), Phase(T, nudged))), whole) < 1e-10
    singles = [estimate(net, x[n:n + 1], y[n:n + 1], nudging) for n in range(3)]
    assert relative({name: sum(g[name] for g in singles) / 3 for name in whole}, whole) < 1e-10


@every_cost
@pytest.mark.parametrize("kind,activation", SMOOTH[:2])
def test_complex_nudging(xp, kind, activation, cost):
    """Holomorphic nudging with 6 phases: the exact gradient to round-off, real."""
    net = asymmetric(network(xp, kind, activation, cost), ANGLE)
    x, y = data(xp, net)
    gradient = estimate(net, x, y, Nudging.holomorphic(0.01, 6))
    assert {str(g.dtype) for g in gradient.values()} == {"float64"}
    assert relative(gradient, bptt.bptt_gradient(net, x, y, LIMIT).gradient) < 1e-9


@every_cost
@pytest.mark.parametrize("kind,activation", SMOOTH)
def test_its_increments_are_bptts(xp, kind, activation, cost):
    """GDU with asymmetric weights: each step of the nudged phase through D^T makes BPTT's update; its deviations make mu."""
    net = asymmetric(network(xp, kind, activation, cost), ANGLE)
    x, y = data(xp, net)
    free = dynamics.relax(net, x, 2 * T, start=random_states(xp, net))
    assert free.residual < 1e-14
    backward = bptt.bptt_increments(net, x, y, free.states, 8)
    assert min(max(abs(flat(g[name])).max() for g, _ in backward) for name in backward[0][0]) > 1e-5
    for transposed in (True, False):
        forward = eqprop.eqprop_increments(net, x, y, free.states, 8, nudging=Nudging.symmetric(1e-3), transposed=transposed)
        error = relative([mu for _, mu in forward], [mu for _, mu in backward])
        if transposed:
            assert error < 2e-5 and relative([g for g, _ in forward], [g for g, _ in backward]) < 2e-5
        else:
            assert error > 1e-2


@pytest.mark.parametrize("kind", ["dense", "average", "max"])
def test_vector_field_ep_improves_from_random_to_aligned_feedback(xp, kind):
    """Mean cosine over 5 seeds of the own updates of the lower layers with BPTT's gradient: 1 at B = W, far from it at random B.

    The last layer is left out: what reaches it directly is right whatever B is. Between the ends the mean need not be monotone.
    """
    means = {}
    for angle in (90.0, 0.0):
        cosines = []
        for seed in range(5):
            net = asymmetric(network(xp, kind, "sigmoid", "squared-error", seed=seed, scale=1.0), angle, seed=seed)
            x, y = data(xp, net)
            phases = Phases(2 * T, T)
            own = eqprop.eqprop_gradient(net, x, y, phases, nudging=Nudging.symmetric(1e-3), transposed=False)
            assert own.free.residual < 1e-12
            exact = bptt.bptt_gradient(net, x, y, phases).gradient
            hidden = [name for name in exact if name.endswith("W")][:-1]
            assert all(abs(to_host(exact[name])).max() > 1e-5 for name in hidden)
            cosines += [cosine(own.gradient[name], exact[name]) for name in hidden]
        means[angle] = np.mean(cosines)
    assert means[0.0] > 1 - 1e-6
    assert means[90.0] < 0.6


# --- Kolen-Pollack ----------------------------------------------------------------------------------------------------


def trained(xp, combine, weight_decay, epochs=2, steps=5, **annealing):
    """(angle, |W - B|) of layer 2 before and after training a network on three images, and the predicted factor between."""
    net = asymmetric(network(xp, "max", "hard-sigmoid", "squared-error", scale=1.5), ANGLE)
    x, y = data(xp, net)
    optimizer, before = SGD(net, 0.1, weight_decay=weight_decay, **annealing), alignment(net.parameters())["2"]
    for epoch in range(epochs):
        for _ in range(steps):
            gradient = eqprop.eqprop_gradient(net, x, y, Phases(30, 10, deviations=False), nudging=Nudging.symmetric(0.3),
                                              transposed=False).gradient
            assert abs(to_host(gradient["2.B"])).max() > 1e-5
            optimizer.step(combine(gradient), epoch)
    return before, alignment(net.parameters())["2"], optimizer.decay("2", epochs, steps)


@pytest.mark.parametrize("annealing", [{}, {"anneal_epochs": 2}], ids=["constant", "annealed"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_kolen_pollack_shrinks_the_difference_as_predicted(xp, weight_decay, annealing):
    """|W - B| is multiplied by what weight decay alone leaves of 1, whatever the gradients are; own updates do not do that."""
    (_, before), (_, after), predicted = trained(xp, kolen_pollack, weight_decay, **annealing)
    assert after / before == pytest.approx(predicted, rel=1e-11)
    assert predicted == 1 if weight_decay == 0 else predicted < 0.9
    (_, before), (_, after), _ = trained(xp, lambda gradient: gradient, weight_decay, **annealing)
    assert abs(after / before - predicted) > 1e-5


def test_kolen_pollack_aligns(xp):
    """With weight decay the angle between W and B falls from nearly 90 degrees to below 15."""
    (before, _), (after, _), predicted = trained(xp, kolen_pollack, 0.02, steps=50)
    assert before > 75 and after < 15 and predicted == pytest.approx(0.102, abs=1e-3)


def test_the_predicted_shrinking():
    """A constant rate: exp(-rate wd steps/(1 - momentum)), to the order of rate x wd; the paper's numbers after 1,250 steps."""
    net = network(np, "dense", "sigmoid", "squared-error")
    assert SGD(net, 0.1, 0.9, 3e-4).decay("1", 1, 1250) == pytest.approx(np.exp(-0.1 * 3e-4 * 1250 / 0.1), rel=5e-3)
    annealed = SGD(net, 0.1, 0.9, 3e-3, anneal_epochs=10)
    sum_of_rates = sum(100 * annealed.rate("1", epoch) for epoch in range(10))
    assert annealed.decay("1", 10, 100) == pytest.approx(np.exp(-3e-3 * sum_of_rates / 0.1), rel=5e-2)


def test_kolen_pollack_touches_only_pairs(xp):
    """dW and dB become their sum; biases, the first layer and the readout stay."""
    net = asymmetric(network(xp))
    gradient = {name: normal(xp, w.shape, [k, 3]) for k, (name, w) in enumerate(net.parameters().items())}
    joined = kolen_pollack(gradient)
    assert joined.keys() == gradient.keys() == {"1.W", "1.b", "2.W", "2.b", "2.B", "readout.W", "readout.b"}
    for name in gradient:
        expected = gradient["2.W"] + gradient["2.B"] if name in ("2.W", "2.B") else gradient[name]
        assert relative(joined[name], expected) == 0


# --- building, alignment, files, errors -------------------------------------------------------------------------------


@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0])
def test_the_angle_between_W_and_B(xp, angle):
    """asymmetric(angle) makes it (exactly at 0, else up to the chance overlap of random weights), with |B| = |W| or nearly."""
    net = asymmetric(convnet([8, 12, 12], (16, 16, 3), 3), angle).to(xp)
    found = alignment(net.parameters())
    assert found.keys() == {"2", "3"}
    for layer, (degrees, distance) in found.items():
        W, B = flat(net.parameters()[f"{layer}.W"]).astype(float), flat(net.parameters()[f"{layer}.B"]).astype(float)
        assert degrees == pytest.approx(angle, abs=0 if angle == 0 else 5)
        assert np.cos(np.deg2rad(degrees)) == pytest.approx(W @ B / np.linalg.norm(W) / np.linalg.norm(B), abs=1e-6)
        assert distance == pytest.approx(np.linalg.norm(W - B), rel=1e-5)
        assert np.linalg.norm(B) == pytest.approx(np.linalg.norm(W), rel=0.1)


def test_small_angles_are_not_lost(xp):
    """1e-5 degrees, where the cosine is 1 - 1.5e-14."""
    W, R = xp.asarray([[3.0, 4.0]]), xp.asarray([[-4.0, 3.0]])
    assert alignment({"2.W": W, "2.B": W + R * float(np.deg2rad(1e-5))})["2"][0] == pytest.approx(1e-5, rel=1e-6)


def test_the_original_is_left_alone(xp):
    """asymmetric() copies: training the copy moves nothing in the network it came from, and seeds give different B."""
    net = network(xp)
    before = {name: w.copy() for name, w in net.parameters().items()}
    one, other = asymmetric(net, seed=0), asymmetric(net, seed=1)
    assert relative(one.parameters()["2.B"], other.parameters()["2.B"]) > 0.5
    for w in one.parameters().values():
        w += 1.0
    assert relative(net.parameters(), before) == 0
    assert {name: other.parameters()[name].shape for name in before} == {name: w.shape for name, w in before.items()}


@every_cost
@pytest.mark.parametrize("kind", ["dense", "max"])
def test_a_saved_network_comes_back(xp, tmp_path, kind, cost):
    """save, load: the same parameters, B among them, and the same dynamics."""
    net = asymmetric(network(xp, kind, "sigmoid", cost), 50.0, seed=3)
    x, _ = data(xp, net)
    net.save(tmp_path / "net.npz")
    again = load(tmp_path / "net.npz").to(xp)
    assert relative(net.parameters(), again.parameters()) == 0 and net.parameters().keys() == again.parameters().keys()
    assert relative(dynamics.relax(net, x, 5).states, dynamics.relax(again, x, 5).states) == 0


def test_there_is_no_energy():
    """phi and energy say why; so does everything else that makes no sense."""
    net = asymmetric(network(np))
    x, _ = data(np, net)
    for f in (net.phi, net.energy):
        with pytest.raises(EPError, match="no Phi and no energy"):
            f(x, random_states(np, net))
    with pytest.raises(EPError, match="asymmetric already"):
        asymmetric(net)
    net = network(np)
    net.synapses[1] = SimpleNamespace(W=net.synapses[1].W, parameters=net.synapses[1].parameters)  # a kind of one's own
    with pytest.raises(EPError, match="synapse 2 cannot have feedback weights of its own: it has no b, no linear_post"):
        asymmetric(net)
    synapse = network(np).synapses[1]
    with pytest.raises(EPError, match="shape of the forward weights"):
        Asymmetric(synapse, synapse.W[..., :1])
    with pytest.raises(EPError, match="holomorphic network"):
        max_pooling = asymmetric(network(np, "max"))
        eqprop.eqprop_gradient(max_pooling, *data(np, max_pooling), Phases(5, 5), nudging=Nudging.holomorphic(0.1, 4))
    with pytest.raises(EPError, match="the exact gradient of an asymmetric network needs deviations"):
        eqprop.eqprop_gradient(max_pooling, *data(np, max_pooling), TWO_STATES, nudging=Nudging.symmetric(0.1))


@pytest.mark.parametrize("transposed", [False, True])
@every_network
def test_single_precision_is_kept(xp, kind, activation, transposed):
    """float32 in, float32 states and gradients out."""
    net = asymmetric(network(xp, kind, activation, dtype="float32"), 60.0)
    x, y = data(xp, net, dtype="float32")
    result = eqprop.eqprop_gradient(net, x, y, Phases(5, 3), nudging=Nudging.symmetric(0.1), transposed=transposed)
    arrays = [s for phase in (result.free, *result.nudged) for s in phase.states] + list(result.gradient.values())
    assert {str(a.dtype) for a in arrays} == {"float32"}
    assert {str(g.dtype) for g in bptt.bptt_gradient(net, x, y, Phases(5, 3)).gradient.values()} == {"float32"}


def test_own_switches_let_free_phases_settle(xp):
    """Max-pooling, unrelated feedback, 10 seeds: every free phase settles; with the forward switches most do not."""
    def settled(net):
        x, _ = data(xp, net)
        return dynamics.relax(net, x, 4 * T).residual < 1e-10

    nets = [asymmetric(network(xp, "max", "sigmoid", seed=seed, scale=1.5), ANGLE, seed=seed) for seed in range(10)]
    assert all(settled(net) for net in nets)
    for net in nets:  # the feedback's choice of corners replaced by that of the forward weights
        net.synapses[1].feedback.winners = lambda pre, forward=net.synapses[1].forward: forward.drive_post(pre)[1]
    assert sum(settled(net) for net in nets) < 8


# --- the example ------------------------------------------------------------------------------------------------------


def test_the_example_of_alignment(tmp_path, monkeypatch):
    """examples/asymmetric_alignment.py with one seed, two angles and fewer steps: its figure, its tables, its claim."""
    spec = importlib.util.spec_from_file_location("alignment_example", EXAMPLES / "asymmetric_alignment.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    for name, value in dict(ANGLES=(90.0, 0.0), SEEDS=(0,), T=50, K=25).items():
        monkeypatch.setattr(example, name, value)
    monkeypatch.setattr(sys, "argv", ["asymmetric_alignment.py", "--out", str(tmp_path)])
    example.main()
    (random,), (aligned,) = json.loads((tmp_path / "asymmetric_alignment.json").read_text())["cosines"]
    assert min(min(random["exact"].values()), *(min(c.values()) for c in aligned.values())) > 0.99
    assert max(random["own"][name] for name in ("1.W", "2.W", "2.B", "3.B")) < 0.5
    assert (tmp_path / "asymmetric_alignment.png").read_bytes().startswith(b"\x89PNG")
    assert "| 2.W | Kolen-Pollack |" in (tmp_path / "asymmetric_alignment.md").read_text()
