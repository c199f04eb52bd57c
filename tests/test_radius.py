"""The spectral radius, and over-relaxation: what settles, how fast, and that the energy never rises on the way."""

import math
from functools import partial

import numpy as np
import pytest

import ep
from ep.backend import to_host
from ep.radius import best_omega, calibrate_radius, spectral_radius


def settled(network, x, **options):
    return ep.relax(network, x, ep.Phase(3000, "checkerboard", 1e-13, **options))


def finite_difference_jacobian(network, x, states):
    """d(sigma(u))/ds of one image, a matrix, by central differences of the synchronous step."""
    sizes = [s.size for s in states]
    flat, h, columns = np.concatenate([s.ravel() for s in states]), 1e-6, []
    for k in range(len(flat)):
        ends = []
        for sign in (1, -1):
            moved = flat.copy()
            moved[k] += sign * h
            parts = [part.reshape(s.shape) for part, s in zip(np.split(moved, np.cumsum(sizes)[:-1]), states)]
            ends.append(np.concatenate([s.ravel() for s in ep.relax(network, x, 1, start=parts).states]))
        columns.append((ends[0] - ends[1]) / (2 * h))
    return np.array(columns).T


def with_skip(gain):
    rng, sizes, wiring = np.random.default_rng(8), [4, 5, 6, 5], [(0, 1), (1, 2), (2, 3), (1, 3)]
    synapses = [ep.Dense(rng.normal(size=(sizes[i], sizes[j])) / 2, 0.3 * rng.normal(size=sizes[j]), (sizes[i],))
                for i, j in wiring]
    return ep.Network(synapses, ep.SHIFTED_SIGMOID, ep.SquaredError(), wiring, feedback=gain)


