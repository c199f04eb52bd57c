"""What holds exactly, for every case: synapses, Phi and E, schedules, and how a relaxation runs and ends."""

import itertools

import numpy as np
import pytest
from cases import (
    ASYMMETRIC,
    CASES,
    CHAINS,
    KINDS,
    SYMMETRIC,
    SYNAPSES,
    WITH_ENERGY,
    WITH_W,
    Case,
    along,
    complex_step,
    dot,
    every,
    every_case,
    like,
    moved,
    random_direction,
    random_states,
    same_switches,
    slope,
    synapse_case,
    total,
    where,
)
from helpers import flat, normal, relative

from ep.activations import CLIP, total as added
from ep.backend import to_host
from ep.builders import mlp
from ep.cost import SquaredError
from ep.dynamics import SCHEDULES, Phase, Phases, deviate, relax, residual
from ep.errors import EPError
from ep.network import Network
from ep.synapse import Dense, Filtered

INVERSE = {"hard-sigmoid": lambda s: 2 * s, "clip": lambda s: s, "relu6": lambda s: s, "tanh": np.arctanh,
           "sigmoid": lambda s: (np.log(s) - np.log(1 - s) + 2) / 4}
GROUPED = ["checkerboard", "up", "down"]  # schedules that never move two joined layers together
every_synapse = pytest.mark.parametrize("name", SYNAPSES)
symmetric_synapse = pytest.mark.parametrize("name", SYMMETRIC)
with_energy = every(WITH_ENERGY)

# --- a synapse ------------------------------------------------------------------------------------------------------------


@symmetric_synapse
def test_three_faces_of_one_number(xp, name):
    """Phi_n = < drive_post(pre), post > = < pre, drive_pre(post) > + < b, post > = < theta, hebbian >."""
    synapse, pre, post, _ = synapse_case(xp, name)
    up, switches = synapse.drive_post(pre)
    phi, theta = total(synapse.phi(pre, post)), synapse.parameters()
    bias_term = dot(theta["b"] + 0.0 * post, post) if "b" in theta else 0.0
    assert dot(up, post) == pytest.approx(phi, rel=1e-12)
    assert dot(pre, synapse.drive_pre(post, switches)) + bias_term == pytest.approx(phi, rel=1e-12)
    assert not theta or dot(theta, synapse.hebbian(pre, post, switches)) == pytest.approx(phi, rel=1e-12)
    assert synapse.hebbian(pre, post, switches).keys() == theta.keys() and up.shape == post.shape


@symmetric_synapse
def test_every_face_is_a_derivative_of_phi(xp, name):
    """drive_post = dPhi/dpost, drive_pre = dPhi/dpre, hebbian = dPhi/dtheta, by finite differences of Phi."""
    synapse, pre, post, _ = synapse_case(xp, name)
    d_pre, d_post = normal(xp, pre.shape, 10), normal(xp, post.shape, 11)
    up, switches = synapse.drive_post(pre)
    assert slope(lambda t: total(synapse.phi(pre, post + t * d_post))) == pytest.approx(dot(up, d_post), rel=1e-9)
    down = synapse.drive_pre(post, switches)
    assert slope(lambda t: total(synapse.phi(pre + t * d_pre, post))) == pytest.approx(dot(down, d_pre), rel=1e-9)
    for parameter, g in synapse.hebbian(pre, post, switches).items():
        w, d = getattr(synapse, parameter), normal(xp, g.shape, 12)

        def phi(t, parameter=parameter, w=w, d=d):
            setattr(synapse, parameter, w + t * d)
            return total(synapse.phi(pre, post))

        assert slope(phi) == pytest.approx(dot(g, d), rel=1e-9)
        setattr(synapse, parameter, w)


@every_synapse
def test_the_way_up_and_its_adjoint(xp, name):
    """< linear_post(v), post > = < v, drive_post_adjoint(post) > = < W, dW >, at the switches of another array."""
    synapse, v, post, switches = synapse_case(xp, name)
    value = dot(synapse.linear_post(v, switches), post)
    products = {key: g for key, g in synapse.hebbian(v, post, switches).items() if key != "b"}
    assert dot(v, synapse.drive_post_adjoint(post, switches)) == pytest.approx(value, rel=1e-12)
    assert not products or dot(products, synapse.parameters()) == pytest.approx(value, rel=1e-12)


@every_synapse
def test_the_way_down_and_its_adjoint(xp, name):
    """< v, drive_pre(post) > = < drive_pre_adjoint(v), post > = < B, dB >, at the switches of another array. There is no bias
    on the way down."""
    synapse, v, post, switches = synapse_case(xp, name)
    value = dot(v, synapse.drive_pre(post, switches))
    products = synapse.hebbian_down(v, post, switches)
    assert dot(synapse.drive_pre_adjoint(v, switches), post) == pytest.approx(value, rel=1e-12)
    assert not products or dot(products, synapse.parameters()) == pytest.approx(value, rel=1e-12)
    assert products.keys() == {"B"} if name in ASYMMETRIC else products.keys() == synapse.parameters().keys() - {"b"}


@every_synapse
def test_given_switches_are_kept(xp, name):
    """drive_post(pre, switches) = linear_post(pre, switches) + b, which is linear, and it returns those very switches."""
    synapse, pre, post, switches = synapse_case(xp, name)
    up, kept = synapse.drive_post(pre, switches)
    assert kept is switches
    assert relative(up, synapse.linear_post(pre, switches) + synapse.parameters().get("b", 0.0)) < 1e-14
    v = normal(xp, pre.shape, 7)
    assert relative(synapse.linear_post(v, switches), synapse.drive_post(pre + v, switches)[0] - up) < 1e-13