@pytest.mark.parametrize("gain", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("kind", ["chain", "skip", "max-pooling"])
def test_it_is_the_largest_eigenvalue_of_the_jacobian(kind, gain):
    if kind == "skip":
        network = with_skip(gain)
    elif kind == "chain":
        network = ep.mlp([4, 7, 6, 5], ep.SHIFTED_SIGMOID, ep.SquaredError, scale=1.5, feedback=gain, dtype="float64")
    else:
        network = ep.convnet([3, 4], (8, 8, 1), 3, paddings=[1, 1], scale=2.0, feedback=gain, dtype="float64")
    x = np.random.default_rng(1).random((3, *network.shapes[0]))
    free = settled(network, x)
    found = spectral_radius(network, x, free, 200)
    for k, r in enumerate(found):
        D = finite_difference_jacobian(network, x[k:k + 1], [s[k:k + 1] for s in free.states])
        expected = abs(np.linalg.eigvals(D)).max()
        assert 1e-3 < expected < 1 and r == pytest.approx(expected, rel=1e-4)


def test_asymmetric_weights():
    """Their eigenvalues are complex."""
    network = ep.asymmetric(ep.mlp([4, 7, 6, 5], ep.SHIFTED_SIGMOID, ep.SquaredError, scale=1.5, dtype="float64"))
    x = np.random.default_rng(1).random((2, 4))
    free = settled(network, x)
    for k, r in enumerate(spectral_radius(network, x, free)):
        D = finite_difference_jacobian(network, x[k:k + 1], [s[k:k + 1] for s in free.states])
        assert np.iscomplex(np.linalg.eigvals(D)).any() and r == pytest.approx(abs(np.linalg.eigvals(D)).max(), rel=1e-4)


def test_without_feedback_it_is_zero(xp):
    network = ep.convnet([3, 4], (8, 8, 1), 3, feedback=0.0, dtype="float64").to(xp)
    x = xp.asarray(np.random.default_rng(1).random((2, 8, 8, 1)))
    assert (spectral_radius(network, x, ep.relax(network, x, 3)) == 0).all()


def steps_to_settle(r, share, omega):
    """After how many steps of a chain a deviation has shrunk to this share of itself (Young 1954), by a factor q each:

        sqrt(q) = ( omega r + sqrt(omega^2 r^2 - 4 (omega - 1)) ) / 2        below the best omega; from there on  q = omega - 1
    """
    root = (omega * r) ** 2 - 4 * (omega - 1) if omega < best_omega(r) else -1.0
    q = ((omega * r + math.sqrt(root)) / 2) ** 2 if root >= 0 else omega - 1
    return math.ceil(math.log(share) / math.log(q))


def test_best_omega_settles_fastest_and_large_radii_are_refused():
    """Of a chain of two layers, which is what the formula is about; r >= 1 is a sentence, not a NaN."""
    network = ep.mlp([4, 20, 20], ep.CLIP, ep.SquaredError, dtype="float64")
    W = network.synapses[1].W
    W[...] = abs(W)
    W *= 0.95 / np.linalg.norm(W, 2)  # inside the bounds everything is linear, and r = 0.95
    for synapse in network.synapses:
        synapse.b[:] = 0.02
    x = np.zeros((2, 4))
    free = settled(network, x)
    assert all((s > 0).all() and (s < 1).all() for s in free.states)
    r = float(spectral_radius(network, x, free, 400)[0])
    assert r == pytest.approx(0.95, rel=1e-3)
    steps = {omega: ep.relax(network, x, ep.Phase(2000, "checkerboard", 1e-10, omega=omega)).steps
             for omega in (1.0, best_omega(r) - 0.1, best_omega(r), best_omega(r) + 0.1)}
    assert min(steps, key=steps.get) == best_omega(r) and steps[best_omega(r)] < 0.35 * steps[1.0]
    for omega, slower in ((1.0, 1.06), (best_omega(r) - 0.1, 1.06), (best_omega(r) + 0.1, 1.4)):  # where all modes shrink alike
        later = ep.relax(network, x, ep.Phase(2000, "checkerboard", 1e-13, omega=omega)).steps
        assert 0.95 < (later - steps[omega]) / steps_to_settle(r, 1e-3, omega) < slower
    with pytest.raises(ep.EPError, match="does not settle"):
        best_omega(1.0)


# --- initial weights of a given radius ---------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [0.3, 0.8])
def test_hidden_weights_of_a_given_radius(xp, radius):
    """From far below and far above; the weights from the input and all biases stay as they are, and so do the proportions."""
    for scale in (0.5, 2.0):
        network = ep.convnet([3, 4, 5], (12, 12, 2), 3, paddings=[1, 1, 1], scale=scale, dtype="float64").to(xp)
        x = xp.asarray(np.random.default_rng(1).random((3, 12, 12, 2)))
        before = {name: w.copy() for name, w in network.parameters().items()}
        assert calibrate_radius(network, x, radius) is network
        assert spectral_radius(network, x, settled(network, x)).mean() == pytest.approx(radius, abs=0.011)
        factors = {name: to_host(w / before[name]) for name, w in network.parameters().items()}
        hidden = [factors.pop(name) for name in ("2.W", "3.W")]
        assert all((factor == 1).all() for factor in factors.values())
        np.testing.assert_allclose(np.concatenate([factor.ravel() for factor in hidden]), hidden[0].flat[0], rtol=1e-12)


def test_a_radius_that_no_weights_give():
    """A skip alone is a loop of strength 1, and has no weights."""
    network = ep.Network([ep.Dense(np.eye(4), np.zeros(4), (4,)), ep.Identity((4,))], ep.TANH, ep.SquaredError())
    with pytest.raises(ep.EPError, match=r"spectral radius of 0.5 \(the last had 1.00\).*smaller feedback gain"):
        calibrate_radius(network, np.zeros((2, 4)), 0.5)


def test_a_radius_that_is_too_large_for_the_units(xp):
    """They reach their bounds before: then the largest below it is taken, the network settles, and a warning says so."""
    network = ep.convnet([2, 3], (8, 8, 3), 3, paddings=[1, 1], dtype="float64").to(xp)
    x = xp.asarray(np.random.default_rng(1).random((3, 8, 8, 3)))
    with pytest.warns(UserWarning, match="no scale of the hidden weights gives a spectral radius of 0.99: it is 0."):
        calibrate_radius(network, x, 0.99)
    r = spectral_radius(network, x, settled(network, x)).mean()
    assert 0.1 < r < 0.98


@pytest.mark.parametrize("radius", [0.0, 1.0, 1.5])
def test_radii_with_which_no_network_settles_are_refused(radius):
    with pytest.raises(ep.EPError, match=f"between 0 and 1.*got {radius:g}"):
        calibrate_radius(ep.mlp([4, 5, 5, 3]), np.ones((2, 4)), radius)


@pytest.mark.parametrize("options", [dict(channels=[4]), dict(channels=[4, 5], feedback=0.0)])
def test_a_radius_where_nothing_comes_back_is_refused(options):
    """A single hidden layer, and a gain of 0: no scale of the weights would help."""
    network = ep.convnet(input_shape=(8, 8, 3), paddings=[1] * len(options["channels"]), **options)
    with pytest.raises(ep.EPError, match="nothing comes back"):
        calibrate_radius(network, np.ones((2, 8, 8, 3)), 0.7)


def test_what_the_radius_refuses():
    """Other images than those of the relaxation, no rounds; an omega for several radii."""
    network, x = ep.mlp([4, 5, 5, 3]), np.random.default_rng(0).random((6, 4), "float32")
    free = settled(network, x)
    for arguments, match in (((x[:3], free), "got 3 images, and states of 6"), ((x, free, 0), "at least 1, got 0")):
        with pytest.raises(ep.EPError, match=match):
            spectral_radius(network, *arguments)
    for r in (spectral_radius(network, x, free), None, "0.5"):
        with pytest.raises(ep.EPError, match="several images take the mean"):
            best_omega(r)


# --- settled images leave ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("omega", [1.0, 1.4])
@pytest.mark.parametrize("connections", ["symmetric", "asymmetric"])
def test_images_that_have_settled_leave(xp, connections, omega):
    """Each image, free and nudged, ends where it ends alone, at its tolerance; the mean of the steps is less than the most."""
    network = ep.CONNECTIONS[connections](ep.convnet([4, 5], (8, 8, 2), 3, paddings=[1, 1], scale=1.6, dtype="float64")).to(xp)
    rng = np.random.default_rng(2)
    x = xp.asarray(rng.random((20, 8, 8, 2)) * np.linspace(0, 2, 20)[:, None, None, None])
    y, phase = network.targets(np.arange(20) % 3), ep.Phase(300, "checkerboard", 1e-9, omega=omega)
    together = ep.relax(network, x, phase)
    alone = [ep.relax(network, x[k:k + 1], phase) for k in range(20)]
    steps = [one.steps for one in alone]
    assert together.converged and together.steps == max(steps) and min(steps) < together.mean_steps < max(steps)
    assert [t for t, _ in together.history] == list(range(1, together.steps + 1))
    assert together.residual == max(change for t, change in together.history if t == together.steps) <= 1e-9
    for n, s in enumerate(together.states):
        np.testing.assert_allclose(to_host(s), to_host(xp.concatenate([one.states[n] for one in alone])), rtol=0, atol=1e-7)
    expected = [sw if sw is None else xp.concatenate(sws) for sw, *sws in zip(*(one.switches for one in [alone[0], *alone]))
                ] if connections == "symmetric" else []
    assert all(a is None or (a == b).all() for a, b in zip(together.switches, expected))
    drives = network.drives(x, together.states)[0]
    assert all(float(abs(network.activation.sigma(u) - s).max()) < 1e-7 for u, s in zip(drives, together.states))
    assert all(float(abs(u - other).max()) < 1e-6 for u, other in zip(drives, together.u))
    nudged = ep.deviate(network, y, 0.5, together, phase)
    ones = [ep.deviate(network, y[k:k + 1], 0.5, alone[k], phase) for k in range(20)]
    assert nudged.converged and nudged.mean_steps < nudged.steps
    for again in (partial(ep.relax, network, x, phase), partial(ep.deviate, network, y, 0.5, together, phase)):
        start = [s.copy() for s in again().states]  # the first half has settled, so the rest parts after one step
        for s in start:
            s[10:] *= 0.9
        given = [s.copy() for s in start]
        assert again(start=start).converged and all((s == before).all() for s, before in zip(start, given))
    for n, delta in enumerate(nudged.states):
        np.testing.assert_allclose(to_host(delta), to_host(xp.concatenate([one.states[n] for one in ones])), rtol=0, atol=1e-6)


def test_those_that_do_not_settle_are_reported(xp):
    """The steps end for whoever still moves; residual and shares are of the last step of each image."""
    network = ep.convnet([4, 5], (8, 8, 2), 3, paddings=[1, 1], scale=2.0, dtype="float64").to(xp)
    x = np.random.default_rng(2).random((12, 8, 8, 2))
    x[3:] = 0.0
    phase = ep.Phase(ep.relax(network, xp.asarray(x[3:]), ep.Phase(300, "checkerboard", 1e-7)).steps + 2, "checkerboard", 1e-7)
    ended = ep.relax(network, xp.asarray(x), phase)
    assert ended.steps == phase.steps and not ended.converged and ended.residual > 1e-7 and ended.mean_steps < ended.steps
    assert to_host(ended.settled).tolist() == [False] * 3 + [True] * 9


# --- over-relaxation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["checkerboard", "up", "down"])
@pytest.mark.parametrize("pool", ["max", "average"])
@pytest.mark.parametrize("gain", [1.0, 0.3])
def test_the_energy_never_rises(xp, pool, schedule, gain):
    """For 0 < omega < 2, from a random state; the proof is in docs/theory/convergence.md. A wrong factor of s is noticed."""
    network = ep.convnet([4, 5, 6], (12, 12, 2), 3, paddings=[1, 1, 1], pool=pool, scale=1.5, feedback=gain,
                         dtype="float64").to(xp)
    rng = np.random.default_rng(0)
    x = xp.asarray(rng.random((4, 12, 12, 2)))
    for omega in (0.5, 1.0, 1.4, 1.9):
        s = [xp.asarray(rng.random((4, *shape))) for shape in network.shapes[1:]]
        before = network.energy(x, s)
        fell = 0.0
        for _ in range(6):
            s = ep.relax(network, x, ep.Phase(1, schedule, omega=omega), start=s).states
            after = network.energy(x, s)
            assert float((after - before).max()) < 1e-12
            before, fell = after, fell + float((before - after).sum())
        assert fell > 0.1


def test_beyond_two_it_rises():
    """So the bound is where the theorem has it: by the term that `relax` adds, which a `Phase` refuses for such an omega."""
    network = ep.mlp([3, 8, 8], ep.CLIP, ep.SquaredError, dtype="float64", scale=0.1)
    phase, rng = ep.Phase(1, "checkerboard", omega=1.9), np.random.default_rng(0)
    object.__setattr__(phase, "omega", 2.3)
    x, s = rng.random((1, 3)), [np.full((1, 8), 0.5), np.full((1, 8), 0.5)]
    rises = []
    for _ in range(3):
        new = ep.relax(network, x, phase, start=s).states
        rises.append(float(network.energy(x, new)[0] - network.energy(x, s)[0]))
        s = new
    assert max(rises) > 1e-3


@pytest.mark.parametrize("connections", ["symmetric", "asymmetric"])
@pytest.mark.parametrize("omega", [0.7, 1.3, 1.6])
def test_the_fixed_point_and_the_gradient_are_the_same(xp, omega, connections):
    """Free and nudged phases, each over-relaxed or not: the same states, u, deviations, gradients, and RBP's."""
    network = ep.CONNECTIONS[connections](ep.convnet([4, 5], (8, 8, 2), 3, paddings=[1, 1], pool="average", scale=1.5,
                                                     dtype="float64")).to(xp)
    network.synapses[1].b[:2] -= 0.4  # some units at a bound, where the argument of sigma has to be the plain drive
    x, y = xp.asarray(np.random.default_rng(2).random((3, 8, 8, 2))), np.array([0, 1, 2])
    board = dict(steps=600, schedule="checkerboard", tolerance=1e-13)
    plain, over = ep.Phase(**board), ep.Phase(**board, omega=omega)
    nudging = ep.Nudging.symmetric(5.0)
    expected = ep.eqprop_gradient(network, x, y, ep.Phases(plain, plain, deviations=True), nudging=nudging)
    at_bounds = [to_host(s) == 0 for s in expected.free.states]
    freed = [to_host(delta)[at].any() for phase in expected.nudged for delta, at in zip(phase.states, at_bounds)]
    assert any(at.any() for at in at_bounds) and any(freed)
    for free, nudged in ((over, plain), (plain, over), (over, over)):
        found = ep.eqprop_gradient(network, x, y, ep.Phases(free, nudged, deviations=True), nudging=nudging)
        assert found.free.converged and all(phase.converged for phase in found.nudged)
        for a, b in zip([*found.free.states, *found.free.u], [*expected.free.states, *expected.free.u]):
            assert float(abs(a - b).max()) < 1e-10
        for name, g in expected.gradient.items():
            assert float(abs(found.gradient[name] - g).max()) < 1e-8 * float(abs(g).max())
    rbp = [ep.rbp_gradient(network, x, y, ep.Phases(plain, phase)).gradient for phase in (plain, over)]
    for name, g in rbp[0].items():
        assert float(abs(rbp[1][name] - g).max()) < 1e-9 * float(abs(g).max())


@pytest.mark.parametrize("omega,schedule", [(0.0, "up"), (2.0, "up"), (-1.0, "up"), (float("nan"), "up"), (1.3, "synchronous")])
def test_what_a_phase_refuses(omega, schedule):
    with pytest.raises(ep.EPError, match="omega"):
        ep.Phase(3, schedule, omega=omega)


def test_a_smooth_sigma_is_refused():
    network = ep.mlp([3, 4, 2], ep.SHIFTED_SIGMOID)
    with pytest.raises(ep.EPError, match="over-relaxation"):
        ep.relax(network, np.zeros((1, 3), "float32"), ep.Phase(3, "up", omega=1.3))


@pytest.mark.parametrize("connections", ["symmetric", "asymmetric"])
def test_nudged_images_that_have_settled_leave(connections):
    """By states, and by deviations through either Jacobian, each image with its own label."""
    network = ep.CONNECTIONS[connections](ep.convnet([4, 5], (8, 8, 2), 3, paddings=[1, 1], scale=1.6, dtype="float64"))
    x = np.random.default_rng(2).random((20, 8, 8, 2)) * np.linspace(0, 2, 20)[:, None, None, None]
    y, phase = np.arange(20) % 3, ep.Phase(300, "checkerboard", 1e-9)
    free, alone = ep.relax(network, x, phase), [ep.relax(network, x[k:k + 1], phase) for k in range(20)]

    def by_states(k, free):
        return ep.relax(network, x[k], phase, y[k], 0.5, start=free.states)

    def by_deviations(k, free, transposed):
        return ep.deviate(network, y[k], 0.5, free, phase, transposed)

    for nudged in (by_states, partial(by_deviations, transposed=False), partial(by_deviations, transposed=True)):
        together, ones = nudged(slice(None), free), [nudged(slice(k, k + 1), alone[k]) for k in range(20)]
        assert together.converged and together.mean_steps < together.steps
        for n, s in enumerate(together.states):
            np.testing.assert_allclose(s, np.concatenate([one.states[n] for one in ones]), rtol=0, atol=1e-6)