@symmetric_synapse
def test_phi_is_per_example(xp, name):
    """Phi_n of a batch = Phi_n of each example."""
    synapse, pre, post, _ = synapse_case(xp, name)
    singles = [to_host(synapse.phi(pre[n:n + 1], post[n:n + 1])).item() for n in range(2)]
    assert np.allclose(to_host(synapse.phi(pre, post)), singles, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", WITH_W)
def test_up_through_W_and_down_through_B(xp, name):
    """An asymmetric synapse goes up as one with (W, b) and down as one with (B, 0), each by its own switches."""
    synapse, pre, post, _ = synapse_case(xp, f"asymmetric {name}")
    forward, feedback = WITH_W[name](xp), WITH_W[name](xp)
    feedback.W = synapse.B
    up, (of_W, of_B) = synapse.drive_post(pre)
    forward_up, forward_switches = forward.drive_post(pre)
    feedback_switches = feedback.drive_post(pre)[1]
    assert relative(up, forward_up) == 0 and same_switches([of_W, of_B], [forward_switches, feedback_switches])
    assert relative(synapse.drive_pre(post, (of_W, of_B)), feedback.drive_pre(post, feedback_switches)) == 0
    assert of_B is None or not same_switches([of_W], [of_B])
    assert synapse.hebbian(pre, post, (of_W, of_B)).keys() == {"W", "b"} and synapse.parameters().keys() == {"W", "b", "B"}


# --- Phi and E, equations (2) and (10) ------------------------------------------------------------------------------------


@with_energy
def test_drives_and_products_are_the_derivatives_of_phi(xp, case):
    """w_n u_n = dPhi/ds_n, hebbian = dPhi/dtheta along random directions, at a random state."""
    net, x, _ = case.example(xp)
    states = random_states(xp, net)
    u, switches = net.drives(x, states)
    for n, w in enumerate(net.energy_factors):
        d = [normal(xp, s.shape, [9, k]) * (k == n) for k, s in enumerate(states)]
        by_state = complex_step(lambda t, d=d: total(net.phi(x, moved(states, d, t))))
        assert by_state == pytest.approx(w * dot(u[n], d[n]), rel=1e-12) and abs(by_state) > 1e-2 * w
    direction = {name: d * (not name.startswith("readout")) for name, d in random_direction(net).items()}
    by_theta = complex_step(along(net, direction, lambda: total(net.phi(x, states))))
    products = net.hebbian(x, states, switches)
    assert by_theta == pytest.approx(dot({name: direction[name] for name in products}, products), rel=1e-12)


@with_energy
def test_phi_by_each_of_its_faces(xp, case):
    """Phi = sum_k w_j < drive_post_k(s_i), s_j > = sum_k w_i gain_k < s_i, drive_pre_k(s_j) > + w_j < b, s_j >, and but for
    identities, which have no theta, = < theta, hebbian >. E = sum_n w_n G(s_n) - Phi."""
    net, x, _ = case.example(xp)
    states = random_states(xp, net)
    layers, w, by_up, by_down, skipped = [x, *states], [None, *net.energy_factors], 0.0, 0.0, 0.0
    switches = net.drives(x, states)[1]
    for synapse, (i, j), gain, sw in zip(net.synapses, net.wiring, net.gains, switches):
        by_up += w[j] * dot(synapse.drive_post(layers[i], sw)[0], layers[j])
        if isinstance(synapse, Filtered):  # linear in what it sees, and not in x
            synapse, layers[i] = synapse.conv, synapse.seen(x)
        bias = dot(synapse.parameters().get("b", 0.0) + 0.0 * layers[j], layers[j])
        by_down += (w[i] * gain if i > 0 else w[j]) * dot(layers[i], synapse.drive_pre(layers[j], sw)) + w[j] * bias
        skipped += 0.0 if synapse.parameters() else w[j] * total(synapse.phi(layers[i], layers[j]))
    phi, products = total(net.phi(x, states)), net.hebbian(x, states, switches)
    by_theta = skipped + dot({name: net.parameters()[name] for name in products}, products)
    assert [by_up, by_down, by_theta] == pytest.approx([phi] * 3, rel=1e-12)
    G = sum(w * to_host(net.activation.G(s)).reshape(len(x), -1).sum(1) for w, s in zip(net.energy_factors, states))
    assert np.allclose(to_host(net.energy(x, states)), G - to_host(net.phi(x, states)), rtol=1e-12, atol=0)


def energy_slopes(net, x, states, directions):
    """[dE along the direction of one layer, for every layer], by the complex step through E itself."""
    return [complex_step(lambda t, n=n, d=d: total(net.energy(x, [*states[:n], states[n] + t * d, *states[n + 1:]])))
            for n, d in enumerate(directions)]


@with_energy
def test_the_slope_of_the_energy_anywhere(xp, case):
    """dE/ds_n = w_n (sigma^-1(s_n) - u_n) at a random state, layer by layer along random directions."""
    net, x, _ = case.example(xp)
    states = random_states(xp, net)
    u, directions = net.drives(x, states)[0], like(xp, states, 4)
    for found, w, s, u_n, d in zip(energy_slopes(net, x, states, directions), net.energy_factors, states, u, directions):
        expected = w * (INVERSE[case.activation](flat(s)) - flat(u_n)) @ flat(d)
        assert found == pytest.approx(expected, rel=1e-11) and abs(expected) > 1e-2 * w


def largest_violation(net, x, states):
    """How far E is from stationary on the box: |dE/ds_n|/w_n inside; at a bound only slopes that lead back inside count."""
    low, high = net.activation.bounds
    worst = []
    for s, u in zip(states, net.drives(x, states)[0]):
        dE = to_host(complex_step(lambda t, s=s: net.activation.G(s + t)) - u)
        s = to_host(s)
        worst += [abs(dE[(s > low) & (s < high)]), -dE[s == low], dE[s == high]]
    return np.max(np.concatenate(worst))  # NaN if there is one


@with_energy
def test_the_free_fixed_point_is_stationary_for_the_energy(xp, case):
    """dE/ds = 0 inside the box, >= 0 at the lower and <= 0 at the upper bound, exactly at s*; by the slope of E too."""
    net, x, _ = case.example(xp)
    free, (low, high) = relax(net, x, case.steps), net.activation.bounds
    assert free.residual < 1e-14
    assert largest_violation(net, x, free.states) < 1e-11
    assert largest_violation(net, x, random_states(xp, net)) > 0.1
    inside = [d * ((s > low) & (s < high)) for d, s in zip(like(xp, free.states, 5), free.states)]
    assert max(map(abs, energy_slopes(net, x, free.states, inside))) < 1e-11 * max(net.energy_factors)


def test_a_wrong_G_is_not_stationary(xp):
    """1/2 ||s||^2 with the paper's clip(u/2, 0, 1): |dE/ds| is of order 1 at an exact fixed point."""
    case = Case("average", "hard-sigmoid", scale=2.0)
    net, x, _ = case.example(xp)
    states = relax(net, x, case.steps).states
    assert largest_violation(net, x, states) < 1e-9
    net.activation = net.activation._replace(G=CLIP.G)
    assert largest_violation(net, x, states) > 0.1


def test_weights_and_gains(xp):
    """w_n = gamma^(depth_n - depth_L), gains w_j/w_i; on a skip over two layers gamma^2; at gamma = 0 nothing comes down."""
    net = Case("triangle", gain=0.3).network(xp)
    assert net.depths == [0, 1, 2, 3] and net.energy_factors == pytest.approx([1 / 0.09, 1 / 0.3, 1.0])
    assert net.gains[1:] == pytest.approx([0.3, 0.3, 0.09])
    net.feedback = 0
    assert net.energy_factors == [np.inf, np.inf, 1.0] and net.gains[1:] == [0.0, 0.0, 0.0] and type(net.feedback) is float
    net.feedback = 1
    assert net.energy_factors == [1.0] * 3 and net.gains == [1.0] * 4
    for gain, weights in ((0.3, [1 / 0.3, 1, 0.3, 1]), (0.0, [np.inf, 1, 0, 1])):  # a layer deeper than the last
        net = Case("dead end", gain=gain).network(xp)
        assert net.depths == [0, 1, 2, 3, 2] and net.energy_factors == pytest.approx(weights)


def test_a_drive_that_comes_down_is_multiplied_by_its_gain(xp):
    """u_1 of the triangle = what comes up + gamma W_12 s_2 + gamma^2 W_13 s_3, written out; u_3 has no gain in it."""
    net, x, _ = Case("triangle", gain=0.3).example(xp)
    s1, s2, s3 = random_states(xp, net)
    first, second, third, skip = net.synapses
    u = net.drives(x, [s1, s2, s3])[0]
    assert relative(u[0], x @ first.W + first.b + 0.3 * s2 @ second.W.T + 0.09 * s3 @ skip.W.T) < 1e-14
    assert relative(u[1], s1 @ second.W + second.b + 0.3 * s3 @ third.W.T) < 1e-14
    assert relative(u[2], s2 @ third.W + third.b + s1 @ skip.W + skip.b) < 1e-14


def test_what_has_no_energy_says_why():
    """Without feedback, and with asymmetric synapses."""
    for case, sentence in ((Case("average", gain=0.0), "no Phi and no energy: nothing comes down"),
                           (Case("average", angle=90.0), "no Phi and no energy: its drives")):
        net, x, _ = case.example()
        for f in (net.phi, net.energy):
            with pytest.raises(EPError, match=sentence):
                f(x, random_states(np, net))


@every_case
def test_transposed_drives_are_the_transposed_jacobian(xp, case):
    """< D v, mu > = < v, D^T mu > with D v by the complex step; without transposition it is w D (mu/w), the same where
    there is an energy and only there; and what is None is zero."""
    net, x, _ = case.example(xp)
    states = random_states(xp, net)
    mu, v, w, switches = like(xp, states, 1), like(xp, states, 2), net.energy_factors, net.drives(x, states)[1]

    def response(direction, onto):  # < D direction, onto >
        return complex_step(lambda t: dot(net.drives(x, moved(states, direction, t))[0], onto))

    back = net.adjoint_drives(mu, switches)
    assert dot(back, v) == pytest.approx(response(v, mu), rel=1e-11)
    plain = [added(net.deviation_terms(n, mu, switches, transposed=False) or [(0.0, m)]) for n, m in enumerate(mu, start=1)]
    weighted = response([m / w_n for m, w_n in zip(mu, w)], [w_n * v_n for v_n, w_n in zip(v, w)])
    assert dot(plain, v) == pytest.approx(weighted, rel=1e-11)
    apart = relative(plain, back)
    assert apart < 1e-14 if case.angle is None else apart > 1e-2
    rest = [added(net.deviation_terms(2, [first, *mu[1:]], switches) or [(0.0, mu[1])]) for first in (None, 0.0 * mu[0])]
    assert relative(*rest) < 1e-14 if to_host(abs(rest[1]).max()) else (rest[0] == 0).all()


# --- a step, and schedules ------------------------------------------------------------------------------------------------


@every_case
def test_a_step_is_sigma_of_the_drives(xp, case):
    """Equation (1): s_n <- sigma(u_n - beta dC/ds_n), all layers from the old values, the cost only in the last; the switches
    and the residual are those of the new states. From a random state, and from zero, where no image has reached most layers."""
    net, x, y = case.example(xp)
    for start in (random_states(xp, net), None):
        states = start or net.init_state(x)
        u, _ = net.drives(x, states)
        u[-1] = u[-1] + 0.3 * net.cost.force(states[-1], y)
        after = relax(net, x, 1, y, 0.3, start=start)
        assert [s.shape for s in (*after.states, *after.u)] == [s.shape for s in states] * 2
        assert relative(after.states, [net.activation.sigma(v) for v in u]) < 1e-14
        assert same_switches(after.switches, net.drives(x, after.states)[1])
        change = max(abs(to_host(a) - to_host(b)).max() for a, b in zip(after.states, states))
        assert after.residual == pytest.approx(change, rel=1e-14)


def test_a_message_is_sent_once_and_none_by_a_layer_that_is_zero(xp):
    """In the first sweep up nothing comes down; in the second every message is sent once more, but for that of the input."""
    net, x, _ = Case("dense").example(xp)
    counts = [[0, 0] for _ in net.synapses]
    for count, synapse in zip(counts, net.synapses):
        def drive_post(pre, switches=None, count=count, plain=synapse.drive_post):
            count[0] += 1
            return plain(pre, switches)

        def drive_pre(post, switches=None, count=count, plain=synapse.drive_pre):
            count[1] += 1
            return plain(post, switches)

        synapse.drive_post, synapse.drive_pre = drive_post, drive_pre
    first = relax(net, x, Phase(1, "up")).states
    assert counts == [[1, 0]] * 3
    relax(net, x, Phase(1, "up"), start=first)
    assert counts == [[2, 0], [3, 1], [3, 1]]  # a start is a sender that has moved


@pytest.mark.parametrize("wiring,colours,depths", [
    ([(0, 1), (1, 2), (2, 3), (3, 4)], [[1, 3], [2, 4]], [[1], [2], [3], [4]]),
    ([(0, 1), (1, 2), (2, 3), (1, 3)], [[1], [2], [3]], [[1], [2], [3]]),  # a triangle takes three colours
    ([(0, 1), (1, 2), (2, 3), (3, 4), (1, 4)], [[1, 3], [2, 4]], [[1], [2], [3], [4]]),  # a square takes two
    ([(0, 1), (1, 2), (2, 3), (1, 3), (3, 4)], [[1, 4], [2], [3]], [[1], [2], [3], [4]]),  # parity would move 1 with 3
    ([(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)], [[1, 2, 4], [3]], [[1, 2], [3], [4]]),  # two branches that join
    ([(2, 1), (1, 3), (0, 2)], [[2, 3], [1]], [[2], [1], [3]]),  # numbered in another order
    ([(0, 2), (1, 2), (2, 3)], [[1, 3], [2]], [[1], [2], [3]])])  # a layer that the input reaches through feedback alone
def test_schedules_follow_the_wiring(wiring, colours, depths):
    """Checkerboard: no two joined layers move together. Sweeps: by depth. Every layer moves once a step."""
    net = Network([Dense(np.ones((2, 2)), np.ones(2), (2,)) for _ in wiring], "sigmoid", SquaredError(), wiring=wiring)
    found = {name: [list(group) for group in schedule(net)] for name, schedule in SCHEDULES.items()}
    assert found["checkerboard"] == colours and found["up"] == depths and found["down"] == depths[::-1]
    for name, groups in found.items():
        assert sorted(sum(groups, [])) == list(range(1, len(net.shapes)))
        assert name == "synchronous" or not any(i in group and j in group for i, j in wiring for group in groups)


DECIDED_BY_ITS_SKIP = Case("strong skip")  # by parity its layers 1 and 3, which are joined, would move together
NO_SWITCHES = [Case(wiring, activation, scale=1.5) for wiring, activation in KINDS if wiring != "max"]


@pytest.mark.parametrize("schedule", GROUPED)
@every([*NO_SWITCHES, DECIDED_BY_ITS_SKIP, Case("branches", "tanh"), Case("residual", "sigmoid"), Case("residual", "relu6")])
def test_steps_of_some_layers_at_a_time_never_raise_the_energy(xp, case, schedule):
    """A free step minimises E over one group of layers after the other, at every feedback gain. (Average pooling, dense; the
    residual network has max-pooling behind the stem alone, where the input decides.)"""
    net, x, _ = case.example(xp)
    for net.feedback in (1.0, 0.3, 0.05):
        states = random_states(xp, net)
        energies = [to_host(net.energy(x, states))]
        for _ in range(8):
            states = relax(net, x, Phase(1, schedule), start=states).states
            energies.append(to_host(net.energy(x, states)))
        changes = np.diff(energies, axis=0)
        assert changes.max() < 1e-13 * abs(np.asarray(energies)).max()  # round-off of a sum of about a hundred terms
        assert (changes[0] < 0).all()


@every(NO_SWITCHES)
def test_a_checkerboard_step_is_two_synchronous_half_steps(xp, case):
    """From any start, k checkerboard steps give the odd layers of 2k-1 synchronous steps and the even ones of 2k."""
    net, x, _ = case.example(xp)
    start = random_states(xp, net)
    for k in (1, 2, 5):
        board = relax(net, x, Phase(k, "checkerboard"), start=start).states
        odd, even = (relax(net, x, t, start=start).states for t in (2 * k - 1, 2 * k))
        assert relative(board[0::2], odd[0::2]) == 0  # the same numbers in the same order: bit for bit
        assert relative(board[1::2], even[1::2]) == 0
        assert relative(board[0::2], even[0::2]) > 0  # not because everything has converged


@every([case for case in where(CASES, gain=1.0) if case.wiring != "max"])
def test_all_schedules_reach_the_same_fixed_point(xp, case):
    """Where the free phase settles wherever it starts, nudged or not."""
    net, x, y = case.example(xp)
    for beta in (0.0, -0.2):
        one = relax(net, x, Phase(2 * case.steps, tolerance=1e-15), y, beta, start=random_states(xp, net))
        for schedule in GROUPED:
            assert relative(one.states, relax(net, x, Phase(case.steps, schedule), y, beta).states) < 1e-12


def test_synchronous_steps_may_alternate_for_ever(xp):
    """Where E has several minima: from one start, synchronous steps end in a cycle of two states, checkerboard steps settle."""
    net = mlp([6, 8, 8, 5, 3], "sigmoid", SquaredError, scale=5.0, seed=4, dtype="float64").to(xp)
    x = xp.asarray(np.random.default_rng([0, 17]).random((4, 6)))
    both = relax(net, x, 500)
    after_two = relax(net, x, 2, start=both.states)
    assert both.residual > 0.5 and residual(after_two.states, both.states) < 1e-12
    board = relax(net, x, Phase(500, "checkerboard"))
    assert board.residual < 1e-10
    assert relax(net, x, 1, start=board.states).residual < 1e-10  # a fixed point of synchronous steps too


@every([case for case in CASES if case.wiring in CHAINS and case.gain == 0.3])
def test_the_first_sweep_up_is_the_feed_forward_pass(xp, case):
    """Bit for bit, at any gain: the layers above are still 0 when a layer is updated, and nothing comes down from them."""
    net, s, _ = case.example(xp)
    swept = relax(net, s, Phase(1, "up"))
    for n, synapse in enumerate(net.synapses):
        s = net.activation.sigma(synapse.drive_post(s)[0])
        assert relative(swept.states[n], s) == 0


def test_one_sweep_down_carries_the_nudge_to_the_first_layer(xp):
    """All layers answer at once; synchronous and upward steps bring it one layer further each. At gamma = 0 the first downward
    sweep is all there is."""
    net, x, y = Case("dense", gain=0.3).example(xp)
    free = relax(net, x, 60)
    for schedule, reached in (("down", [True, True, True]), ("up", [False, False, True]), ("synchronous", [False, False, True])):
        delta = deviate(net, y, 0.5, free, Phase(1, schedule)).states
        assert [bool(to_host(d).any()) for d in delta] == reached, schedule
    net.feedback = 0.0
    free = relax(net, x, Phase(1, "up"))
    one, many = (deviate(net, y, 1e-6, free, Phase(steps, "down")).states for steps in (1, 7))
    assert relative(one, many) < 1e-5 and all(to_host(d).any() for d in one)  # for a nudge so small that dC/ds stays


def test_own_switches_let_free_phases_settle(xp):
    """Max-pooling, unrelated feedback, 10 seeds: every free phase settles; with the forward switches most do not."""
    def settled(net):
        return relax(net, x, Phase(480, tolerance=1e-11)).converged

    nets = [Case("max", angle=90.0, seed=seed, scale=1.5).network(xp) for seed in range(10)]
    x = Case("max").example(xp)[1]
    assert all(settled(net) for net in nets)
    for net in nets:  # the feedback's choice of corners replaced by that of the forward weights
        net.synapses[1].feedback.winners = lambda pre, forward=net.synapses[1].forward: forward.drive_post(pre)[1]
    assert sum(settled(net) for net in nets) < 8


# --- how a relaxation runs and ends ---------------------------------------------------------------------------------------


def test_relax_leaves_its_start_alone(xp):
    """The arrays and the list of `start` are unchanged."""
    net, x, _ = Case("max").example(xp)
    start, copies = random_states(xp, net), random_states(xp, net)
    relax(net, x, 3, start=start)
    assert relative(start, copies) == 0


def test_a_relaxation_knows_its_arguments_of_sigma(xp):
    """states[n] = sigma(u[n]) bit for bit, whatever the schedule, nudged or not."""
    net, x, y = Case("max", gain=0.5, scale=1.5).example(xp)
    for schedule, beta in itertools.product(SCHEDULES, (0.0, 0.3)):
        r = relax(net, x, Phase(3, schedule), y, beta, start=random_states(xp, net))
        assert all(relative(net.activation.sigma(u), s) == 0 for u, s in zip(r.u, r.states))


def test_a_fixed_number_of_steps(xp):
    """Without a tolerance all steps are made, the residual is looked at once, and only 0 counts as converged."""
    net, x, _ = Case("average").example(xp)
    r = relax(net, x, 7)
    assert (r.steps, r.history, r.converged) == (7, [(7, r.residual)], False) and r.residual > 0
    net.set_parameters({name: 0.0 * w for name, w in net.parameters().items()})  # rests exactly, on every processor
    still = relax(net, x, 5, start=relax(net, x, 3).states)
    assert (still.steps, still.residual, still.converged) == (5, 0.0, True)


@pytest.mark.parametrize("gain", [1.0, 0.3])
def test_the_tolerance_stops_at_the_first_small_residual(xp, gain):
    """Up to T steps, fewer once the residual is at most the tolerance; the history has every step. Of deviations as of states."""
    net, x, y = Case("average", gain=gain).example(xp)
    free = relax(net, x, Phase(120, tolerance=1e-6))
    for r in (free, deviate(net, y, 0.1, relax(net, x, 120), Phase(120, tolerance=1e-8))):
        assert r.converged and r.residual <= 1e-6 and r.residual < r.history[-2][1] and r.steps < 120
        assert [t for t, _ in r.history] == list(range(1, r.steps + 1))
    assert free.history[-2][1] > 1e-6 and relative(free.states, relax(net, x, free.steps).states) == 0
    missed = relax(net, x, Phase(3, tolerance=1e-9))
    assert (missed.steps, missed.converged) == (3, False) and missed.residual > 1e-9


def test_the_residual_is_computed_only_every_so_many_steps(xp):
    """check_every: the steps at its multiples, and the last; it decides where a tolerance can stop."""
    net, x, _ = Case("average").example(xp)
    assert [t for t, _ in relax(net, x, Phase(7, check_every=3)).history] == [3, 6, 7]
    every_one, fifth = (relax(net, x, Phase(120, tolerance=1e-6, check_every=n)) for n in (None, 5))
    assert fifth.steps == -(-every_one.steps // 5) * 5 and fifth.converged


@pytest.mark.parametrize("case", [Case("average"), Case("dense", "tanh")], ids=str)
def test_complex_nudging_is_analytic(xp, case):
    """s^(i b) for tiny b is s* + i b ds/dbeta: the complex step through the dynamics."""
    net, x, y = case.example(xp)
    start = relax(net, x, 120).states
    nudged = relax(net, x, 120, y, 1e-20j, start=start).states
    real = slope(lambda b: flat(relax(net, x, 120, y, b, start=start).states), 1e-3)
    assert relative([s.imag / 1e-20 for s in nudged], real) < 1e-10
    assert relative([s.real for s in nudged], start) < 1e-15


@every([Case("average", "hard-sigmoid"), Case("dense", "clip"), Case("max")])
def test_complex_nudging_needs_a_holomorphic_network(case):
    """Clipping and max-pooling refuse it in one sentence, as states and as deviations, also when the imaginary part is 0."""
    net, x, y = case.example()
    for beta in (0.1j, 0.1 + 0j, np.complex128(0.1j)):
        with pytest.raises(EPError, match="needs a holomorphic network"):
            relax(net, x, 3, y, beta)
        with pytest.raises(EPError, match="needs a holomorphic network"):
            deviate(net, y, beta, relax(net, x, 3), 3)


@pytest.mark.parametrize("options,match", [
    (dict(steps=3, schedule="random"), "unknown schedule 'random': expected one of synchronous, checkerboard, up, down"),
    (dict(steps=0), "steps: .* got 0"), (dict(steps=1, tolerance=-1.0), "tolerance: .* got -1"),
    (dict(steps=1, tolerance=float("nan")), "tolerance: .* got nan"), (dict(steps=3, check_every=0), "check_every: .* got 0")])
def test_phases_that_make_no_sense_are_refused(options, match):
    """Each is one sentence, and it does not take a network to see it."""
    with pytest.raises(EPError, match=match):
        Phase(**options)


def test_a_number_of_steps_is_a_phase():
    """For both phases of a gradient; the nudged ones are states, for rule (4), unless deviations are asked for."""
    phases = Phases(7, Phase(3, "down"))
    assert phases == Phases(Phase(7, "synchronous", 0.0, None), Phase(3, "down"), deviations=False)
    for free, nudged in ((0, 3), (3, 0)):
        with pytest.raises(EPError, match="steps: .* got 0"):
            Phases(free, nudged)


def test_nudging_needs_targets():
    """One per input."""
    net, x, y = Case("average").example()
    for targets, sentence in ((None, "needs the targets y"), (y[:2], "got 2 for 3")):
        with pytest.raises(EPError, match=sentence):
            relax(net, x, 3, targets, 0.1)
